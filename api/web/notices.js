// Short notes at the page's edge, and what screen readers are told.

import { h } from "./dom.js";

const GOOD_MS = 6000;
const MOST = 4;

const spoken = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
const shown = h("div", { class: "notices", role: "region", "aria-label": "Notices" });

/** To be put into the page once. */
export const noticeNodes = [spoken, shown];

/** Said by a screen reader, shown nowhere. */
export function say(sentence) {
  spoken.textContent = sentence;
}

/** A failure stays until it is dismissed. */
export function notice(sentence, { isBad = false } = {}) {
  const close = () => node.remove();
  const node = h("div", { class: isBad ? "notice bad" : "notice", role: isBad ? "alert" : null }, h("p", null, sentence),
    h("button", { type: "button", class: "bare", "aria-label": "Dismiss this notice", onclick: close }, "×"));
  shown.append(node);
  while (shown.childElementCount > MOST) shown.firstElementChild.remove();
  if (!isBad) {
    say(sentence);
    setTimeout(close, GOOD_MS);
  }
}

export function clearNotices() {
  say("");
  shown.replaceChildren();
}
