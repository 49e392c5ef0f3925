// Documents of a collection that could not be read, with the reasons.

import { call, get } from "./api.js";
import { h, keyed, show, text } from "./dom.js";
import { counted } from "./format.js";
import { notice } from "./notices.js";
import { store } from "./store.js";
import { sentence } from "./words.js";

const MOST = 50;

const hints = { transient: "A retry may help.", permanent: "A retry will hardly help.", unknown: "A retry may help." };

function row(collectionId, onRetry) {
  let document;
  const name = h("strong", { class: "named" });
  const reason = h("p", { class: "reason" });
  const again = h("button", { type: "button", class: "small", onclick: () => onRetry(`/api/v2/collections/${collectionId}/documents/${document.id}/retry`, again) }, "Retry");
  return {
    node: h("li", null, h("div", null, name, reason), again),
    update(next) {
      document = next;
      text(name, document.file_name);
      name.title = document.file_path;
      text(reason, `${sentence(document.error_message ?? "No reason is known")} ${hints[document.error_category] ?? ""}`);
      again.setAttribute("aria-label", `Retry ${document.file_name}`);
    },
  };
}

/** {node, update(collection, isMine, isBusy)}; reads the list when the number of failed documents changes. */
export function failedDocuments(collectionId) {
  const list = h("ul", { class: "rows card failures" });
  const more = h("p", { class: "hint" });
  const problem = h("p", { class: "wrong", role: "alert" });
  const all = h("button", { type: "button", class: "small", onclick: () => retry(`/api/v2/collections/${collectionId}/documents/retry-failed`, all) }, "Retry all");
  const node = h("section", null, h("div", { class: "head small" }, h("h2", null, "Failed documents"), all), problem, list, more);
  let read = null;

  async function load(collection) {
    try {
      const answer = await get(`/api/v2/collections/${collectionId}/documents?status=failed&per_page=${MOST}`);
      keyed(list, answer.documents, (document) => document.id, () => row(collectionId, retry));
      const left = answer.total - answer.documents.length;
      text(more, left > 0 ? `And ${counted(left, "document")} more.` : "");
      text(problem, "");
    } catch (error) {
      read = null;
      text(problem, error.message);
    }
    update(collection);
  }

  async function retry(path, button) {
    button.disabled = true;
    try {
      const answer = await call("POST", path);
      notice(answer.message ?? `${answer.file_name} is read again.`);
      store.reload();
    } catch (error) {
      notice(error.message, { isBad: true });
    }
    button.disabled = false;
  }

  let isMine = false;
  let isBusy = false;
  function update(collection) {
    show(node, collection.error_count > 0);
    for (const button of node.querySelectorAll("button")) {
      show(button, isMine);
      button.disabled = isBusy;
    }
    const key = `${collection.error_count} ${isBusy}`;
    if (collection.error_count === 0 || key === read) return;
    read = key;
    load(collection);
  }
  return {
    node,
    update(collection, mine, busy) {
      [isMine, isBusy] = [mine, busy];
      update(collection);
    },
  };
}
