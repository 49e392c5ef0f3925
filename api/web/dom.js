// Elements without markup: whatever comes from the server gets in as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props`: on… are listeners, class, attributes; true sets an attribute without a value, null and false leave it out. */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else attribute(node, name, value);
  }
  node.append(...children.flat(2).filter((child) => child != null && child !== false));
  return node;
}

/** Sets an attribute, or takes it away; touches the document only when that changes something. */
export function attribute(node, name, value) {
  if (value == null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== (value === true ? "" : String(value))) node.setAttribute(name, value === true ? "" : value);
}

/** Sets the text, only where it differs: selections and screen readers are left alone. */
export function text(node, value) {
  const wanted = value == null ? "" : String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function show(node, isShown) {
  node.hidden = !isShown;
}

/** Replaces what is in the node. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(2).filter((child) => child != null && child !== false));
}

/**
 * Keeps one child for each item, in the items' order. What stays is updated in place, so that focus, open details and selections stay.
 * make(item) gives {node, update(item)}.
 */
export function keyed(parent, items, keyOf, make) {
  const old = parent.rows ?? new Map();
  const rows = new Map();
  let before = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const row = old.get(key) ?? make(item);
    old.delete(key);
    rows.set(key, row);
    row.update(item);
    if (row.node === before) before = before.nextElementSibling;
    else parent.insertBefore(row.node, before);
  }
  for (const row of old.values()) row.node.remove();
  parent.rows = rows;
}

const paths = {
  collections: "M3 7l7-4 7 4-7 4-7-4zM3 11l7 4 7-4M3 15l7 4 7-4",
  operations: "M3 11h3l3-7 3 13 3-6h2",
  search: "M9 15A6 6 0 1 0 9 3a6 6 0 0 0 0 12zM13.5 13.5L18 18",
  plus: "M10 4v12M4 10h12",
  folder: "M2.5 5.5h5l2 2h8v8.5h-15z",
};

/** A drawing beside words; nothing for screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 20 20", class: "icon", "aria-hidden": "true" })) svg.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", paths[name]);
  svg.append(path);
  return svg;
}
