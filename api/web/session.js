// Who is signed in. Tokens lie where all tabs of the page see them; a refresh token is good for one use, so one tab at a time trades it.

import { ApiError, send } from "./http.js";
import { alone } from "./lock.js";

const KEY = "opstream.session";
const EARLY_MS = 60000; // a token is renewed so long before it ends, or at four fifths of a short life

class Session extends EventTarget {
  #timer = 0;

  constructor() {
    super();
    window.addEventListener("storage", (event) => {
      if (event.key === KEY) this.#changed();
    });
    this.#schedule();
  }

  /** {access, refresh, serial, expires, renew, user} or null. Never kept in memory: another tab may have renewed it. */
  get #kept() {
    const kept = this.#stored;
    return kept?.access ? kept : null;
  }

  get #stored() {
    try {
      return JSON.parse(localStorage.getItem(KEY));
    } catch {
      return null;
    }
  }

  /** It was not ended by whoever was signed in, in any tab. */
  get hasEnded() {
    return this.#stored?.hasEnded === true;
  }

  get isSignedIn() {
    return this.#kept != null;
  }

  get user() {
    return this.#kept?.user ?? null;
  }

  #keep(kept) {
    if (kept) localStorage.setItem(KEY, JSON.stringify(kept));
    else localStorage.removeItem(KEY);
    this.#changed();
  }

  #changed() {
    this.#schedule();
    this.dispatchEvent(new Event("change"));
  }

  #schedule() {
    clearTimeout(this.#timer);
    const kept = this.#kept;
    if (!kept) return;
    const wait = Math.min(Math.max(kept.renew - Date.now(), 0), 2 ** 31 - 1);
    // When it fails for want of a server, the next request tries again.
    this.#timer = setTimeout(() => this.renew(kept.serial).catch(() => {}), wait);
  }

  /** An access token that is good for now; null when nobody is signed in. `isRefused`: the one that was given before is not taken. */
  async token({ isRefused = false } = {}) {
    const kept = this.#kept;
    if (!kept) return null;
    if (isRefused) return this.renew(kept.serial);
    if (kept.renew > Date.now()) return kept.access;
    try {
      return await this.renew(kept.serial);
    } catch (error) {
      if (kept.expires > Date.now()) return kept.access;
      throw error;
    }
  }

  /** Names the tokens that are there now. (Access tokens of one second may be the same.) */
  get serial() {
    return this.#kept?.serial ?? null;
  }

  /** An access token in place of the one of that serial; null when the session has ended. Throws when no server answers. */
  renew(serial) {
    return alone(KEY, async () => {
      const kept = this.#kept;
      if (!kept) return null;
      if (kept.serial !== serial && kept.expires > Date.now()) return kept.access; // another tab was quicker
      try {
        const { json, date } = await send("POST", "/api/auth/refresh", { refresh_token: kept.refresh });
        this.#keep({ ...kept, ...dated(json, date) });
        return json.access_token;
      } catch (error) {
        if (!(error instanceof ApiError) || ![400, 401, 403].includes(error.status)) throw error;
        this.end();
        return null;
      }
    });
  }

  async signIn(username, password) {
    const { json, date } = await send("POST", "/api/auth/login", { username, password });
    const me = await send("GET", "/api/auth/me", undefined, json.access_token);
    this.#keep({ ...dated(json, date), user: { id: me.json.id, username: me.json.username, is_superuser: me.json.is_superuser } });
  }

  async register(account) {
    await send("POST", "/api/auth/register", account);
    await this.signIn(account.username, account.password);
  }

  async signOut() {
    const kept = this.#kept;
    this.#keep(null);
    if (kept) await send("POST", "/api/auth/logout", { refresh_token: kept.refresh }, kept.access).catch(() => {});
  }

  /** The server does not know this session any more. */
  end() {
    if (this.isSignedIn) this.#keep({ hasEnded: true });
  }
}

/** Tokens with the times, by this computer's clock, at which they end and are to be renewed. `date`: the server's clock at the answer. */
function dated(tokens, date) {
  const claims = JSON.parse(atob(tokens.access_token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  const life = claims.exp * 1000 - date;
  const now = Date.now();
  return { access: tokens.access_token, refresh: tokens.refresh_token, serial: Math.random(), expires: now + life, renew: now + life - Math.min(EARLY_MS, life / 5) };
}

export const session = new Session();
