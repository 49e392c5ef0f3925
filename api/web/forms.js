// Labelled fields, and forms that say what is wrong beside the field that it is about.

import { h, show, text } from "./dom.js";

let made = 0;

/** {node, input, name, problem(sentence)}. `props` are the input's. */
export function field(label, name, { hint, tag = "input", ...props } = {}) {
  const id = `field-${++made}`;
  const about = h("p", { class: "hint", id: id + "-hint" }, hint ?? "");
  const wrong = h("p", { class: "wrong", id: id + "-wrong" });
  const input = h(tag, { id, name, "aria-describedby": `${id}-hint ${id}-wrong`, ...props });
  show(about, hint);
  show(wrong, false);
  const problem = (sentence) => {
    text(wrong, sentence);
    show(wrong, sentence);
    if (sentence) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  input.addEventListener("input", () => problem(null));
  return { node: h("div", { class: "field" }, h("label", { for: id }, label), input, about, wrong), input, name, problem };
}

function spread(error, fields, wrong) {
  let first = null;
  for (const f of fields) {
    const sentence = error.fields?.[f.name];
    f.problem(sentence ?? null);
    if (sentence) first ??= f;
  }
  text(wrong, first ? "" : error.message);
  show(wrong, !first);
  first?.input.focus();
}

/**
 * A form that calls work(values) and is locked until that is over. A failure is shown; what was typed stays.
 * `label`: of the button; `also`: nodes beside it.
 */
export function form({ fields, label, busy = "Please wait…", tone = "primary", also = [], work }) {
  const wrong = h("p", { class: "wrong whole", role: "alert" });
  const button = h("button", { type: "submit", class: tone }, label);
  show(wrong, false);
  let isBusy = false;
  const node = h("form", { novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    if (isBusy || !allThere(fields)) return;
    isBusy = true;
    button.setAttribute("aria-disabled", "true");
    text(button, busy);
    show(wrong, false);
    try {
      await work(Object.fromEntries(fields.map((f) => [f.name, f.input.type === "password" ? f.input.value : f.input.value.trim()])));
    } catch (error) {
      spread(error, fields, wrong);
    } finally {
      isBusy = false;
      button.removeAttribute("aria-disabled");
      text(button, label);
    }
  } }, fields.map((f) => f.node), wrong, h("div", { class: "buttons" }, also, button));
  return node;
}

function allThere(fields) {
  let first = null;
  for (const f of fields) {
    const isMissing = f.input.required && !f.input.value.trim();
    f.problem(isMissing ? "This is needed." : null);
    if (isMissing) first ??= f;
  }
  first?.input.focus();
  return !first;
}
