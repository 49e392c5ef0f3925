/* Watches operations of an Opstream server from a browser or from Node.js: a WebSocket that comes back by itself and resumes where it was, long
 * polls where WebSockets do not get through. One ES module without dependencies and without a build step; types: opstream.d.ts.
 *
 *     const client = new OpstreamClient({ baseUrl: "https://opstream.example", getToken: async () => accessToken });
 *     const watch = client.watchOperation(uuid, { onEvent: (event) => console.log(event.type, event.progress) });
 *
 * What it promises: every event that the server still keeps is handed out once and in order, whatever happens to connections and servers in
 * between. Where the server kept too little, a `history_truncated` and the current state come before the next event.
 */

import { OpstreamError, Poller, Socket, ask } from "./transports.js";

export { OpstreamError };

const LAST_TYPES = new Set(["operation_completed", "operation_failed", "operation_cancelled"]);
const LAST_STATUSES = new Set(["completed", "failed", "cancelled"]);

/* Statuses of servers that do not tell where events end, or not to this user. */
const NEVER_TOLD = new Set([403, 404, 405]);

/* The server keeps about 10,000 events of a user; no more of them can come again. */
const REMEMBERED_IDS = 12000;

const SETTINGS = {
    heartbeatSeconds: 30, // the server's WS_HEARTBEAT_INTERVAL; after 2.5 of them in silence the connection is given up
    handshakeSeconds: 10,
    firstDelayMs: [250, 1000], // the first reconnect comes after a random time between these; the upper end doubles with every attempt
    maxDelayMs: 30000,
    stableSeconds: 5, // a connection that lived for so long makes the delays start over
    socketAttempts: 3, // so many in a row in vain: polls, and
    socketRetrySeconds: 60, // tries a WebSocket that often meanwhile
    pollSeconds: 25, // how long the server may hold a poll back
    settleSeconds: 10, // how long a finished operation's last event is waited for when its history may be gone
};

export class OpstreamClient {
    #base;

    /** `getToken({ isRefused })` is asked before every connection; isRefused: the server did not take the token that it gave before. */
    constructor({ baseUrl = "", getToken = () => null, WebSocket = globalThis.WebSocket, fetch = globalThis.fetch, ...settings } = {}) {
        for (const name of Object.keys(settings)) {
            if (!(name in SETTINGS)) throw new TypeError(`OpstreamClient knows no setting "${name}"`);
        }
        this.#base = String(baseUrl);
        this.getToken = getToken;
        this.settings = Object.freeze({ ...SETTINGS, ...settings });
        this.WebSocket = WebSocket;
        this.fetch = (...args) => fetch(...args); // a browser's own must not be called as a method of anything else
    }

    /** One operation: its state first, what is kept of its history (or what follows `lastId`), then what happens. */
    watchOperation(operationId, options = {}) {
        return new Watch(this, String(operationId), options);
    }

    /** All operations of the user: what happens from now on, or what follows `lastId`. */
    watchOperations(options = {}) {
        return new Watch(this, null, options);
    }

    /* Not in the constructor, so that a client may be made where there is no page yet. */
    url(path, query) {
        const page = globalThis.location?.href;
        if (!this.#base && !page) throw new TypeError("outside of a page OpstreamClient needs a baseUrl");
        const base = new URL(this.#base || "/", page).href.replace(/\/+$/, "");
        return `${base}${path}?${new URLSearchParams(query)}`;
    }
}

/* Whether the same request may be answered another time. */
function isPassing(status) {
    return status >= 500 || [408, 425, 429].includes(status);
}

function report(error) {
    console.error("opstream:", error);
}

/* Which events were handed out already. Ids are <epoch>-<milliseconds>-<sequence> and rise within an epoch; those that do not look like that are
 * only remembered. */
class Position {
    #newest = null;
    #seen = new Set();

    static #parse(id) {
        const parts = /^(.+)-(\d+)-(\d+)$/.exec(id);
        return parts && { epoch: parts[1], ms: Number(parts[2]), sequence: Number(parts[3]) };
    }

    constructor(id) {
        this.#newest = id ? Position.#parse(id) : null;
    }

    /** Whether the event with this id is new. */
    take(id) {
        const next = Position.#parse(id), last = this.#newest;
        const isOld = next && last && next.epoch === last.epoch && (next.ms < last.ms || (next.ms === last.ms && next.sequence <= last.sequence));
        if (isOld || this.#seen.has(id)) return false;
        this.#newest = next;
        this.#seen.add(id);
        if (this.#seen.size > REMEMBERED_IDS) this.#seen.delete(this.#seen.values().next().value);
        return true;
    }

    /** The server begins anew with what it has; what was handed out before is still not handed out again. */
    startOver() {
        this.#newest = null;
    }
}

class Watch {
    #client;
    #id;
    #options;
    #settings;
    #lastId;
    #position;
    #state = null;
    #socket = null;
    #poller = null;
    #turn = 0; // outdates what an earlier attempt still waits for
    #attempts = 0; // since a connection was stable
    #vain = 0; // WebSockets in a row that did not open
    #denials = 0; // polls in a row that were denied
    #told = null; // the error that was told last
    #isPreparing = false; // waits for a token
    #hasAskedAgain = false; // for a token, after one was refused
    #needsPosition;
    #asking = null; // to stop the request for it
    #timer = null; // the next attempt
    #retryAt = null;
    #settleTimer = null;
    #endState = null; // the current_state of a finished operation
    #onWake = ({ type }) => this.#wake(type === "online");

    constructor(client, id, { lastId = null, ...callbacks }) {
        this.#client = client;
        this.#settings = client.settings;
        this.#id = id;
        this.#options = callbacks;
        this.#lastId = lastId;
        this.#position = new Position(lastId);
        this.#needsPosition = id === null && !lastId;
        globalThis.addEventListener?.("online", this.#onWake);
        globalThis.document?.addEventListener("visibilitychange", this.#onWake);
        // Not before the caller holds the watch: a callback may want to close it.
        queueMicrotask(() => this.#connect());
    }

    /** The id of the newest event that was handed out: give it as `lastId` to go on after it. */
    get lastId() {
        return this.#lastId;
    }

    /** "connecting", "live" (a WebSocket), "polling", "waiting" (for the next attempt) or "closed". */
    get connection() {
        return this.#state ?? "connecting";
    }

    /** When the next attempt is due, a Date, while waiting. */
    get retryAt() {
        return this.#retryAt;
    }

    /** Does not wait any longer, but tries again now. */
    reconnect() {
        if (this.#timer !== null && this.connection !== "closed") this.#connect();
    }

    /** Ends the watch; whatever is on the way is dropped. May be called at any time and more than once. */
    close() {
        if (this.#state === "closed") return;
        this.#turn++;
        globalThis.removeEventListener?.("online", this.#onWake);
        globalThis.document?.removeEventListener("visibilitychange", this.#onWake);
        this.#clearTimer();
        clearTimeout(this.#settleTimer);
        this.#socket?.close();
        this.#poller?.stop();
        this.#asking?.abort();
        this.#socket = this.#poller = null;
        this.#setState("closed");
    }

    /* ---- attempts ---- */

    async #connect(isRefused = false) {
        if (this.#state === "closed") return;
        const turn = ++this.#turn;
        this.#clearTimer();
        if (!this.#poller) this.#setState("connecting");
        if (turn !== this.#turn) return;
        this.#isPreparing = true;
        let token = null, problem = null;
        try {
            token = await this.#token(isRefused);
            if (turn === this.#turn && this.#needsPosition && !this.#lastId) await this.#findPosition(token, turn);
        } catch (error) {
            problem = error;
        }
        if (turn !== this.#turn) return;
        this.#isPreparing = false;
        if (problem && this.#poller) this.#connectIn(this.#settings.socketRetrySeconds * 1000);
        else if (problem?.code === 401 && !this.#hasAskedAgain) this.#askAgain();
        else if (problem && problem.code !== 401) this.#retryAfter(problem);
        else this.#open(token); // the reason of a token's second refusal is told by a socket
    }

    async #token(isRefused) {
        try {
            return await this.#client.getToken({ isRefused });
        } catch (error) {
            throw new OpstreamError("getToken failed", { code: "token", cause: error });
        }
    }

    /* With another token, once: the server did not take the last one. */
    #askAgain() {
        this.#hasAskedAgain = true;
        this.#connect(true);
    }

    /* Where the user's events end now. Without it a connection that is lost before its first event could not be resumed, so it is thrown when the
     * server may tell later. A server that does not tell is watched all the same. */
    async #findPosition(token, turn) {
        try {
            const answer = await ask({ fetch: this.#client.fetch, url: this.#eventsUrl(0), token, seconds: 3, onStart: (abort) => { this.#asking = abort; } });
            if (turn !== this.#turn) return;
            this.#needsPosition = false;
            this.#take(answer);
        } catch (error) {
            if (error.code === 401 || isPassing(error.code)) throw error;
            if (NEVER_TOLD.has(error.code)) this.#needsPosition = false;
        }
    }

    #open(token) {
        const { WebSocket } = this.#client;
        const path = this.#id === null ? "/ws/operations" : "/ws/operations/" + encodeURIComponent(this.#id);
        if (!WebSocket) {
            this.#poll();
            return;
        }
        try {
            this.#socket = new Socket({
                WebSocket, token, settings: this.#settings,
                // last_id is sent even if it is empty: it tells the server that we can resume, so that a drain ends with 1012 and not with a cut.
                url: this.#client.url(path, { last_id: this.#lastId ?? "" }).replace(/^http/, "ws"),
                onFrame: (frame) => this.#onFrame(frame),
                onClosed: (end) => this.#onClosed(end),
            });
        } catch (error) {
            this.#fail(new OpstreamError(`no WebSocket can be opened: ${error.message}`, { cause: error, isFinal: true }));
        }
    }

    #onFrame(frame) {
        if (this.#state !== "live") {
            this.#poller?.stop();
            this.#poller = null;
            this.#vain = 0;
            this.#hasAskedAgain = false;
            this.#setState("live");
        }
        if (frame && frame.type !== "ping" && frame.type !== "pong") this.#deliver(frame);
    }

    #onClosed({ code, reason, liveMs }) {
        this.#socket = null;
        if (code === 1008) {
            this.#onRefused(reason);
            return;
        }
        if (liveMs === null) this.#vain++;
        else if (liveMs >= this.#settings.stableSeconds * 1000) this.#attempts = 0;
        if (this.#poller) this.#connectIn(this.#settings.socketRetrySeconds * 1000);
        else if (this.#vain >= this.#settings.socketAttempts) this.#poll();
        else this.#retryLater();
    }

    #onRefused(reason) {
        if (/expired|credentials/i.test(reason) && !this.#hasAskedAgain) {
            this.#askAgain();
        } else if (/^too many|origin is not allowed/i.test(reason)) {
            // Places become free, and another instance may have one for a poll. Polls of a page's own server need no list of origins.
            this.#tellOnce(new OpstreamError(reason, { code: 1008 }));
            this.#poll();
        } else {
            this.#fail(new OpstreamError(reason || "the server refuses the connection", { code: 1008, isFinal: true }));
        }
    }

    #poll() {
        if (this.#state === "closed") return; // a callback did that
        if (this.#client.WebSocket) this.#connectIn(this.#settings.socketRetrySeconds * 1000);
        if (this.#poller) return;
        this.#poller = new Poller({
            fetch: this.#client.fetch,
            settings: this.#settings,
            getToken: (isRefused) => this.#token(isRefused),
            url: (wait) => this.#eventsUrl(wait),
            onAnswer: (answer) => this.#onAnswer(answer),
            onFailure: (error) => this.#onPollFailed(error),
        });
    }

    #eventsUrl(wait) {
        const path = this.#id === null ? "/api/v2/operations/events" : `/api/v2/operations/${encodeURIComponent(this.#id)}/events`;
        return this.#client.url(path, { wait, ...(this.#lastId ? { after: this.#lastId } : {}) });
    }

    #onAnswer(answer) {
        this.#attempts = this.#denials = 0;
        this.#setState("polling");
        this.#take(answer);
        if (answer.has_ended && this.#id !== null && this.#state !== "closed") this.#finish(this.#endState);
    }

    #take(answer) {
        for (const frame of answer.events) {
            if (frame && typeof frame.type === "string") this.#deliver(frame);
        }
        if (answer.last_id && this.#state !== "closed") this.#lastId = answer.last_id;
    }

    #onPollFailed(error) {
        this.#poller = null;
        if (!(error instanceof OpstreamError)) {
            this.#fail(new OpstreamError(error.message, { cause: error, isFinal: true }));
            return;
        }
        const isClientError = error.code >= 400 && error.code < 500 && !isPassing(error.code);
        // Twice, as a WebSocket is tried in between: its refusal has a reason.
        if (isClientError && (error.code === 401 || ++this.#denials > 1)) {
            this.#fail(new OpstreamError(error.message, { code: error.code, isFinal: true }));
            return;
        }
        if (this.#socket || this.#isPreparing) return; // an attempt is on the way and goes on alone
        this.#retryAfter(error);
    }

    /* An outage is told by the state alone. */
    #retryAfter(error) {
        const isNews = error.code === "token" || (error.code >= 400 && error.code < 500);
        this.#retryLater(isNews ? error : null, error.retryAfterSeconds * 1000);
    }

    /* Exponential, with full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/ */
    #retryLater(error = null, atLeastMs = 0) {
        const [least, first] = this.#settings.firstDelayMs;
        const most = Math.min(this.#settings.maxDelayMs, first * 2 ** Math.min(this.#attempts++, 30));
        if (error) this.#tellOnce(error);
        if (this.#state === "closed") return;
        this.#connectIn(Math.max(atLeastMs || 0, least + Math.random() * Math.max(most - least, 0)));
        this.#setState("waiting");
    }

    #connectIn(ms) {
        this.#clearTimer();
        this.#retryAt = new Date(Date.now() + ms);
        this.#timer = setTimeout(() => this.#connect(), ms);
    }

    #clearTimer() {
        clearTimeout(this.#timer);
        this.#timer = this.#retryAt = null;
    }

    /* The network is back, or somebody looks at the page again. */
    #wake(isOnline) {
        if (!isOnline && globalThis.document.visibilityState === "hidden") return;
        if (this.#state === "waiting") this.#connect();
        else this.#socket?.probe();
    }

    /* ---- what is handed out ---- */

    #deliver(frame) {
        if (this.#state === "closed") return;
        if (typeof frame.id === "string") {
            if (!this.#position.take(frame.id)) return;
            this.#lastId = frame.id;
        }
        if (frame.type === "history_truncated") this.#position.startOver();
        this.#call("onEvent", frame);
        if (this.#id === null || this.#state === "closed") return;
        if (LAST_TYPES.has(frame.type)) this.#finish(frame);
        else if (frame.type === "current_state" && LAST_STATUSES.has(frame.status ?? frame.data?.status)) this.#settle(frame);
        else if (this.#endState) this.#settle(this.#endState);
    }

    /* A finished operation: its last event follows, unless it is too old to be kept or was seen before. */
    #settle(state) {
        this.#endState = state;
        clearTimeout(this.#settleTimer);
        this.#settleTimer = setTimeout(() => this.#finish(state), this.#settings.settleSeconds * 1000);
    }

    #finish(event) {
        this.close();
        this.#call("onEnd", event);
    }

    #fail(error) {
        this.close();
        this.#tell(error);
    }

    /* What is tried again and again is told again only after it was well meanwhile. */
    #tellOnce(error) {
        if (error.message !== this.#told) this.#tell(error);
        this.#told = error.message;
    }

    #tell(error) {
        if (!this.#options.onError) report(error);
        else this.#call("onError", error);
    }

    #setState(state) {
        if (state === this.#state) return;
        this.#state = state;
        if (state === "live" || state === "polling") this.#told = null;
        this.#call("onConnection", state);
    }

    /* What a callback throws is its author's to know and nobody else's problem. */
    #call(name, value) {
        try {
            this.#options[name]?.(value);
        } catch (error) {
            if (name === "onError" || !this.#options.onError) report(error);
            else this.#call("onError", new OpstreamError(`${name} failed`, { cause: error }));
        }
    }
}
