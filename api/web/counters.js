// A collection's numbers, and the sign of its state.

import { attribute, h, text } from "./dom.js";
import { bytes, count } from "./format.js";
import { state, tone } from "./words.js";

/** Facts under their labels: {node, set(values)}, the values in the labels' order; null hides one. */
export function facts(...labels) {
  const values = labels.map(() => h("dd", null));
  const pairs = labels.map((label, i) => h("div", null, h("dt", null, label), values[i]));
  return {
    node: h("dl", { class: "facts" }, pairs),
    set(...wanted) {
      wanted.forEach((value, i) => {
        pairs[i].hidden = value == null;
        text(values[i], value);
      });
      return values;
    },
  };
}

/** {node, set(collection)} */
export function counters() {
  const it = facts("Documents", "Vectors", "Size", "Failed");
  return {
    node: it.node,
    set(collection) {
      const [, , , failed] = it.set(count(collection.document_count), count(collection.vector_count), bytes(collection.total_size_bytes), count(collection.error_count));
      failed.classList.toggle("bad", collection.error_count > 0);
    },
  };
}

/** {node, set(status)} */
export function chip() {
  const node = h("span", { class: "chip" });
  return {
    node,
    set(status) {
      text(node, state(status));
      attribute(node, "data-tone", tone(status));
    },
  };
}
