// The page's one socket: events go to the store, its state to the line in the head.

import { OpstreamClient } from "/clients/opstream.js";
import { session } from "./session.js";
import { store } from "./store.js";

const HEAL_MS = 30000; // what no event tells (a new name, a collection of another user) is read so often while the page is seen
const QUIET_MS = 5000; // and what should have ended or been begun, while something runs

class Live extends EventTarget {
  state = "closed";
  since = Date.now();
  #watch = null;
  #lastId = null;
  #timer = 0;
  #healed = 0;

  start() {
    if (this.#watch) return;
    this.#connect();
    this.#timer = setInterval(() => this.#heal(), 1000);
    document.addEventListener("visibilitychange", this.#seen);
  }

  #connect() {
    const client = new OpstreamClient({ getToken: (what) => session.token(what) });
    const watch = client.watchOperations({
      lastId: this.#lastId,
      onEvent: (event) => this.#take(event),
      onConnection: (state) => watch === this.#watch && this.#become(state),
      onError: (error) => console.info("opstream:", error.message),
    });
    this.#watch = watch;
  }

  stop() {
    clearInterval(this.#timer);
    document.removeEventListener("visibilitychange", this.#seen);
    const watch = this.#watch;
    this.#watch = this.#lastId = null;
    watch?.close();
    this.#become("closed");
  }

  /** When the next try to connect is made, in ms of Date.now(); null when that is not known. */
  get retryAt() {
    return this.#watch?.retryAt?.getTime() ?? null;
  }

  #become(state) {
    const was = this.state;
    this.state = state;
    if (was !== state) this.since = Date.now();
    // Events that came before the socket stood are not sent: what they changed is read.
    if (state === "live" && was !== "live") this.#reload();
    this.dispatchEvent(new Event("state"));
  }

  #take(event) {
    this.#lastId = event.id ?? this.#lastId;
    const ended = store.apply(event);
    if (ended) this.dispatchEvent(new CustomEvent("ended", { detail: ended }));
  }

  #reload() {
    this.#healed = Date.now();
    store.reload();
  }

  /** A watch that the server refused for good is begun anew after a while: rights and limits change. */
  #heal() {
    if (this.state === "closed" && Date.now() - this.since >= HEAL_MS) {
      this.since = Date.now();
      this.#connect();
    }
    const isBusy = store.live().length > 0 || [...store.collections.values()].some((c) => c.status === "processing" || c.status === "pending");
    const isFailed = store.collectionsState instanceof Error || store.operationsState instanceof Error;
    const wait = isFailed || this.state !== "live" || isBusy ? QUIET_MS : HEAL_MS;
    if (!document.hidden && Date.now() - this.#healed >= wait) this.#reload();
  }

  #seen = () => {
    if (!document.hidden) this.#reload();
  };
}

export const live = new Live();
