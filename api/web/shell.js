// What stands around every screen: navigation, the connection's state, the account.

import { attribute, h, icon, show, text } from "./dom.js";
import { live } from "./live.js";
import { session } from "./session.js";
import { store } from "./store.js";

const LATE_MS = 1500; // shorter interruptions are not worth a word

const places = [
  ["/collections", "Collections", "collections"],
  ["/operations", "Operations", "operations"],
  ["/search", "Search", "search"],
];

function connectionWords() {
  if (live.state === "live") return ["live", "Live"];
  if (live.state === "polling") return ["polling", "Polling"];
  if (live.state === "closed") return ["waiting", "Not connected"];
  if (Date.now() - live.since < LATE_MS && live.state === "connecting") return ["connecting", "Connecting…"];
  const wait = live.retryAt ? Math.ceil((live.retryAt - Date.now()) / 1000) : 0;
  return ["waiting", wait > 0 ? `Reconnecting in ${wait} s` : "Reconnecting…"];
}

/** {node, main, update(path, isSignedIn)} */
export function shell() {
  const number = h("span", { class: "number" });
  const links = places.map(([path, label, drawing]) => h("a", { href: path }, icon(drawing), label, path === "/operations" && [" ", number]));
  const words = h("span", null);
  const connection = h("p", { class: "connection", role: "status", title: "Whether changes arrive by themselves" }, h("i", { "aria-hidden": "true" }), words);
  const name = h("span", { class: "named" });
  const account = h("div", { class: "account" }, name, h("button", { type: "button", class: "small", onclick: () => session.signOut() }, "Sign out"));
  const header = h("header", { class: "top" }, h("div", { class: "inner" }, h("a", { class: "brand", href: "/collections" }, h("img", { src: "/web/icon.svg", alt: "", width: 26, height: 26 }), "Opstream"),
    h("nav", { "aria-label": "Screens" }, links), connection, account));
  const main = h("main", { id: "main" });
  return {
    node: [header, main],
    main,
    update(path, isSignedIn) {
      show(header, isSignedIn);
      links.forEach((link) => attribute(link, "aria-current", path.startsWith(link.getAttribute("href")) ? "page" : null));
      const running = store.live().length;
      text(number, running || "");
      attribute(number, "aria-label", running ? `${running} in progress` : null);
      show(number, running);
      const [state, sentence] = connectionWords();
      attribute(connection, "data-state", state);
      text(words, sentence);
      text(name, session.user?.username ?? "");
    },
  };
}
