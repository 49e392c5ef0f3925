// What stands where nothing can be shown: loading, a failure, or nothing there.

import { h, icon } from "./dom.js";

export function loading(sentence) {
  return h("div", { class: "state", role: "status" }, h("span", { class: "spinner", "aria-hidden": "true" }), h("p", null, sentence));
}

export function failure(error, again) {
  return h("div", { class: "state bad", role: "alert" }, h("p", null, error.message), again && h("button", { type: "button", onclick: again }, "Try again"));
}

export function empty(drawing, title, sentence, ...actions) {
  return h("div", { class: "state" }, h("span", { class: "drawing" }, icon(drawing)), h("h2", null, title), h("p", null, sentence),
    actions.length > 0 && h("div", { class: "buttons" }, actions));
}
