// One operation: what it does while it runs, and what came of it.

import { get } from "./api.js";
import { chip, facts } from "./counters.js";
import { cancelOperation } from "./dialogs.js";
import { attribute, fill, h, show, text } from "./dom.js";
import { ago, bytes, count, counted, duration, exact, percent, rate, seconds, span, timeOfDay } from "./format.js";
import { store } from "./store.js";
import { kind, outcome, sentence, stage } from "./words.js";

export function titleOf(operation) {
  const name = operation.collection_id ? store.nameOf(operation.collection_id) : null;
  return name ? `${kind(operation.type)}: ${name}` : kind(operation.type);
}

export function stageOf(operation) {
  if (operation.status === "pending") {
    return operation.next_attempt_at ? `Tried again at ${timeOfDay(operation.next_attempt_at)}` : "Waiting for a worker";
  }
  const { track } = operation;
  if (!track.stage) return "Running";
  return track.stage === "scanning" && operation.found ? `Scanning files: ${count(operation.found)} so far` : stage(track.stage);
}

/** 0 to 100; null when nobody knows yet. */
export function percentOf(operation) {
  if (operation.status === "pending") return null;
  return operation.track.progress ?? (operation.progress > 0 ? operation.progress : null);
}

/** A bar for eyes and screen readers: {node, set(operation)}. */
export function bar() {
  const node = h("progress", { max: 100 });
  return {
    node,
    set(operation) {
      const done = percentOf(operation);
      attribute(node, "value", done);
      attribute(node, "aria-label", titleOf(operation));
      attribute(node, "aria-valuetext", done == null ? stageOf(operation) : `${percent(done)}, ${stageOf(operation)}`);
    },
  };
}

function sourceOf({ config }) {
  return config?.source_config?.path ?? config?.source_path ?? null;
}

/** The collection's name leads to it; it may be gone. */
function heading(operation) {
  const name = store.nameOf(operation.collection_id);
  const isThere = store.collections.has(operation.collection_id);
  return [kind(operation.type), name && " ", name && h("span", { class: "of" }, isThere ? h("a", { href: "/collections/" + operation.collection_id }, name) : name)];
}

function sameHeading() {
  let last = null;
  return (node, operation) => {
    const key = `${operation.type} ${store.nameOf(operation.collection_id)} ${store.collections.has(operation.collection_id)}`;
    if (key !== last) fill(node, ...heading(operation));
    last = key;
  };
}

/** Worth a word from the second one on. */
function attemptOf({ attempt, max_attempts: most }) {
  return attempt > 1 ? `${attempt}${most ? ` of ${most}` : ""}` : null;
}

/** A row of keyed(): a running operation. */
export function liveOperation(first) {
  let operation = first;
  const title = h("h3", { class: "named" });
  const sign = chip();
  const stop = h("button", { type: "button", class: "small", onclick: () => cancelOperation(operation, titleOf(operation)) }, "Cancel");
  const doing = h("span", { class: "stage" });
  const done = h("span", { class: "percent" });
  const progress = bar();
  const numbers = facts("Processed", "Failed", "Rate", "Time left", "Elapsed", "Attempt");
  const current = h("p", { class: "current" });
  const trouble = h("p", { class: "trouble" });
  const setHeading = sameHeading();
  const node = h("article", { class: "operation card" }, h("header", null, title, sign.node, stop),
    h("div", { class: "doing" }, doing, done), progress.node, numbers.node, current, trouble);
  return {
    node,
    update(next) {
      operation = next;
      const { track } = operation;
      setHeading(title, operation);
      sign.set(operation.status);
      show(stop, operation.type !== "delete");
      attribute(stop, "aria-label", `Cancel ${titleOf(operation)}`);
      text(doing, stageOf(operation));
      text(done, percent(percentOf(operation)));
      progress.set(operation);
      const [, failed] = numbers.set(track.processed == null ? "–" : track.total == null ? count(track.processed) : `${count(track.processed)} of ${count(track.total)}`,
        count(track.failed ?? 0), rate(track.rate), duration(track.etaSeconds ?? operation.eta), duration(elapsed(operation)), attemptOf(operation));
      failed.classList.toggle("bad", track.failed > 0);
      const file = operation.status === "processing" ? (track.currentFile ?? sourceOf(operation)) : sourceOf(operation);
      text(current, file ?? "");
      attribute(current, "title", file);
      text(trouble, operation.error_message ? `The attempt before failed: ${sentence(operation.error_message)}` : "");
      show(trouble, operation.error_message);
    },
  };
}

function elapsed(operation) {
  return operation.started_at ? seconds(operation.started_at, new Date().toISOString()) : null;
}

function plural(parts, n, one, many) {
  if (typeof n === "number" && n > 0) parts.push(counted(n, one, many));
}

/** "118 documents, 2 failed, 410 chunks in 12 s" */
export function outcomeOf(operation) {
  const { track } = operation;
  const took = span(seconds(operation.started_at, operation.completed_at));
  if (operation.status === "failed") return sentence(operation.error_message ?? track.error ?? "It failed");
  const result = track.result ?? {};
  const counts = track.hasEnded ? track : {}; // else the last event was not seen: what came before it may be far behind
  const parts = [];
  plural(parts, result.documents_processed ?? (result.documents_removed == null ? counts.processed : null), "document");
  plural(parts, result.documents_removed, "document removed", "documents removed");
  plural(parts, result.documents_failed ?? counts.failed, "failed", "failed");
  plural(parts, result.chunks_created, "chunk");
  const what = parts.join(", ");
  const main = operation.status === "cancelled" ? (what ? `Stopped after ${what}` : "Stopped") : what || "Done";
  return [took ? `${main} in ${took}.` : `${main}.`, result.left_out_because, result.note].filter(Boolean).join(" ");
}

function attemptRow(attempt) {
  const took = attempt.ended_at ? span(seconds(attempt.started_at, attempt.ended_at)) : "";
  return h("li", null, h("strong", null, `Attempt ${attempt.attempt}: ${outcome(attempt.outcome)}`), took && ` after ${took}`, ` (${exact(attempt.started_at)})`,
    attempt.reason && h("p", { class: "reason" }, sentence(attempt.reason)));
}

function figures({ totals }) {
  const it = facts("Documents", "Failed", "Chunks", "Tokens", "Processor", "Memory", "Waited");
  it.set(totals.documents_processed && count(totals.documents_processed), totals.documents_failed && count(totals.documents_failed), totals.chunks && count(totals.chunks),
    totals.tokens && count(totals.tokens), totals.cpu_seconds == null ? null : span(totals.cpu_seconds),
    totals.memory_peak_bytes && bytes(totals.memory_peak_bytes), totals.queue_wait_seconds == null ? null : span(totals.queue_wait_seconds));
  return it.node;
}

/** Opened: attempts and figures, read then. */
function details(id) {
  const body = h("div", { class: "inside" });
  return h("details", { ontoggle: async (event) => {
    if (!event.target.open) return;
    if (!body.childElementCount) text(body, "Loading…");
    try {
      const [operation, metrics] = await Promise.all([get("/api/v2/operations/" + id), get(`/api/v2/operations/${id}/metrics`)]);
      fill(body, figures(metrics), operation.attempts.length > 0 && h("ol", { class: "attempts" }, operation.attempts.map(attemptRow)),
        h("p", { class: "hint" }, "Operation ", h("code", null, id)));
    } catch (error) {
      text(body, error.message);
    }
  } }, h("summary", null, "Details"), body);
}

/** A row of keyed(): an operation that is over. */
export function endedOperation(first) {
  const title = h("h3", { class: "named" });
  const sign = chip();
  const when = h("time", null);
  const what = h("p", { class: "outcome" });
  const setHeading = sameHeading();
  const node = h("article", { class: "operation ended" }, h("header", null, title, sign.node, when), what, details(first.id));
  return {
    node,
    update(operation) {
      setHeading(title, operation);
      sign.set(operation.status);
      text(when, ago(operation.completed_at ?? operation.created_at));
      attribute(when, "datetime", operation.completed_at);
      attribute(when, "title", exact(operation.completed_at));
      text(what, outcomeOf(operation));
      what.classList.toggle("bad", operation.status === "failed");
    },
  };
}
