// What kinds, states and stages are called.

const kinds = {
  index: "Index",
  append: "Add source",
  reindex: "Re-index",
  remove_source: "Remove source",
  delete: "Delete collection",
  retry_documents: "Retry failed documents",
  sync: "Sync",
  projection_build: "Projection",
  benchmark: "Benchmark",
  migrate_vectors: "Move vectors",
  noop: "Test",
};

// By the names of /clients/progress.js.
const stages = {
  starting: "Starting",
  scanning: "Scanning files",
  processing: "Reading and embedding",
  checking: "Checking",
  reprocessing: "Building new vectors",
  validating: "Validating the new vectors",
  removing: "Removing documents",
  finishing: "Finishing",
};

const states = { pending: "Waiting", processing: "Running", completed: "Completed", failed: "Failed", cancelled: "Cancelled", ready: "Ready", error: "Error" };

const tones = { pending: "quiet", processing: "busy", completed: "good", ready: "good", failed: "bad", error: "bad", cancelled: "quiet" };

const outcomes = {
  running: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  handed_back: "Handed back",
  crash: "Crashed",
  silent: "Fell silent",
  hard_limit: "Ran too long",
  soft_limit: "Saved at its time limit",
  lease_lapsed: "Lost its worker",
  drained: "Its worker was stopped",
};

function plain(word) {
  const spaced = String(word).replaceAll("_", " ");
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

/** A reason as the server gives it, as a sentence. */
export function sentence(reason) {
  const trimmed = String(reason).trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}

export const kind = (type) => kinds[type] ?? plain(type);
export const outcome = (word) => outcomes[word] ?? plain(word ?? "running");
export const state = (status) => states[status] ?? plain(status);
export const tone = (status) => tones[status] ?? "quiet";

/** What a stage is called; stages that the page does not know still read as words. */
export const stage = (name) => stages[name] ?? plain(name);
