/* A form that sends one request of the API and shows the answer as it came. */

import { raw } from "./api.js";
import { ask, jsonProblem } from "./dialog.js";
import { h } from "./dom.js";
import { pretty } from "./words.js";

/** A form for an operation; `body`: a first JSON text, if it takes one. What changes something is asked about first. */
export function tryIt(operation, body) {
  const answer = h("div.answered", { role: "status" });
  const parameters = operation.parameters ?? [];

  async function submit(event) {
    event.preventDefault();
    const values = new FormData(event.currentTarget);
    const text = values.get("!body")?.trim() || undefined;
    const wrong = text && jsonProblem(text);
    if (wrong) {
      answer.replaceChildren(h("p.problem", null, wrong));
      return;
    }
    const path = address(operation.path, parameters, values);
    const method = operation.method.toUpperCase();
    if (method !== "GET" && !(await meant(method, path))) return;
    answer.replaceChildren(h("p.dim", null, "…"));
    try {
      answer.replaceChildren(...shown(await raw(method, path, undefined, { json: text })));
    } catch (error) {
      answer.replaceChildren(h("p.problem", null, error.message));
    }
  }

  const id = (name) => `${operation.operationId}-${name}`;
  const field = (given) =>
    h("div.field", null, h("label", { for: id(given.name) }, given.name), h("input", { id: id(given.name), name: given.name, required: given.required, autocomplete: "off" }));
  return h(
    "form.start",
    { onsubmit: submit },
    parameters.length > 0 && h("div.grid", null, parameters.map(field)),
    body !== undefined && h("div.field", null, h("label", { for: id("!body") }, "Body (JSON)"), h("textarea.code", { id: id("!body"), name: "!body", rows: Math.min(10, body.split("\n").length + 1), spellcheck: "false", value: body })),
    h("div", null, h("button", { type: "submit" }, "Send")),
    answer,
  );
}

const meant = (method, path) =>
  ask({ title: "Send this?", text: `${method} ${path} changes something in this daemon.`, confirm: "Send", send: () => true });

/** The path with its parameters filled in; a list may be given with commas. */
function address(path, parameters, values) {
  const query = new URLSearchParams();
  let filled = path;
  for (const { name, in: where } of parameters) {
    const value = String(values.get(name) ?? "").trim();
    if (where === "path") filled = filled.replace(`{${name}}`, encodeURIComponent(value));
    else if (value) query.append(name, value);
  }
  return query.size ? `${filled}?${query}` : filled;
}

function shown({ status, headers, text }) {
  const type = headers.get("Content-Type") ?? "";
  const body = type.includes("json") ? pretty(JSON.parse(text)) : text;
  return [
    h("p", null, h("span.status", { class: status < 400 ? "tone-ok" : "tone-bad" }, String(status)), h("code.dim", null, ` ${type}`)),
    h("pre.code", { tabindex: "0", "aria-label": "The answer" }, body),
  ];
}
