// The screen that asks collections.

import { call } from "./api.js";
import { attribute, fill, h, icon, keyed, show, text } from "./dom.js";
import { count, counted, milliseconds } from "./format.js";
import { marked } from "./marks.js";
import { empty, failure, loading } from "./states.js";
import { store } from "./store.js";

const MOST_COLLECTIONS = 10; // the API's bound
const LONG = 420; // characters that are shown of a passage at first

function passage(result, query) {
  const body = h("p", { class: "passage", dir: "auto" }, marked(result.text, query));
  if (result.text.length <= LONG) return [body];
  body.classList.add("short");
  const more = h("button", { type: "button", class: "bare", "aria-expanded": "false", onclick: () => {
    const isShort = body.classList.toggle("short");
    more.setAttribute("aria-expanded", String(!isShort));
    more.textContent = isShort ? "Show all" : "Show less";
  } }, "Show all");
  return [body, more];
}

function resultItem(result, query) {
  const where = [result.collection_name];
  if (result.chunk_index != null && result.total_chunks) where.push(`passage ${count(result.chunk_index + 1)} of ${count(result.total_chunks)}`);
  const meter = h("meter", { min: 0, max: 1, "aria-hidden": "true" });
  meter.value = Math.max(0, result.score);
  return h("li", { class: "card result" }, h("header", null, h("h3", { class: "named", title: result.file_path, dir: "auto" }, result.file_name),
    h("span", { class: "score", title: "Cosine similarity: 1 is the same" }, meter, h("span", { "aria-label": "score " + result.score.toFixed(2) }, result.score.toFixed(2)))),
  h("p", { class: "hint named" }, where.join(" · ")), passage(result, query));
}

function summary(answer) {
  const parts = [`${answer.total_results ? counted(answer.total_results, "result") : "No results"} in ${milliseconds(answer.total_time_ms)}`];
  const within = [answer.embedding_time_ms != null && `understanding the question ${milliseconds(answer.embedding_time_ms)}`, `search ${milliseconds(answer.search_time_ms)}`].filter(Boolean);
  return `${parts[0]} (${within.join(", ")})`;
}

function warnings(answer) {
  const failed = (answer.failed_collections ?? []).map((it) => `${it.collection_name} could not be searched: ${it.error_message}`);
  const all = [...answer.warnings, ...failed];
  return all.length > 0 && h("ul", { class: "warnings", "aria-label": "Warnings" }, all.map((sentence) => h("li", null, sentence)));
}

function choice(chosen, onChange) {
  const input = h("input", { type: "checkbox" });
  const name = h("span", { class: "named" });
  const node = h("label", { class: "choice" }, input, name);
  let id;
  input.addEventListener("change", () => {
    if (input.checked) chosen.add(id);
    else chosen.delete(id);
    onChange();
  });
  return {
    node,
    update(collection) {
      id = collection.id;
      text(name, collection.name);
      node.title = collection.name;
      input.checked = chosen.has(id);
      input.disabled = !input.checked && chosen.size >= MOST_COLLECTIONS;
    },
  };
}

export function searchScreen({ query: parameters, replace }) {
  const asked = parameters.get("in")?.split(",").filter(Boolean) ?? [];
  const chosen = new Set(asked.slice(0, MOST_COLLECTIONS));
  let hasChosen = chosen.size > 0;
  let running = null;

  const input = h("input", { type: "search", name: "q", id: "query", placeholder: "What do you want to know?", maxlength: 1000, autocomplete: "off", value: parameters.get("q"), enterkeyhint: "search" });
  const choices = h("div", { class: "choices" });
  const within = h("fieldset", null, h("legend", null, "In"), choices);
  const out = h("div", { class: "results", "aria-live": "polite" });
  const ask = h("form", { role: "search", class: "ask", onsubmit: (event) => {
    event.preventDefault();
    run();
  } }, h("div", { class: "query" }, h("label", { for: "query", class: "unseen" }, "Question or words"), icon("search"), input, h("button", { type: "submit", class: "primary" }, "Search")), within);
  const state = h("div", null);
  const node = h("div", null, h("div", { class: "head" }, h("h1", { tabindex: -1 }, "Search")), ask, state, out);

  function address(query) {
    const next = new URLSearchParams();
    if (query) next.set("q", query);
    if (hasChosen) next.set("in", [...chosen].join(","));
    const tail = next.toString();
    replace("/search" + (tail ? "?" + tail : ""));
  }

  async function run() {
    const query = input.value.trim();
    address(query);
    if (!query) return input.focus();
    if (chosen.size === 0) return fill(out, h("p", { class: "quiet" }, "Choose a collection to search in."));
    running?.abort();
    const mine = (running = new AbortController());
    const slow = setTimeout(() => fill(out, loading("Searching…")), 150);
    try {
      const answer = await call("POST", "/api/v2/search", { query, collection_uuids: [...chosen], k: 10, use_reranker: false }, mine.signal);
      if (mine !== running) return;
      clearTimeout(slow);
      fill(out, h("p", { class: "summary" }, summary(answer)), warnings(answer), answer.results.length > 0
        ? h("ol", { class: "stack" }, answer.results.map((result) => resultItem(result, query)))
        : h("p", { class: "quiet" }, "Nothing fits. Try other words, or search in more collections."));
    } catch (error) {
      clearTimeout(slow);
      if (mine === running && error.name !== "AbortError") fill(out, failure(error, run));
    }
  }

  function searchable() {
    return store.sortedCollections().filter((collection) => collection.vector_count > 0);
  }

  let isFirst = Boolean(parameters.get("q"));
  let shown;
  return {
    title: "Search",
    node,
    update() {
      const all = searchable();
      if (!hasChosen) {
        chosen.clear();
        for (const { id } of all.slice(0, MOST_COLLECTIONS)) chosen.add(id);
      }
      keyed(choices, all, (collection) => collection.id, () => choice(chosen, () => {
        hasChosen = true;
        address(input.value.trim());
        this.update();
      }));
      show(ask, all.length > 0);
      attribute(within, "hidden", all.length < 2);
      const known = store.collectionsState;
      const key = all.length > 0 ? "there" : known instanceof Error ? known.message : String(known);
      if (key !== shown) fill(state, ...instead(all, known));
      shown = key;
      if (isFirst && all.length > 0) {
        isFirst = false;
        run();
      }
    },
    leave: () => running?.abort(),
  };
}

function instead(all, known) {
  if (all.length > 0) return [];
  if (known == null) return [loading("Loading collections…")];
  if (known instanceof Error) return [failure(known, () => store.reload())];
  return [empty("search", "Nothing to search yet", "Searches look into collections that have documents. Create one and point it at a folder.",
    h("a", { class: "button primary", href: "/collections" }, "Go to collections"))];
}
