/* The list of runs: filters in the address, pages by cursor, and actions on those that are selected. */

import * as api from "./api.js";
import { bulk, bulkAll } from "./bulk.js";
import { say } from "./dialog.js";
import { h } from "./dom.js";
import { empty, panel, table, title } from "./parts.js";
import { STATUSES, lasted, plural, runLink, short, status, time, tone } from "./words.js";

const FIELDS = ["workflow", "id", "status", "attribute", "open", "paused", "created_after", "created_before", "ended_after", "ended_before", "parent"];
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export function runs({ query, redraw, refresh }) {
  const cursors = [null];
  const selected = new Map();
  let names = [];

  async function load(signal) {
    if (!names.length) names = (await api.workflows({ signal })).map((one) => one.name).sort();
    return api.runs({ ...where(query), limit: "50", cursor: cursors.at(-1) }, { signal });
  }

  function turn(to) {
    if (to) cursors.push(to);
    else cursors.pop();
    refresh();
  }

  function select(run, on) {
    if (on) selected.set(run.run_id, run);
    else selected.delete(run.run_id);
    redraw();
  }

  const view = (page) => [
    title("Runs", h("a.button.primary", { href: "#/plugins" }, "Start a run")),
    searching(query),
    filters(query, names),
    selected.size > 0 && selection(selected, redraw, refresh),
    listing(page, selected, select, redraw),
    page.items.length > 0 && everyone(where(query), refresh),
    h(
      "div.pager",
      null,
      h("button", { type: "button", disabled: cursors.length < 2, onclick: () => turn(null) }, "← Newer"),
      h("span.dim", null, `page ${cursors.length}`),
      h("button", { type: "button", disabled: !page.next, onclick: () => turn(page.next) }, "Older →"),
    ),
  ];
  return { title: "Runs", load, view };
}

/** The filters of the address, as the API takes them. */
function where(query) {
  const found = {};
  for (const name of FIELDS) {
    const values = query.getAll(name).filter(Boolean);
    if (values.length) found[name] = name === "status" || name === "attribute" ? values : values[0];
  }
  for (const name of ["open", "paused"]) if (found[name]) found[name] = "true";
  for (const name of Object.keys(found)) if (/_(after|before)$/.test(name)) found[name] = instant(found[name]);
  return found;
}

/** A local time of a form field, with its zone. */
const instant = (text) => (Number.isNaN(Date.parse(text)) ? text : new Date(text).toISOString());

function go(query) {
  const text = query.toString();
  location.hash = text ? `#/runs?${text}` : "#/runs";
}

function searching(query) {
  async function search(event) {
    event.preventDefault();
    const text = new FormData(event.target).get("search").trim();
    if (!text) return;
    if (UUID.test(text) || text.includes(":")) {
      try {
        const found = await api.run(text);
        location.hash = runLink(found.run_id);
      } catch (error) {
        say(error.message, { bad: true });
      }
      return;
    }
    go(new URLSearchParams({ id: text }));
  }
  const label = "Search by run id, workflow:id or workflow id";
  return h(
    "form.search",
    { role: "search", onsubmit: search },
    h("input", {
      type: "search", name: "search", "aria-label": label, placeholder: label, "data-search": true,
      spellcheck: "false", autocomplete: "off", autofocus: query.has("search"),
    }),
    h("button", { type: "submit" }, "Search"),
  );
}

function filters(query, names) {
  const chosen = new Set(query.getAll("status"));
  const flip = (word) => () => {
    const next = new URLSearchParams(query);
    next.delete("status");
    for (const one of STATUSES) if (chosen.has(one) !== (one === word)) next.append("status", one);
    go(next);
  };
  const chip = (word) =>
    h("button.chip", { type: "button", "aria-pressed": String(chosen.has(word)), class: `tone-${tone(word)}`, onclick: flip(word) }, word);
  const active = [...query.keys()].some((name) => name !== "search");
  return h(
    "div.filters",
    null,
    h("div.chips", { role: "group", "aria-label": "Status" }, only(query, "open", "not ended"), only(query, "paused", "paused"), STATUSES.map(chip)),
    more(query, names),
    active && h("a.quiet", { href: "#/runs" }, "Clear all filters"),
  );
}

function only(query, name, words) {
  const on = query.has(name);
  const flip = () => {
    const next = new URLSearchParams(query);
    if (on) next.delete(name);
    else next.set(name, "1");
    go(next);
  };
  return h("button.chip.plain", { type: "button", "aria-pressed": String(on), onclick: flip }, words);
}

/** The filters that are needed less often. */
function more(query, names) {
  const fields = ["workflow", "id", "attribute", "created_after", "created_before", "ended_after", "ended_before"];
  function apply(event) {
    event.preventDefault();
    const next = new URLSearchParams(query);
    for (const name of fields) {
      const value = String(new FormData(event.currentTarget).get(name) ?? "").trim();
      if (value) next.set(name, value);
      else next.delete(name);
    }
    go(next);
  }
  const field = (name, label, options = {}) =>
    h("label", null, h("span", null, label), h("input", { name, value: query.get(name) ?? "", autocomplete: "off", ...options }));
  const choices = ["", ...names].map((name) => h("option", { value: name, selected: name === (query.get("workflow") ?? "") }, name || "any"));
  return h(
    "details.more",
    { open: fields.some((name) => query.has(name)) },
    h("summary", null, "More filters"),
    h(
      "form.grid",
      { onsubmit: apply },
      h("label", null, h("span", null, "Workflow"), h("select", { name: "workflow" }, choices)),
      field("id", "Workflow id"),
      field("attribute", "Attribute", { placeholder: "region=eu" }),
      field("created_after", "Created after", { type: "datetime-local" }),
      field("created_before", "Created before", { type: "datetime-local" }),
      field("ended_after", "Ended after", { type: "datetime-local" }),
      field("ended_before", "Ended before", { type: "datetime-local" }),
      h("button", { type: "submit" }, "Apply"),
    ),
  );
}

function listing(page, selected, select, redraw) {
  if (!page.items.length) return panel(null, empty("No run fits."));
  const all = page.items.every((run) => selected.has(run.run_id));
  const every = () => {
    for (const run of page.items) if (all) selected.delete(run.run_id);
      else selected.set(run.run_id, run);
    redraw();
  };
  const box = h("input", { type: "checkbox", checked: all, "aria-label": "Select all on this page", onclick: every });
  const tagged = page.items.some((run) => Object.keys(run.attributes).length);
  const heads = [{ text: box, class: "tick" }, "Status", { text: "Workflow", class: "roomy" }, "Workflow id", tagged && "Attributes", "Created", { text: "Took", class: "number" }];
  return table("Runs", heads.filter(Boolean), page.items.map((run) => line(run, selected, select, tagged)), { key: "runs" });
}

function line(run, selected, select, tagged) {
  const on = selected.has(run.run_id);
  const label = `Select ${run.workflow}:${run.workflow_id}`;
  return h(
    "tr",
    { "data-key": run.run_id, class: on ? "on" : null },
    h("td.tick", null, h("input", { type: "checkbox", checked: on, "aria-label": label, onclick: () => select(run, !on) })),
    h("td", null, status(run.status, run.paused)),
    h("td.roomy", null, run.workflow),
    h("td", null, h("span.dim.narrow", null, run.workflow), h("a.strong", { href: runLink(run.run_id), "data-row": true, title: run.workflow_id }, short(run.workflow_id))),
    tagged && h("td", null, h("span.tags", null, Object.entries(run.attributes).map(([name, value]) => h("span.tag", null, `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`)))),
    h("td", null, time(run.created_at)),
    h("td.number", null, lasted(run.started_at ?? run.created_at, run.ended_at)),
  );
}

const BUTTONS = [["pause", "Pause"], ["resume", "Resume"], ["retry", "Retry"], ["cancel", "Cancel"], ["terminate", "Terminate"]];

/** What can be done to all runs that fit, those of other pages too. */
function everyone(found, refresh) {
  const { open, paused, status: statuses, attribute, ...rest } = found;
  const attributes = Object.fromEntries((attribute ?? []).map((one) => one.split(/=(.*)/s).slice(0, 2)));
  const filter = { ...rest, attributes, status: statuses ?? [], open: Boolean(open), ...(paused && { paused: true }) };
  const doing = (action) => async () => {
    try {
      await bulkAll(action, filter);
      refresh();
    } catch (error) {
      say(error.message, { bad: true });
    }
  };
  return h(
    "details.more",
    null,
    h("summary", null, "Act on all that fit"),
    h("div.buttons", { role: "group", "aria-label": "All that fit" }, BUTTONS.map(([action, name]) => h("button", { type: "button", onclick: doing(action) }, `${name} all`))),
  );
}

function selection(selected, redraw, refresh) {
  const clear = () => {
    selected.clear();
    redraw();
  };
  const doing = (action) => async () => {
    await bulk(action, [...selected.values()]);
    selected.clear();
    refresh();
  };
  const button = ([action, name]) => h("button", { type: "button", onclick: doing(action) }, name);
  return h(
    "div.selection",
    { role: "group", "aria-label": "Selected runs" },
    h("strong", null, `${plural(selected.size, "run")} selected`),
    BUTTONS.map(button),
    h("button.quiet", { type: "button", onclick: clear }, "Select none"),
  );
}
