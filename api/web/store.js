// What the page knows of collections and operations: read once by requests, kept up to date by events.

import { initialProgress, progressAfter } from "/clients/progress.js";
import { get } from "./api.js";
import { session } from "./session.js";

const TELL_MS = 30; // many events in a row are shown at once
const PAGES = 10;
const LAST = { operation_completed: "completed", operation_failed: "failed", operation_cancelled: "cancelled" };

export const hasEnded = (operation) => ["completed", "failed", "cancelled"].includes(operation.status);

/** One run at a time; who asks meanwhile gets the run after it, which has not begun yet. */
function oneAtATime(work) {
  let running = null;
  let next = null;
  return function ask() {
    if (!running) {
      running = work().finally(() => (running = null));
      return running;
    }
    next ??= running.catch(() => {}).then(() => {
      next = null;
      return ask();
    });
    return next;
  };
}

class Store extends EventTarget {
  collections = new Map();
  operations = new Map();
  names = new Map(); // of collections, also of those that are gone
  /** null, an Error, or true once they are there. */
  collectionsState = null;
  operationsState = null;
  #timer = 0;
  #life = 0; // whoever signs out leaves nothing behind, not even answers that are on their way

  loadCollections = oneAtATime(() => this.#load("collectionsState", (life) => this.#readCollections(life)));
  loadOperations = oneAtATime(() => this.#load("operationsState", (life) => this.#readOperations(life)));

  /** Everything anew: after the page began, or events were missed. */
  reload() {
    return Promise.all([this.loadCollections(), this.loadOperations()]);
  }

  forget() {
    this.#life++;
    for (const map of [this.collections, this.operations, this.names]) map.clear();
    this.collectionsState = this.operationsState = null;
    this.changed();
  }

  changed() {
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.dispatchEvent(new Event("change"));
    }, TELL_MS);
  }

  async #load(state, read) {
    const life = this.#life;
    if (!session.isSignedIn) return;
    try {
      await read(life);
      if (life === this.#life) this[state] = true;
    } catch (error) {
      if (life === this.#life && this[state] !== true) this[state] = error; // what is shown stays; it is read again
    }
    this.changed();
  }

  async #readCollections(life) {
    const all = [];
    for (let page = 1; page <= PAGES; page++) {
      const answer = await get(`/api/v2/collections?per_page=100&page=${page}`);
      all.push(...answer.collections);
      if (page * 100 >= answer.total) break;
    }
    if (life !== this.#life) return;
    this.collections = new Map(all.map((collection) => [collection.id, collection]));
    for (const { id, name } of all) this.names.set(id, name);
  }

  async #readOperations(life) {
    const [live, recent] = await Promise.all([
      get("/api/v2/operations?status=pending,processing&per_page=100"),
      get("/api/v2/operations?per_page=50"),
    ]);
    if (life !== this.#life) return;
    const listed = new Set(live.operations.map((operation) => operation.id));
    for (const operation of [...recent.operations, ...live.operations]) this.#takeOperation(operation);
    const lost = [...this.operations.values()].filter((known) => !hasEnded(known) && !listed.has(known.id));
    await Promise.all(lost.map(({ id }) => this.loadOperation(id)));
  }

  async loadOperation(id) {
    const life = this.#life;
    try {
      const operation = await get("/api/v2/operations/" + id);
      if (life === this.#life) this.#takeOperation(operation);
    } catch (error) {
      if (error.status === 404) this.operations.delete(id);
      else return;
    }
    this.changed();
  }

  async loadCollection(id) {
    const life = this.#life;
    try {
      const collection = await get("/api/v2/collections/" + id);
      if (life === this.#life) this.takeCollection(collection);
    } catch (error) {
      if (life === this.#life && [403, 404].includes(error.status)) this.collections.delete(id);
    }
    this.changed();
  }

  takeCollection(collection) {
    this.collections.set(collection.id, collection);
    this.names.set(collection.id, collection.name);
    this.changed();
  }

  /** An operation that was just accepted. */
  takeOperation(operation) {
    this.#takeOperation(operation);
    this.changed();
  }

  /** An answer may be older than the events that came while it was on its way: an end stays an end. */
  #takeOperation(operation) {
    const known = this.operations.get(operation.id);
    if (known && hasEnded(known) && !hasEnded(operation)) return;
    this.operations.set(operation.id, { ...known, ...operation, track: known?.track ?? initialProgress() });
  }

  /** What came over the socket. Returns the operation if this event ended it. */
  apply(event) {
    if (event.type === "history_truncated") this.reload();
    const id = event.operation_id ?? event.data?.operation_id;
    if (!id) return null;
    const known = this.operations.get(id);
    if (known?.track.hasEnded) return null;
    const operation = known ?? this.#strange(id, event);
    operation.track = progressAfter(operation.track, event);
    operation.attempt = event.data?.attempt ?? operation.attempt;
    operation.found = event.data?.files_found ?? operation.found; // while files are looked for
    if (!hasEnded(operation)) operation.status = LAST[event.type] ?? event.status ?? operation.status; // else a request was quicker than the events
    operation.started_at ??= event.type === "operation_started" ? event.timestamp : null;
    this.#count(event);
    this.changed();
    return LAST[event.type] ? this.#ended(operation, event) : null;
  }

  /** One that another page or program began. */
  #strange(id, event) {
    const collection = event.collection_id ?? event.data?.collection_id ?? null;
    const operation = { id, type: event.data?.type ?? event.data?.operation_type ?? "operation", status: event.status ?? "processing", collection_id: collection,
      config: {}, created_at: event.timestamp, started_at: null, completed_at: null, error_message: null, track: initialProgress() };
    this.operations.set(id, operation);
    this.loadOperation(id);
    if (!this.collections.has(collection) || operation.type === "delete") this.loadCollections();
    else this.loadCollection(collection);
    return operation;
  }

  /** The counters of a collection, as the event says. */
  #count(event) {
    const collection = this.collections.get(event.collection_id ?? event.data?.collection_id);
    const stats = event.data?.stats;
    if (!collection || !stats) return;
    for (const field of ["document_count", "vector_count", "total_size_bytes"]) {
      if (typeof stats[field] === "number") collection[field] = stats[field];
    }
  }

  #ended(operation, event) {
    operation.completed_at = event.timestamp;
    operation.error_message = event.data?.error_message ?? operation.error_message;
    operation.progress = event.progress ?? operation.progress;
    this.loadOperation(operation.id);
    if (operation.type === "delete" || !this.collections.has(operation.collection_id)) this.loadCollections();
    else this.loadCollection(operation.collection_id);
    return operation;
  }

  /** Newest first. */
  #sorted(isWanted) {
    return [...this.operations.values()].filter(isWanted).sort((a, b) => (a.created_at < b.created_at ? 1 : a.created_at > b.created_at ? -1 : 0));
  }

  live(collectionId) {
    return this.#sorted((o) => !hasEnded(o) && (!collectionId || o.collection_id === collectionId));
  }

  ended(collectionId) {
    return this.#sorted((o) => hasEnded(o) && (!collectionId || o.collection_id === collectionId));
  }

  /** By name. */
  sortedCollections() {
    return [...this.collections.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  }

  nameOf(collectionId) {
    return this.names.get(collectionId) ?? null;
  }
}

export const store = new Store();
