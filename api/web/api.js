// Requests of whoever is signed in.

import { send } from "./http.js";
import { session } from "./session.js";

/** Its JSON. A token that is not taken any more is renewed once. */
export async function call(method, path, body, signal) {
  const token = await session.token();
  const { serial } = session;
  try {
    return (await send(method, path, body, token, signal)).json;
  } catch (error) {
    if (error.status !== 401) throw error;
    const renewed = token && (await session.renew(serial));
    if (!renewed) throw error;
    try {
      return (await send(method, path, body, renewed, signal)).json;
    } catch (again) {
      if (again.status === 401) session.end();
      throw again;
    }
  }
}

export const get = (path, signal) => call("GET", path, undefined, signal);
