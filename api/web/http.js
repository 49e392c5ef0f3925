// One request. What goes wrong comes as an ApiError whose message is a sentence for people.

export class ApiError extends Error {
  /** `status` 0: nothing answered. `fields`: the sentence about each field of the body that did not fit. */
  constructor(status, message, fields = {}) {
    super(message);
    this.status = status;
    this.fields = fields;
  }
}

function ended(sentence) {
  const trimmed = sentence.trim();
  return /[.!?…]$/.test(trimmed) ? trimmed : trimmed + ".";
}

/** The API's words for a field become words about the field that people see. */
function aboutField(entry) {
  const field = entry.loc?.at(-1);
  return ended(typeof field === "string" && !entry.msg.toLowerCase().startsWith(field.replaceAll("_", " ")) ? `${field.replaceAll("_", " ")}: ${entry.msg}` : entry.msg);
}

const usual = {
  401: "You are not signed in.",
  403: "You may not do this.",
  404: "There is no such thing (any more).",
  429: "Too many requests.",
  500: "Something went wrong on the server.",
  502: "The server cannot be reached.",
  503: "The server is busy or restarts. Try again in a moment.",
  504: "The server did not answer in time.",
};

function errorOf(status, json, retryAfter) {
  const detail = json?.detail;
  const fields = {};
  let sentence = usual[status] ?? `The server answered ${status}.`;
  if (typeof detail === "string" && status < 500) sentence = ended(detail);
  else if (Array.isArray(detail)) {
    for (const entry of detail) {
      const field = entry.loc?.at(-1);
      if (typeof field === "string") fields[field] = ended(entry.msg);
    }
    sentence = detail.map(aboutField).join(" ");
  } else if (typeof detail?.message === "string") sentence = ended(detail.message);
  if (status === 429) sentence = `Too many requests. Try again in ${retryAfter || "a few"} seconds.`;
  return new ApiError(status, sentence, fields);
}

async function jsonOf(answer) {
  try {
    return await answer.json();
  } catch {
    return null;
  }
}

/** One request with that token: {json, date}, the server's clock being in ms. */
export async function send(method, path, body, token, signal) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = "Bearer " + token;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server cannot be reached.");
  }
  const json = answer.status === 204 ? null : await jsonOf(answer);
  if (!answer.ok) throw errorOf(answer.status, json, answer.headers.get("Retry-After"));
  return { json, date: Date.parse(answer.headers.get("Date") ?? "") || Date.now() };
}
