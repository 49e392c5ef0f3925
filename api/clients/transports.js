/* The two ways to the server, a WebSocket and long polls, each for one connection: what to do at its end is decided in opstream.js. */

export class OpstreamError extends Error {
    /** `isFinal`: the watch has ended by it. `code`: a WebSocket's close code, an HTTP status, "token" (getToken failed), or null. */
    constructor(message, { code = null, isFinal = false, cause, retryAfterSeconds = 0 } = {}) {
        super(message, { cause });
        this.name = "OpstreamError";
        this.code = code;
        this.isFinal = isFinal;
        this.retryAfterSeconds = retryAfterSeconds;
    }
}

/* Monotonic, in milliseconds. */
function now() {
    return performance.now();
}

/* One WebSocket, from the attempt to its end. onFrame gets every frame; onClosed comes once, unless close() was called before. */
export class Socket {
    #socket;
    #timer = null;
    #deadline = 0;
    #liveSince = null;
    #silenceMs;
    #handshakeMs;
    #onClosed;

    constructor({ WebSocket, url, token, settings, onFrame, onClosed }) {
        this.#silenceMs = settings.heartbeatSeconds * 2500;
        this.#handshakeMs = settings.handshakeSeconds * 1000;
        this.#onClosed = onClosed;
        // A subprotocol is the only header that a page can set; it keeps the token out of the logs of proxies. Not every string may be one.
        const isName = token && /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(token);
        const socket = isName ? new WebSocket(url, ["access_token." + token])
            : new WebSocket(token ? `${url}&token=${encodeURIComponent(token)}` : url);
        this.#socket = socket;
        this.#expectWithin(this.#handshakeMs);
        socket.onerror = () => {}; // a close event follows; some implementations throw what nobody takes
        // The server accepts before it refuses: only a frame tells that it lets us in, and the answer to a ping comes at once.
        socket.onopen = () => socket.send('{"type":"ping"}');
        socket.onmessage = ({ data }) => {
            const isFirst = this.#liveSince === null;
            if (isFirst) this.#liveSince = now();
            this.#deadline = now() + this.#silenceMs;
            if (isFirst) this.#expectWithin(this.#silenceMs);
            onFrame(parsed(data));
        };
        socket.onclose = ({ code, reason }) => this.#end(code, reason);
    }

    get isLive() {
        return this.#liveSince !== null;
    }

    /** Asks whether the other side is still there, and gives the connection up if it is not. */
    probe() {
        if (!this.isLive) return;
        try {
            this.#socket.send('{"type":"ping"}');
        } catch {
            // its close event is on the way
        }
        this.#expectWithin(this.#handshakeMs);
    }

    close() {
        this.#detach();
        this.#socket.close(1000);
    }

    #expectWithin(ms) {
        this.#deadline = now() + ms;
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#look(), ms);
    }

    /* A message only moves the deadline: thousands a second shall not set as many timers. */
    #look() {
        const left = this.#deadline - now();
        if (left > 0) {
            this.#timer = setTimeout(() => this.#look(), left);
            return;
        }
        const reason = this.isLive ? "nothing was heard for too long" : "the handshake took too long";
        const socket = this.#socket;
        this.#end(1006, reason);
        socket.close();
    }

    #detach() {
        clearTimeout(this.#timer);
        this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    }

    #end(code, reason) {
        this.#detach();
        this.#onClosed({ code, reason, liveMs: this.isLive ? now() - this.#liveSince : null });
    }
}

function parsed(text) {
    try {
        const frame = JSON.parse(text);
        return frame && typeof frame.type === "string" ? frame : null;
    } catch {
        return null;
    }
}

/* Long polls, one after the other, until stop(). */
export class Poller {
    #isStopped = false;
    #abort = null;
    #pause = null;
    #watch;

    /** watch: { getToken, url(wait), fetch, settings, onAnswer, onFailure }; after onFailure it has stopped. */
    constructor(watch) {
        this.#watch = watch;
        this.#run();
    }

    stop() {
        this.#isStopped = true;
        this.#abort?.abort();
        this.#pause?.();
    }

    async #run() {
        try {
            // The first one comes back at once and so tells whether polling works at all.
            for (let wait = 0; !this.#isStopped; wait = this.#watch.settings.pollSeconds) {
                const began = now();
                const answer = await this.#askWithToken(wait);
                if (this.#isStopped) return;
                this.#watch.onAnswer(answer);
                const isHasty = wait > 0 && answer.events.length === 0 && now() - began < 1000;
                if (isHasty && !this.#isStopped) await this.#sleep(1000); // something in between does not let it wait
            }
        } catch (error) {
            if (this.#isStopped) return;
            this.#isStopped = true;
            this.#watch.onFailure(error);
        }
    }

    #sleep(ms) {
        return new Promise((resolve) => {
            const timer = setTimeout(resolve, ms);
            this.#pause = () => {
                clearTimeout(timer);
                resolve();
            };
        });
    }

    async #askWithToken(wait) {
        try {
            return await this.#ask(wait, await this.#watch.getToken(false));
        } catch (error) {
            if (error.code !== 401 || this.#isStopped) throw error;
            return this.#ask(wait, await this.#watch.getToken(true));
        }
    }

    #ask(wait, token) {
        return ask({ fetch: this.#watch.fetch, url: this.#watch.url(wait), token, seconds: wait + 15, onStart: (abort) => { this.#abort = abort; } });
    }
}

/* One request for events. Rejects with an OpstreamError whose code is the HTTP status, if there was one. */
export async function ask({ fetch, url, token, seconds, onStart = () => {} }) {
    const abort = new AbortController();
    onStart(abort);
    const timer = setTimeout(() => abort.abort(), seconds * 1000);
    try {
        const response = await fetch(url, {
            headers: { Accept: "application/json", ...(token ? { Authorization: "Bearer " + token } : {}) }, cache: "no-store", signal: abort.signal,
        });
        const body = await response.json().catch(() => null);
        if (response.ok && Array.isArray(body?.events)) return body;
        throw new OpstreamError(response.ok ? "the answer to a poll held no events" : textOf(body) || `the server answered ${response.status}`,
            { code: response.status, retryAfterSeconds: Number(response.headers.get("Retry-After")) || 0 });
    } catch (error) {
        if (error instanceof OpstreamError) throw error;
        throw new OpstreamError("the server cannot be reached", { cause: error });
    } finally {
        clearTimeout(timer);
    }
}

function textOf(body) {
    const text = body?.detail ?? body?.message;
    return typeof text === "string" ? text : null;
}
