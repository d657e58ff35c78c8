/* Locks: who holds each, who waits in which order, and circles of runs that wait for one another. */

import * as api from "./api.js";
import { h } from "./dom.js";
import { empty, panel, table, title } from "./parts.js";
import { count, lasted, runLink, short, status, time } from "./words.js";

export function locks({ query, refresh }) {
  const cursors = [null];
  const load = (signal) => api.get("/locks", { key: query.get("key"), limit: "50", cursor: cursors.at(-1) }, { signal });

  function turn(to) {
    if (to) cursors.push(to);
    else cursors.pop();
    refresh();
  }

  const view = (page) => [
    title("Locks"),
    page.circles.map(circle),
    page.items.length
      ? page.items.map(lock)
      : panel(null, empty("No run holds a lock, or waits for one.")),
    (page.next || cursors.length > 1) &&
      h(
        "div.pager",
        null,
        h("button", { type: "button", disabled: cursors.length < 2, onclick: () => turn(null) }, "← Before"),
        h("button", { type: "button", disabled: !page.next, onclick: () => turn(page.next) }, "After →"),
      ),
  ];
  return { title: "Locks", load, view };
}

/** Runs that wait for one another: nothing ends it but a person. */
const circle = (links) =>
  h(
    "section.panel.tone-bad.edge",
    { "aria-label": "A circle" },
    h("p", null, h("strong", null, "These runs wait for one another. "), "Cancel or terminate one of them."),
    h("ul.waits", null, links.map((link) => h("li", null, h("a", { href: runLink(link.run_id) }, short(link.run_id)), link.key ? h("span", null, "waits for the lock ", h("code", null, link.key), " of") : "waits for its child", h("a", { href: runLink(link.on) }, short(link.on))))),
  );

function lock({ key, fence, holder, waiting, waiters }) {
  const row = (place, index) =>
    h(
      "tr",
      { "data-key": place.run_id + place.path },
      h("td", null, index ? String(index) : h("span.tone-ok", null, "holds it")),
      h("td", null, status(place.status)),
      h("td", null, h("a.strong", { href: runLink(place.run_id), "data-row": true, title: place.workflow_id }, `${place.workflow}:${short(place.workflow_id)}`)),
      h("td", null, place.path ? h("code", null, place.path) : "whole run"),
      h("td", null, place.node),
      h("td", null, time(place.held_since ?? place.since)),
      h("td.number", null, lasted(place.held_since ?? place.since)),
    );
  const heads = ["Place", "Status", "Run", "For", "Node", "Since", { text: "For how long", class: "number" }];
  return h(
    "section.panel",
    { "data-key": key },
    h("h2", null, h("code", null, key), h("span.dim.beside", null, `fence ${fence}${waiting ? `, ${count(waiting)} waiting` : ""}`)),
    table(`Lock ${key}`, heads, [holder, ...waiters].map(row)),
    waiting > waiters.length && h("p.dim", null, `and ${count(waiting - waiters.length)} more`),
  );
}
