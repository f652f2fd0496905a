// One node of the cluster at a time: which one, with which token, and what it answers.

const KEY = "baguette-token";
const TOKEN = /^[A-Za-z0-9._-]+$/;

/** What went wrong, as the node's problem document says it (RFC 9457). */
export class Problem extends Error {
  constructor(status, detail, field) {
    super(detail);
    this.status = status;
    this.field = field;
  }
}

/** The node the page talks to. */
export const node = { url: location.origin };

/** A token in the address (#token=...) is taken out of it before anything else happens. */
export function tokenFromAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!found) return;
  history.replaceState(null, "", location.pathname + location.search);
  if (TOKEN.test(found)) keepToken(found);
}

/** A header takes only what a token is made of: anything else is nobody's token. */
export function keepToken(token) {
  const wanted = token.trim();
  if (!TOKEN.test(wanted)) throw new Problem(401, "This is not a token: it has other characters.");
  sessionStorage.setItem(KEY, wanted);
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}`, ...more } : more;
}

/** A response that is no error; its problem otherwise. */
export async function ask(path, { method = "GET", body, signal, key, url = node.url } = {}) {
  const more = body === undefined ? {} : { "Content-Type": "application/json" };
  if (key) more["Idempotency-Key"] = key;
  const response = await fetch(url + path, {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: headers(more),
    signal,
    credentials: "omit",
    cache: "no-store",
  });
  if (response.ok) return response;
  throw await problem(response);
}

async function problem(response) {
  const said = await response.json().catch(() => ({}));
  const detail = said.detail ?? `The node answered ${response.status} without a reason.`;
  return new Problem(response.status, detail, said.field);
}

export const json = async (path, options) => (await ask(path, options)).json();

/** A picture as an address the page may show; images need the token like everything else. */
export async function picture(path, url) {
  return URL.createObjectURL(await (await ask(path, { url })).blob());
}

/** Names a request, so that sending it twice draws it once. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What to tell a person of an error. */
export const told = (error) =>
  error instanceof Problem ? error.message : "The node does not answer; trying the others.";
