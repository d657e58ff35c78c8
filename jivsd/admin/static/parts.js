/* Pieces that several pages are made of. */

import { h } from "./dom.js";
import { pretty } from "./words.js";

export const title = (text, ...beside) => h("div.title", null, h("h1", null, text), beside);

/** A titled box. */
export const panel = (name, ...children) => h("section.panel", null, name && h("h2", null, name), children);

export const empty = (text) => h("p.empty", null, text);

/** A table: `heads` are texts or {text, class}; rows are `tr`s. It scrolls sideways by itself where it is too wide. */
export function table(name, heads, rows, { key } = {}) {
  const head = (one) => {
    const { text, class: look, hidden } = typeof one === "object" ? one : { text: one };
    return h("th", { scope: "col", class: look }, hidden ? h("span.hidden", null, text) : text);
  };
  return h(
    "div.scroll",
    { tabindex: "0", role: "region", "aria-label": name, "data-key": key },
    h("table", null, h("thead", null, h("tr", null, heads.map(head))), h("tbody", null, rows)),
  );
}

/** Names and values; those without a value are left out. */
export const facts = (entries) =>
  h(
    "dl.facts",
    null,
    entries
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
  );

/** A JSON value in full, folded away when it is long. */
export function json(name, value, { open = true } = {}) {
  const text = pretty(value);
  const lines = text.split("\n").length;
  const code = h("pre.code", { tabindex: "0", "aria-label": name }, text);
  if (lines <= 14) return h("div.value", null, h("h3", null, name), code);
  return h("details.value", { open: open && lines < 60 }, h("summary", null, name, h("span.dim", null, ` ${lines} lines`)), code);
}

/** A bar of how much of something is used or done. */
export function meter(name, used, whole, look = "") {
  const share = whole > 0 ? Math.min(used / whole, 1) : 0;
  return h(
    "span.meter",
    {
      role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": whole || 1,
      "aria-valuenow": Math.min(used, whole || 1), class: look,
    },
    h("i", { style: { width: share ? `max(3px, ${share * 100}%)` : "0" } }),
  );
}

export const problem = (text) => h("p.problem", null, text);

/** Text as docstrings have it: paragraphs, and `code` between backticks. */
export const prose = (text) =>
  text.split(/\n\s*\n/).map((paragraph) => h("p.prose", null, marked(paragraph.replace(/\s*\n\s*/g, " "))));

/** A line of text with its `code`. */
export const marked = (line) => line.split("`").map((piece, index) => (index % 2 ? h("code", null, piece) : piece));
