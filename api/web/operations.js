// The screen of operations: those that run, and those that ended lately.

import { h, keyed, show, text } from "./dom.js";
import { counted } from "./format.js";
import { endedOperation, liveOperation } from "./operation.js";
import { empty, failure, loading } from "./states.js";
import { store } from "./store.js";

/** Lists that stay what they are while their operations change: {node, update(live, ended)}. */
export function operationLists({ quiet }) {
  const running = h("div", { class: "stack" });
  const over = h("div", { class: "rows card" });
  const none = h("p", { class: "quiet" }, quiet);
  const past = h("section", null, h("h2", null, "Recent"), over);
  return {
    node: h("div", { class: "stack wide" }, h("section", null, h("h2", null, "Running now"), running, none), past),
    update(live, ended) {
      keyed(running, live, (operation) => operation.id, liveOperation);
      keyed(over, ended, (operation) => operation.id, endedOperation);
      show(running, live.length > 0);
      show(none, live.length === 0);
      show(past, ended.length > 0);
    },
  };
}

export function operationsScreen() {
  const lists = operationLists({ quiet: "Nothing runs at the moment." });
  const state = h("div", null);
  const summary = h("p", { class: "summary" });
  const node = h("div", null, h("div", { class: "head" }, h("div", null, h("h1", { tabindex: -1 }, "Operations"), summary)), state, lists.node);
  return {
    title: "Operations",
    node,
    update() {
      const live = store.live();
      const ended = store.ended().slice(0, 100);
      const isThere = live.length + ended.length > 0;
      lists.update(live, ended);
      show(lists.node, isThere);
      show(state, !isThere);
      text(summary, isThere ? (live.length > 0 ? `${counted(live.length, "operation")} in progress` : "All is done") : "");
      if (!isThere) put(state, store.operationsState);
    },
  };
}

function put(state, known) {
  const key = known instanceof Error ? known.message : String(known);
  if (state.dataset.key === key) return;
  state.dataset.key = key;
  if (known == null) state.replaceChildren(loading("Loading operations…"));
  else if (known instanceof Error) state.replaceChildren(failure(known, () => store.reload()));
  else
    state.replaceChildren(empty("operations", "No operations yet", "Whatever takes longer than a moment appears here while it runs: reading a folder, building vectors anew, removing documents.",
      h("a", { class: "button", href: "/collections" }, "Go to collections")));
}
