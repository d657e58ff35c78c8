/* Asks the daemon. Everything goes through `ask`: the token, who is asking, and what went wrong. */

const API = "/api/v1";
const PATIENCE = 15_000;

/** The daemon's "no": a problem document (RFC 9457). */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the daemon answered ${status}`);
    this.status = status;
    this.code = problem.code ?? "";
    this.problem = problem;
  }
}

/** The daemon did not answer. */
export class Away extends Error {}

let askForToken = null;

/** `ask` is called, once at a time, when the daemon wants a token; it resolves when there is a new one. */
export function onTokenWanted(ask) {
  askForToken = ask;
}

export const token = {
  get: () => sessionStorage.getItem("jivsd.token") ?? "",
  set: (value) => (value ? sessionStorage.setItem("jivsd.token", value) : sessionStorage.removeItem("jivsd.token")),
};

/** Who is sitting here, for the record; header values are Latin-1. */
export const person = {
  get: () => localStorage.getItem("jivsd.by") ?? "",
  set: (name) => localStorage.setItem("jivsd.by", name.trim().replace(/[^\x20-\x7e\xa1-\xff]/g, "?")),
};

/** The answer's status, headers and text, whatever it is; `signal` gives up. */
export async function raw(method, path, body, { signal, json, patience = PATIENCE } = {}) {
  const headers = { Accept: "application/json" };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (person.get()) headers["X-Jivsd-By"] = person.get();
  const text = json ?? (body === undefined ? undefined : JSON.stringify(body));
  if (text !== undefined) headers["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(patience);
  try {
    const both = signal ? AbortSignal.any([signal, limit]) : limit;
    const response = await fetch(path, { method, headers, body: text, signal: both, cache: "no-store" });
    return { status: response.status, headers: response.headers, text: await response.text() };
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Away(limit.aborted ? "the daemon does not answer" : "the daemon cannot be reached");
  }
}

async function ask(method, path, body, options) {
  const sent = token.get();
  const answer = await raw(method, path, body, options);
  if (answer.status === 401 && askForToken) {
    if (token.get() === sent) await askForToken(Boolean(sent));
    return ask(method, path, body, options);
  }
  const value = parsed(answer.text);
  if (answer.status >= 400) throw new Refusal(answer.status, value ?? {});
  return value;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const query = (parameters) => {
  const filled = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) if (one) filled.append(name, one);
  }
  return filled.size ? `?${filled}` : "";
};

const part = encodeURIComponent;

export const get = (path, parameters, options) => ask("GET", API + path + query(parameters), undefined, options);
export const post = (path, body, options) => ask("POST", API + path, body, options);
export const description = (options) => ask("GET", "/openapi.json", undefined, options);

export const status = (options) => get("/status", {}, options);
export const runs = (where, options) => get("/runs", where, options);
export const run = (ref, options) => get(`/runs/${part(ref)}`, {}, options);
export const why = (ref, options) => get(`/runs/${part(ref)}/why`, {}, options);
export const timeline = (ref, after, options) => get(`/runs/${part(ref)}/timeline`, { after, limit: 500 }, options);
export const workflows = async (options) => (await get("/workflows", {}, options)).items;

/** pause, resume, cancel, terminate or retry. */
export const act = (ref, action, reason) => post(`/runs/${part(ref)}/${action}`, { reason });

/** One action on many runs: a call works for about two seconds, and each run may take a few more. */
export const actions = (body) => ask("POST", `${API}/runs/actions`, body, { patience: 120_000 });

/** `payload` is JSON text: it is sent as it was typed, so that no number loses digits. */
export const signal = (ref, name, payload) =>
  ask("POST", `${API}/runs/${part(ref)}/signals/${part(name)}`, undefined, { json: `{"payload": ${payload}}` });

export const start = (fields, input) => {
  const head = JSON.stringify(fields).slice(0, -1);
  return ask("POST", `${API}/runs`, undefined, { json: `${head}, "input": ${input}}` });
};

export const queryRun = (ref, name, options) => post(`/runs/${part(ref)}/queries/${part(name)}`, {}, options);
