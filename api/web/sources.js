// The folders that a collection is read from.

import { get } from "./api.js";
import { h, keyed, show, text } from "./dom.js";
import { ago, bytes, counted } from "./format.js";
import { sentence } from "./words.js";

function row() {
  const path = h("strong", { class: "path named" });
  const facts = h("p", { class: "hint" });
  const problem = h("p", { class: "reason bad" });
  return {
    node: h("li", null, h("div", null, path, facts, problem)),
    update(source) {
      text(path, source.source_path);
      path.title = source.source_path;
      const parts = [counted(source.document_count, "document"), bytes(source.size_bytes)];
      if (source.last_run_status === "running") parts.push("being read");
      else if (source.last_run_completed_at) parts.push(`read ${ago(source.last_run_completed_at)}`);
      text(facts, parts.join(" · "));
      text(problem, source.last_error ? sentence(source.last_error) : "");
      show(problem, source.last_error);
    },
  };
}

/** {node, load()} */
export function sourceList(collectionId) {
  const list = h("ul", { class: "rows card" });
  const none = h("p", { class: "quiet" }, "No source yet. Add a folder, and its documents can be searched.");
  const problem = h("p", { class: "wrong", role: "alert" });
  show(none, false);
  show(list, false);
  return {
    node: h("section", null, h("h2", null, "Sources"), problem, list, none),
    async load() {
      try {
        const { items } = await get(`/api/v2/collections/${collectionId}/sources?limit=100`);
        keyed(list, items, (source) => source.id, row);
        show(list, items.length > 0);
        show(none, items.length === 0);
        text(problem, "");
      } catch (error) {
        text(problem, error.message);
      }
    },
  };
}
