// The screen of one collection: counters, what runs on it, its sources, what failed, and what was done.

import { get } from "./api.js";
import { actions } from "./collections.js";
import { chip, counters } from "./counters.js";
import { failedDocuments } from "./documents.js";
import { h, show, text } from "./dom.js";
import { operationLists } from "./operations.js";
import { session } from "./session.js";
import { sourceList } from "./sources.js";
import { failure, loading } from "./states.js";
import { store } from "./store.js";
import { sentence } from "./words.js";

function head(onDeleted) {
  const name = h("h1", { tabindex: -1, class: "named" });
  const sign = chip();
  const about = h("p", { class: "summary" });
  const note = h("p", { class: "trouble" });
  const what = actions({ onDeleted });
  const numbers = counters();
  return {
    node: h("div", null, h("p", { class: "back" }, h("a", { href: "/collections" }, "← All collections")),
      h("div", { class: "head" }, h("div", { class: "title" }, h("div", { class: "line" }, name, sign.node), about), what.node), note, h("div", { class: "card big" }, numbers.node)),
    update(collection, isBusy) {
      text(name, collection.name);
      sign.set(isBusy ? "processing" : collection.status);
      text(about, collection.description ?? "");
      show(about, collection.description);
      text(note, collection.status_message ? sentence(collection.status_message) : "");
      show(note, collection.status_message && !isBusy);
      note.classList.toggle("mild", collection.status !== "error");
      numbers.set(collection);
      what.update(collection);
    },
  };
}

export function collectionScreen({ id, go }) {
  const top = head(() => go("/collections"));
  const lists = operationLists();
  const sources = sourceList(id);
  const failed = failedDocuments(id);
  const there = h("div", { class: "stack wide single" }, top.node, lists.running, sources.node, failed.node, lists.past);
  const state = h("div", null, loading("Loading the collection…"));
  const node = h("div", null, state, there);
  const screen = { title: "Collection", node, update };
  let problem = null;
  let seen = null;

  async function load() {
    try {
      store.takeCollection(await get("/api/v2/collections/" + id));
      if (store.collections.get(id).owner_id === session.user?.id) {
        for (const operation of await get(`/api/v2/collections/${id}/operations?per_page=50`)) store.takeOperation(operation);
      }
    } catch (error) {
      problem = error;
      update();
    }
  }

  function update() {
    const collection = store.collections.get(id);
    show(there, collection);
    show(state, !collection);
    if (!collection) {
      if (problem) state.replaceChildren(failure(problem, problem.status === 404 ? null : () => { problem = null; load(); }));
      return;
    }
    screen.title = collection.name;
    const live = store.live(id);
    const isBusy = live.length > 0 || collection.status === "processing";
    const ended = store.ended(id);
    top.update(collection, isBusy);
    lists.update(live, ended.slice(0, 50));
    failed.update(collection, collection.owner_id === session.user?.id, isBusy);
    const key = `${ended[0]?.id} ${live.length}`;
    if (key !== seen) sources.load();
    seen = key;
  }

  load();
  return screen;
}
