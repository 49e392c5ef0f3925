// The screen of operations: those that run, and those that ended lately.

import { h, keyed, show, text } from "./dom.js";
import { counted } from "./format.js";
import { endedOperation, liveOperation } from "./operation.js";
import { empty, failure, loading } from "./states.js";
import { store } from "./store.js";

/** Two sections that stay what they are while their operations change: {running, past, update(live, ended)}. Empty ones are hidden. */
export function operationLists() {
  const now = h("div", { class: "stack" });
  const over = h("div", { class: "rows card" });
  const running = h("section", null, h("h2", null, "Running now"), now);
  const past = h("section", null, h("h2", null, "Recent"), over);
  return {
    running,
    past,
    update(live, ended) {
      keyed(now, live, (operation) => operation.id, liveOperation);
      keyed(over, ended, (operation) => operation.id, endedOperation);
      show(running, live.length > 0);
      show(past, ended.length > 0);
    },
  };
}

export function operationsScreen() {
  const lists = operationLists();
  const there = h("div", { class: "stack wide" }, lists.running, lists.past);
  const state = h("div", null);
  const summary = h("p", { class: "summary" });
  const node = h("div", null, h("div", { class: "head" }, h("div", null, h("h1", { tabindex: -1 }, "Operations"), summary)), state, there);
  return {
    title: "Operations",
    node,
    update() {
      const live = store.live();
      const ended = store.ended().slice(0, 100);
      const isThere = live.length + ended.length > 0;
      lists.update(live, ended);
      show(there, isThere);
      show(state, !isThere);
      text(summary, isThere ? (live.length > 0 ? `${counted(live.length, "operation")} in progress` : "Nothing runs at the moment") : "");
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
