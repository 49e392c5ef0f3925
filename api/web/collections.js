// The screen of all collections, their counters moving while operations run.

import { chip, counters } from "./counters.js";
import { addSource, createCollection, deleteCollection, renameCollection } from "./dialogs.js";
import { attribute, h, icon, keyed, show, text } from "./dom.js";
import { bytes, counted, percent } from "./format.js";
import { bar, percentOf, stageOf } from "./operation.js";
import { session } from "./session.js";
import { empty, failure, loading } from "./states.js";
import { store } from "./store.js";

/** What a collection's owner may do: {node, update(collection)}. */
export function actions({ onDeleted } = {}) {
  let collection;
  const button = (label, act) => h("button", { type: "button", class: "small", onclick: () => act(collection, onDeleted) }, label);
  const find = h("a", { class: "button small" }, "Search");
  const own = [button("Add source", addSource), button("Rename", renameCollection), button("Delete", deleteCollection)];
  return {
    node: h("div", { class: "buttons" }, find, own),
    update(next) {
      collection = next;
      const isMine = collection.owner_id === session.user?.id;
      const isBusy = store.live(collection.id).length > 0 || collection.status === "processing";
      show(find, collection.vector_count > 0);
      attribute(find, "href", "/search?in=" + collection.id);
      own.forEach((node) => {
        show(node, isMine);
        attribute(node, "aria-label", `${node.textContent} “${collection.name}”`);
      });
      // The API allows one operation at a time on a collection; renaming is none.
      for (const node of [own[0], own[2]]) {
        node.disabled = isBusy;
        attribute(node, "title", isBusy ? "Not while an operation runs on this collection" : null);
      }
    },
  };
}

function card() {
  const name = h("a", { class: "named" });
  const sign = chip();
  const about = h("p", { class: "about" });
  const numbers = counters();
  const doing = h("span", { class: "stage" });
  const done = h("span", { class: "percent" });
  const progress = bar();
  const running = h("div", { class: "running" }, h("div", { class: "doing" }, doing, done), progress.node);
  const what = actions();
  const node = h("article", { class: "collection card" }, h("header", null, h("h2", null, name), sign.node), about, numbers.node, running, what.node);
  return {
    node,
    update(collection) {
      const [operation] = store.live(collection.id);
      text(name, collection.name);
      attribute(name, "href", "/collections/" + collection.id);
      attribute(name, "title", collection.name);
      sign.set(operation ? "processing" : collection.status);
      text(about, (collection.status === "error" && collection.status_message) || collection.description || collection.status_message || "");
      attribute(about, "title", about.textContent || null);
      numbers.set(collection);
      show(running, operation);
      if (operation) {
        text(doing, stageOf(operation));
        text(done, percent(percentOf(operation)));
        progress.set(operation);
      }
      what.update(collection);
    },
  };
}

function summaryOf(all) {
  const sum = (field) => all.reduce((n, collection) => n + collection[field], 0);
  return `${counted(all.length, "collection")}, ${counted(sum("document_count"), "document")}, ${counted(sum("vector_count"), "vector")}, ${bytes(sum("total_size_bytes"))}`;
}

const createButton = () => h("button", { type: "button", class: "primary", onclick: () => createCollection() }, icon("plus"), "New collection");

export function collectionsScreen() {
  const cards = h("div", { class: "cards" });
  const state = h("div", null);
  const summary = h("p", { class: "summary" });
  const create = createButton();
  const node = h("div", null, h("div", { class: "head" }, h("div", null, h("h1", { tabindex: -1 }, "Collections"), summary), create), state, cards);
  let shown;
  return {
    title: "Collections",
    node,
    update() {
      const all = store.sortedCollections();
      const known = store.collectionsState;
      const key = all.length > 0 ? "there" : known instanceof Error ? known.message : String(known);
      keyed(cards, all, (collection) => collection.id, card);
      text(summary, all.length > 0 ? summaryOf(all) : "");
      show(create, all.length > 0);
      if (key === shown) return;
      shown = key;
      if (all.length > 0) state.replaceChildren();
      else if (known == null) state.replaceChildren(loading("Loading collections…"));
      else if (known instanceof Error) state.replaceChildren(failure(known, () => store.reload()));
      else
        state.replaceChildren(empty("collections", "No collections yet", "Create one: name it, and point it at a folder of documents. Opstream reads them, and you can search them by meaning.",
          createButton()));
    },
  };
}
