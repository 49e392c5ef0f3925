// The page: which screen stands at which address, and who may see it.

import { announce } from "./announce.js";
import { collectionScreen } from "./collection.js";
import { collectionsScreen } from "./collections.js";
import { closeDialogs } from "./dialogs.js";
import { h, show } from "./dom.js";
import { live } from "./live.js";
import { clearNotices, noticeNodes } from "./notices.js";
import { operationsScreen } from "./operations.js";
import { searchScreen } from "./search.js";
import { session } from "./session.js";
import { shell } from "./shell.js";
import { signIn } from "./signin.js";
import { store } from "./store.js";

const frame = shell();
const gate = h("div", null); // the form to sign in
const place = h("div", null); // the screen; it stays, out of sight, when a session ends
frame.main.append(gate, place);
document.getElementById("app").replaceChildren(...frame.node, ...noticeNodes);

let screen = null;
let owner = null; // whose screen it is
let mounted = null; // its address

function missing() {
  return { title: "Not found", node: h("div", { class: "state" }, h("h1", { tabindex: -1 }, "There is no such screen"), h("a", { class: "button", href: "/collections" }, "Go to collections")), update() {} };
}

function screenAt(path, query) {
  const collection = /^\/collections\/([^/]+)\/?$/.exec(path);
  if (collection) return collectionScreen({ id: decodeURIComponent(collection[1]), go });
  if (/^\/(collections\/?)?$/.test(path) || path === "/login") return collectionsScreen();
  if (/^\/operations\/?$/.test(path)) return operationsScreen();
  if (/^\/search\/?$/.test(path)) return searchScreen({ query, replace });
  return missing();
}

const address = () => location.pathname + location.search;

function replace(path) {
  history.replaceState(null, "", path);
  mounted = address();
}

function go(path) {
  if (path !== address()) history.pushState(null, "", path);
  mount();
  window.scrollTo(0, 0);
  place.querySelector("h1")?.focus({ preventScroll: true });
}

function mount() {
  if (["/", "/login"].includes(location.pathname)) replace("/collections");
  screen?.leave?.();
  closeDialogs();
  screen = screenAt(location.pathname, new URLSearchParams(location.search));
  mounted = address();
  place.replaceChildren(screen.node);
  update();
}

function update() {
  const isIn = session.isSignedIn;
  if (isIn && screen) {
    screen.update();
    document.title = `${screen.title} – Opstream`;
  } else document.title = "Sign in – Opstream";
  frame.update(location.pathname, isIn);
}

function enter() {
  gate.replaceChildren();
  show(place, true);
  if (owner !== session.user.id || !screen) {
    live.stop(); // it may be another user's
    store.forget();
    owner = session.user.id;
    mount();
  }
  live.start();
  store.reload();
}

function leave() {
  live.stop();
  closeDialogs();
  clearNotices();
  show(place, false);
  if (!session.hasEnded) {
    // Signed out on purpose: nothing is left for whoever comes next.
    screen?.leave?.();
    screen = owner = null;
    place.replaceChildren();
    store.forget();
  }
  if (gate.firstChild) return;
  gate.append(signIn(session.hasEnded ? "Your session has ended. Sign in to go on where you were." : null));
  gate.querySelector("input").focus();
}

function sessionChanged() {
  if (session.isSignedIn) enter();
  else leave();
  update();
}

function isPlain(event) {
  return event.button === 0 && !event.defaultPrevented && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/']");
  if (!link || !isPlain(event) || link.target) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
// A jump within the screen (#main) is one, too.
window.addEventListener("popstate", () => session.isSignedIn && address() !== mounted && mount());
session.addEventListener("change", sessionChanged);
store.addEventListener("change", update);
live.addEventListener("state", update);
setInterval(update, 1000); // times and rates go on between events
announce();
sessionChanged();
