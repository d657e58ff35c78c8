/* The API for people who write programs: made from /openapi.json, each operation with a form to try it. */

import * as api from "./api.js";
import { bar } from "./bar.js";
import { h, patch } from "./dom.js";
import { listen } from "./keys.js";
import { PAGES } from "./places.js";
import { marked, prose, title } from "./parts.js";
import { kind, resolved, sample, shape } from "./schema.js";
import { askForToken } from "./token.js";
import { tryIt } from "./try.js";
import { plural } from "./words.js";

const main = document.getElementById("main");

/** All operations, by tag, in the order of the document. */
function byTag(document) {
  const tags = new Map();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "";
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push({ path, method, ...operation });
    }
  }
  return tags;
}

function page(document) {
  const tags = [...byTag(document)];
  const number = tags.reduce((sum, [, all]) => sum + all.length, 0);
  return [
    title("API", h("a.button", { href: "/openapi.json", download: "openapi.json" }, "openapi.json")),
    h("div.description", null, prose(document.info.description)),
    h(
      "form.search",
      { role: "search", onsubmit: (event) => event.preventDefault() },
      h("input", { type: "search", "aria-label": "Filter operations", placeholder: `Filter ${plural(number, "operation")}`, "data-search": true, oninput: (event) => filter(event.target.value) }),
    ),
    h("nav.chips", { "aria-label": "Tags" }, tags.map(([tag]) => h("a.button.chip.plain", { href: `#${tag}` }, tag))),
    tags.map(([tag, all]) => h("section.panel.operations", { id: tag }, h("h2", null, tag), all.map((one) => operation(one, document)))),
  ];
}

function filter(text) {
  const words = text.toLowerCase().split(/\s+/);
  for (const one of document.querySelectorAll(".operations details.operation")) {
    const said = one.querySelector("summary").textContent.toLowerCase();
    one.hidden = !words.every((word) => said.includes(word));
  }
  for (const tag of document.querySelectorAll(".operations")) {
    tag.hidden = !tag.querySelector("details.operation:not([hidden])");
  }
}

/** One operation; what is inside is made when it is opened. */
function operation(one, document) {
  const details = h(
    "details.operation",
    {
      id: one.operationId,
      ontoggle() {
        if (details.open && details.children.length === 1) details.append(inside(one, document));
      },
    },
    h("summary", { "data-row": true }, h("span.method", null, one.method.toUpperCase()), h("code", null, one.path), h("span.dim", null, marked(one.summary))),
  );
  return details;
}

function inside(one, document) {
  const body = one.requestBody?.content?.["application/json"]?.schema;
  return h(
    "div.inside",
    null,
    one.description && h("div.description", null, prose(one.description)),
    one.parameters?.length > 0 && part("Parameters", h("ul.schema", null, one.parameters.map((given) => parameter(given, document)))),
    body && part(one.requestBody.required ? "Body" : "Body, if there is anything to say", shape(body, document)),
    part("Answers", Object.entries(one.responses).map(([status, answer]) => response(status, answer, document))),
    part("Try it", tryIt(one, body && sample(body, document))),
  );
}

const part = (name, ...children) => h("div.part", null, h("h3", null, name), children);

const parameter = (given, document) =>
  h(
    "li",
    null,
    h("p", null, h("strong", null, given.name), h("code", null, kind(given.schema, document)), h("span.dim", null, given.in), given.required && h("span.needed", null, "needed")),
    given.description && h("p.dim", null, given.description),
  );

function response(status, answer, document) {
  const [type, content] = Object.entries(answer.content ?? {})[0] ?? [];
  const head = h("p", null, h("strong", null, status), ` ${answer.description} `, type && h("code.dim", null, type));
  const has = content?.schema && resolved(content.schema, document).properties;
  if (!has) return h("div.answer", null, head);
  return h("details.answer", null, h("summary", null, `${status} ${answer.description}`), shape(content.schema, document));
}

function drawBar() {
  patch(document.getElementById("bar"), bar(PAGES, "docs", null, null));
}

async function open() {
  try {
    const described = await api.description();
    main.replaceChildren(...h("div", null, page(described)).childNodes);
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  } catch (error) {
    const again = () => location.reload();
    main.replaceChildren(title("API"), h("p.problem", { role: "alert" }, error.message), h("p", null, h("button", { type: "button", onclick: again }, "Try again")));
  }
}

drawBar();
listen(PAGES, { refresh: () => location.reload() });
askForToken();
open();
