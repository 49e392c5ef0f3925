// The form to sign in, or to make an account.

import { fill, h } from "./dom.js";
import { field, form } from "./forms.js";
import { session } from "./session.js";

function signInForm() {
  return form({
    fields: [
      field("Username or e-mail address", "username", { required: true, autocomplete: "username", autocapitalize: "none", spellcheck: "false" }),
      field("Password", "password", { type: "password", required: true, autocomplete: "current-password" }),
    ],
    label: "Sign in", busy: "Signing in…",
    work: ({ username, password }) => session.signIn(username, password),
  });
}

function registerForm() {
  return form({
    fields: [
      field("Username", "username", { required: true, autocomplete: "username", autocapitalize: "none", spellcheck: "false", hint: "Letters, digits and _, three at least." }),
      field("E-mail address", "email", { type: "email", required: true, autocomplete: "email" }),
      field("Password", "password", { type: "password", required: true, autocomplete: "new-password", hint: "Eight characters at least." }),
    ],
    label: "Create account", busy: "Creating the account…",
    work: (account) => session.register(account),
  });
}

/** `reason`: why it stands here, or null. */
export function signIn(reason) {
  const body = h("div", { class: "card sign" });
  let isNew = false;
  function draw() {
    const other = h("button", { type: "button", class: "bare", onclick: () => {
      isNew = !isNew;
      draw();
    } }, isNew ? "Sign in instead" : "Create an account");
    fill(body, h("h1", null, isNew ? "Create an account" : "Sign in"), reason && h("p", { class: "reason", role: "status" }, reason), isNew ? registerForm() : signInForm(),
      h("p", { class: "instead" }, isNew ? "You have an account? " : "New here? ", other));
    body.querySelector("input").focus(); // in vain before it is in the page: then the caller does it
  }
  draw();
  return h("div", { class: "welcome" }, h("p", { class: "claim" }, h("img", { src: "/web/icon.svg", alt: "", width: 44, height: 44 }), h("strong", null, "Opstream"),
    h("span", null, "Collections of documents, searched by meaning.")), body);
}
