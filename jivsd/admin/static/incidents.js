/* Incidents: what waits for a person to decide, alike ones together, and the ways out. */

import * as api from "./api.js";
import { ask, say, who } from "./dialog.js";
import { h } from "./dom.js";
import { empty, facts, json, panel, table, title } from "./parts.js";
import { count, plural, runLink, short, status, time } from "./words.js";

const WAYS = {
  acknowledge: { name: "Acknowledge", does: "Says that you look after it. It stays open." },
  retry: { name: "Retry", does: "What it holds is tried again." },
  resolve: { name: "Resolve", does: "You give the result of the step that it holds; the run goes on with it." },
  skip: { name: "Skip", does: "The run goes on without the result (null) of the step that it holds.", danger: true },
};
/** The kinds that hold a step, or a compensation: only for these can there be a value, or none. */
const HOLDING = new Set(["step", "compensation", "message"]);

export function incidents(place) {
  return place.id ? one(place) : all(place);
}

function all({ query, refresh }) {
  const cursors = [null];
  const group = query.get("group");
  const state = query.get("state") ?? "OPEN";

  async function load(signal) {
    const [groups, page] = await Promise.all([
      api.get("/incidents/groups", { state, limit: "100" }, { signal }),
      api.get("/incidents", { state, fingerprint: group, limit: "50", cursor: cursors.at(-1) }, { signal }),
    ]);
    return { groups: groups.items, page };
  }

  function turn(to) {
    if (to) cursors.push(to);
    else cursors.pop();
    refresh();
  }

  const view = ({ groups, page }) => [
    title("Incidents"),
    h("div.chips", { role: "group", "aria-label": "State" }, ["OPEN", "RESOLVED", "ALL"].map((word) => h("a.button.chip.plain", { href: `#/incidents?state=${word}`, "aria-current": word === state ? "true" : null }, word))),
    grouped(groups, group, state, refresh),
    panel(group ? "Incidents of this group" : "All, newest first", list(page)),
    (page.next || cursors.length > 1) &&
      h(
        "div.pager",
        null,
        h("button", { type: "button", disabled: cursors.length < 2, onclick: () => turn(null) }, "← Newer"),
        h("button", { type: "button", disabled: !page.next, onclick: () => turn(page.next) }, "Older →"),
      ),
  ];
  return { title: "Incidents", load, view };
}

function grouped(groups, chosen, state, refresh) {
  if (!groups.length) return panel("Groups", empty("None."));
  const row = (group) =>
    h(
      "tr",
      { "data-key": group.fingerprint, class: group.fingerprint === chosen ? "on" : null },
      h("td.number", null, count(group.count)),
      h("td", null, h("a.strong", { href: `#/incidents?state=${state}&group=${group.fingerprint}`, "data-row": true }, [group.workflow, group.path].filter(Boolean).join(" › ") || group.kind), h("p.dim.clip", { title: group.message }, group.message)),
      h("td.roomy", null, group.kind),
      h("td.number.roomy", null, group.acknowledged ? `${count(group.acknowledged)} of ${count(group.count)}` : "–"),
      h("td.roomy", null, time(group.first_at)), h("td", null, time(group.last_at)),
      h("td", null, state === "OPEN" && waysOut(group, (way) => decideGroup(group, way, refresh), `the group of ${group.workflow ?? group.kind}`)),
    );
  const heads = [{ text: "How many", class: "number" }, "What", { text: "Kind", class: "roomy" }, { text: "Looked after", class: "number roomy" }, { text: "First", class: "roomy" }, "Last", { text: "Decide about all", hidden: true }];
  return panel("Groups: alike incidents", table("Groups", heads, groups.map(row)));
}

const waysOut = (incident, decide, label, small = true) =>
  h(
    "div.actions",
    { class: small ? "small" : null, role: "group", "aria-label": `Decide about ${label}` },
    Object.entries(WAYS)
      .filter(([way]) => HOLDING.has(incident.kind) || way === "acknowledge" || way === "retry")
      .map(([way, { name, danger }]) => h("button", { type: "button", class: danger ? "danger" : null, onclick: () => decide(way) }, name)),
  );

function list(page) {
  if (!page.items.length) return empty("None.");
  const row = (incident) =>
    h(
      "tr",
      { "data-key": incident.incident_id },
      h("td", null, status(incident.state)),
      h("td", null, time(incident.at)),
      h("td", null, h("a.strong.clip", { href: `#/incidents/${incident.incident_id}`, "data-row": true, title: incident.message }, incident.message)),
      h("td.roomy", null, incident.workflow ?? "–"),
      h("td.roomy", null, incident.kind),
      h("td.roomy", null, incident.history.find((one) => one.what === "acknowledge")?.by ?? ""),
    );
  return table("Incidents", ["State", "At", "What it says", { text: "Workflow", class: "roomy" }, { text: "Kind", class: "roomy" }, { text: "Looked after by", class: "roomy" }], page.items.map(row));
}

function one({ id, refresh }) {
  const load = (signal) => api.get(`/incidents/${encodeURIComponent(id)}`, {}, { signal });
  const view = (incident) => [
    h(
      "div.title.run",
      null,
      h("p.crumb", null, h("a", { href: "#/incidents" }, "Incidents"), " / ", incident.kind),
      h("h1", null, incident.message),
      h("p.under", null, status(incident.state), h("span.dim", null, "since ", time(incident.at)), incident.resolved_at && h("span.dim", null, `${incident.resolution}, `, time(incident.resolved_at))),
    ),
    incident.state === "OPEN" && waysOut(incident, (way) => decide(incident, way, refresh), "this incident", false),
    h("div.columns", null, panel("What it is about", about(incident)), panel("What was done", history(incident.history))),
    Object.keys(incident.details).length > 0 && panel(null, json("Details", incident.details)),
  ];
  return { title: "Incident", load, view };
}

const about = (incident) =>
  facts([
    ["Run", incident.run_id && h("a", { href: runLink(incident.run_id) }, short(incident.run_id))],
    ["Workflow", incident.workflow],
    ["Path", incident.path && h("code", null, incident.path)],
    ["Kind", incident.kind],
    ["Alike ones", h("a", { href: `#/incidents?state=ALL&group=${incident.fingerprint}` }, incident.fingerprint)],
    ["Incident id", h("code.id", null, incident.incident_id)],
  ]);

function history(decisions) {
  if (!decisions.length) return empty("Nothing so far.");
  return h("ul.waits", null, decisions.map((one) => h("li", null, h("strong", null, one.what), h("span", null, one.by || "by itself"), time(one.at), one.why && h("span.dim", null, one.why))));
}

const fields = (way) => [
  ...(way === "resolve" ? [{ name: "value", label: "Result (JSON)", kind: "json", value: "null" }] : []),
  { name: "reason", label: "Why" },
  who(),
];

/** The body of a decision; the value as it was typed, so that no number loses digits. */
const bodyOf = ({ value, reason }) => {
  const why = JSON.stringify({ reason });
  return value === undefined ? why : `${why.slice(0, -1)}, "value": ${value}}`;
};

async function decide(incident, way, refresh) {
  const { name, does, danger } = WAYS[way];
  const now = await ask({
    title: `${name} this incident?`, text: does, danger, confirm: name, fields: fields(way),
    send: (values) => api.post(`/incidents/${incident.incident_id}/${way}`, undefined, { json: bodyOf(values) }),
  });
  if (!now) return;
  say(now.state === "RESOLVED" ? "The incident is resolved" : `Done: ${way}`);
  refresh();
}

async function decideGroup(group, way, refresh) {
  const { name, does, danger } = WAYS[way];
  const found = await ask({
    title: `${name} ${plural(group.count, "incident")}?`,
    text: `${does} This is done to all open incidents of the group.`,
    danger, confirm: `${name} all`, fields: fields(way),
    send: (values) => api.post(`/incidents/groups/${group.fingerprint}/${way}`, undefined, { json: bodyOf(values) }),
  });
  if (!found) return;
  say(`${name}: done for the group`);
  refresh();
}
