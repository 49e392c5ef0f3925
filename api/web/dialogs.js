// Windows over the page: the browser's own <dialog> holds the focus, and Escape closes it.

import { call } from "./api.js";
import { fill, h } from "./dom.js";
import { bytes, counted } from "./format.js";
import { field, form } from "./forms.js";
import { notice } from "./notices.js";
import { store } from "./store.js";

const MOST_WARNINGS = 3;
let made = 0;

function open(title, build) {
  const id = `dialog-${++made}`;
  const node = h("dialog", { "aria-labelledby": id, onclose: () => node.remove() });
  const close = () => node.close();
  node.append(h("h2", { id, class: "named" }, title), ...build(close));
  document.body.append(node);
  node.showModal();
  return node;
}

/** None may stay over the sign-in form. */
export function closeDialogs() {
  for (const node of document.querySelectorAll("dialog[open]")) node.close();
}

const cancel = (close) => h("button", { type: "button", onclick: close }, "Cancel");

const folderHint = "A folder on the server, below one of its source roots.";

function shortened(warnings) {
  const left = warnings.length - MOST_WARNINGS;
  return left > 0 ? [...warnings.slice(0, MOST_WARNINGS), `and ${counted(left, "more warning")}`] : warnings;
}

/** Looks into the folder without reading it. */
function preview(input) {
  const out = h("div", { class: "hint", role: "status" });
  const button = h("button", { type: "button", class: "small", onclick: async () => {
    const path = input.value.trim();
    if (!path) return input.focus();
    out.textContent = "Looking…";
    try {
      const seen = await call("POST", "/api/v2/directory-scan/preview", { path });
      fill(out, `${counted(seen.total_files, "file")}, ${bytes(seen.total_size)}`, seen.warnings.length > 0 && h("ul", null, shortened(seen.warnings).map((line) => h("li", null, line))));
    } catch (error) {
      out.textContent = error.message;
    }
  } }, "Look inside");
  return h("div", { class: "preview" }, button, out);
}

export function createCollection(onDone) {
  const name = field("Name", "name", { required: true, maxlength: 255, autocomplete: "off", autofocus: true });
  const folder = field("Source folder", "source_path", { hint: folderHint + " Leave it empty to add one later.", autocomplete: "off", spellcheck: "false", class: "path" });
  const about = field("Description", "description", { tag: "textarea", rows: 2, maxlength: 5000 });
  folder.node.append(preview(folder.input));
  open("New collection", (close) => [form({
    fields: [name, folder, about], label: "Create", busy: "Creating…", also: [cancel(close)],
    work: async (values) => {
      const made = await call("POST", "/api/v2/collections", Object.fromEntries(Object.entries(values).filter(([, value]) => value)));
      store.takeCollection(made);
      if (made.initial_operation_id) store.loadOperation(made.initial_operation_id);
      close();
      onDone?.(made);
    },
  })]);
}

export function addSource(collection) {
  const folder = field("Source folder", "source_path", { required: true, hint: folderHint, autocomplete: "off", autofocus: true, spellcheck: "false", class: "path" });
  folder.node.append(preview(folder.input));
  open(`Add a source to “${collection.name}”`, (close) => [form({
    fields: [folder], label: "Add source", busy: "Adding…", also: [cancel(close)],
    work: async ({ source_path: path }) => {
      store.takeOperation(await call("POST", `/api/v2/collections/${collection.id}/sources`, { source_type: "directory", source_path: path, source_config: { path } }));
      store.loadCollection(collection.id);
      close();
    },
  })]);
}

export function renameCollection(collection) {
  const name = field("Name", "name", { required: true, maxlength: 255, autocomplete: "off", autofocus: true, value: collection.name });
  const about = field("Description", "description", { tag: "textarea", rows: 2, maxlength: 5000 });
  about.input.value = collection.description ?? "";
  open(`Rename “${collection.name}”`, (close) => [form({
    fields: [name, about], label: "Save", busy: "Saving…", also: [cancel(close)],
    work: async (values) => {
      store.takeCollection(await call("PUT", "/api/v2/collections/" + collection.id, values));
      close();
    },
  })]);
  name.input.select();
}

export function deleteCollection(collection, onDone) {
  open(`Delete “${collection.name}”?`, (close) => [
    h("p", null, `Its ${counted(collection.document_count, "document")} and ${counted(collection.vector_count, "vector")} are removed from Opstream. ` +
      "The files in its source folders stay as they are. This cannot be undone."),
    form({
      fields: [], label: "Delete collection", busy: "Deleting…", tone: "danger", also: [cancel(close)],
      work: async () => {
        await call("DELETE", "/api/v2/collections/" + collection.id);
        store.collections.delete(collection.id);
        store.changed();
        close();
        notice(`“${collection.name}” was deleted.`);
        onDone?.();
      },
    }),
  ]);
}

/** `what`: the operation in words. */
export function cancelOperation(operation, what) {
  const { processed } = operation.track;
  const keeps = ["index", "append", "sync", "retry_documents"].includes(operation.type) && processed;
  open(`Cancel “${what}”?`, (close) => [
    h("p", null, keeps ? `What is finished stays: ${counted(processed, "document")}.` : "What it has begun is left as if it had not been begun, or whole."),
    form({
      fields: [], label: "Cancel operation", busy: "Cancelling…", tone: "danger", also: [h("button", { type: "button", onclick: close }, "Let it run")],
      work: async () => {
        store.takeOperation(await call("DELETE", "/api/v2/operations/" + operation.id));
        if (operation.collection_id) store.loadCollection(operation.collection_id);
        close();
      },
    }),
  ]);
}
