/* The overview: what runs, how fast, and what is wrong. */

import * as api from "./api.js";
import { h, s } from "./dom.js";
import { nodeTable } from "./nodes.js";
import { empty, meter, panel, table, title } from "./parts.js";
import { STATUSES, ENDED, count, lasted, plural, rate, status, time, tone } from "./words.js";

const SAMPLES = 60;
/** How many runs there are and how many have ended, every time that we looked; kept while one looks elsewhere. */
let samples = [];
/** Statistics of the last hour, which are not counted every time that we look. */
let hour = { at: -Infinity, items: [] };
const HOUR_AGAIN = 15_000;

export function overview() {
  async function load(signal) {
    const [state, groups, nodes, statistics] = await Promise.all([
      api.status({ signal }),
      api.get("/incidents/groups", { limit: "8" }, { signal }),
      api.get("/nodes", {}, { signal }),
      lastHour(signal),
    ]);
    remember(state);
    return { state, groups: groups.items, nodes: nodes.items, statistics };
  }

  const view = ({ state, groups, nodes, statistics }) => [
    title("Overview"),
    state.store_away && h("p.problem", { role: "alert" }, `The journal cannot be written to: ${state.store_away}`),
    tiles(state),
    h("div.columns", null, statuses(state.runs), incidents(groups, state.incidents)),
    workflows(statistics),
    h("div.columns", null, limits(state.limits), daemon(state)),
    nodes.length > 1 && nodeTable(nodes),
    h("div.columns", null, plugins(state.plugins), children(state.children)),
  ];
  return { title: "Overview", load, view };
}

async function lastHour(signal) {
  if (performance.now() - hour.at > HOUR_AGAIN) {
    hour = { at: performance.now(), items: (await api.get("/statistics", { since: "1h" }, { signal })).items };
  }
  return hour.items;
}

/** What has become of each workflow's runs in the last hour. */
function workflows(items) {
  const total = (counts) => Object.values(counts).reduce((sum, number) => sum + number, 0);
  const brief = (text) => (text ? text.match(/^(?:[\d.]+[a-z]+){1,2}/)[0] : "–");
  const row = (one) =>
    h(
      "tr",
      { "data-key": one.workflow },
      h("td", null, h("a.strong", { href: `#/runs?workflow=${encodeURIComponent(one.workflow)}`, "data-row": true }, one.workflow)),
      h("td.number", null, count(one.started)),
      h("td.number", null, count(total(one.ended))),
      h("td.number", null, one.failure_rate ? h("span.tone-bad", null, `${(one.failure_rate * 100).toFixed(1)} %`) : one.failure_rate === null ? "–" : "0 %"),
      h("td.number", null, count(total(one.open))),
      h("td.number", null, brief(one.durations?.p50)),
      h("td.number", null, brief(one.durations?.p95)),
      h("td.number", null, brief(one.durations?.p99)),
    );
  if (!items.length) return panel("Workflows in the last hour", empty("No runs yet."));
  const heads = ["Started", "Ended", "Failed", "Open", "p50", "p95", "p99"].map((text) => ({ text, class: "number" }));
  return panel("Workflows in the last hour", table("Workflows in the last hour", ["Workflow", ...heads], items.map(row)));
}

function remember(state) {
  const all = Object.values(state.runs).reduce((sum, number) => sum + number, 0);
  const ended = Object.entries(state.runs).reduce((sum, [word, number]) => sum + (ENDED.has(word) ? number : 0), 0);
  const at = performance.now();
  const since = state.started_at;
  if (samples.at(-1)?.since !== since) samples = [];
  samples = [...samples, { at, all, ended, since }].slice(-SAMPLES - 1);
}

/** Runs a second between neighbouring samples. Old runs that are removed meanwhile do not count as anything. */
const rates = (what) =>
  samples.slice(1).map((one, index) => {
    const before = samples[index];
    return Math.max(0, ((one[what] - before[what]) * 1000) / (one.at - before.at));
  });

function tiles(state) {
  const open = Object.entries(state.runs).reduce((sum, [word, number]) => sum + (ENDED.has(word) ? 0 : number), 0);
  return h(
    "div.tiles",
    null,
    tile("Open runs", count(open), `${plural(state.actors, "run")} in memory`, null, "#/runs?open=1"),
    state.paused > 0 && tile("Paused runs", count(state.paused), "somebody has to resume them", "warn", "#/runs?paused=1"),
    flow("Started per second", rates("all")),
    flow("Ended per second", rates("ended")),
    tile("Steps running", count(state.steps_running), `${plural(state.journal_pending, "entry", "entries")} to be committed`),
    tile("Open incidents", count(state.incidents), state.incidents ? "somebody has to decide" : "nothing to decide", state.incidents ? "bad" : "ok", "#/incidents"),
  );
}

function tile(name, value, below, look, href) {
  const inside = [h("span.name", null, name), h("strong", { class: look ? `tone-${look}` : "" }, value), h("span.dim", null, below)];
  return href ? h("a.tile", { href }, inside) : h("div.tile", null, inside);
}

function flow(name, values) {
  const now = values.slice(-3);
  const value = now.length ? rate(now.reduce((sum, one) => sum + one, 0) / now.length) : "–";
  return h("div.tile", null, h("span.name", null, name), h("strong", null, value), line(values));
}

/** A small line of the last two minutes, newest at the right. */
function line(values) {
  const top = Math.max(...values, 1e-9);
  const step = 120 / (SAMPLES - 1);
  const first = SAMPLES - values.length;
  const points = values.map((value, index) => `${((first + index) * step).toFixed(1)},${(27 - (24 * value) / top).toFixed(1)}`);
  const label = `the last ${values.length * 2} seconds; at most ${rate(Math.max(...values, 0))}`;
  return s(
    "svg.line",
    { viewBox: "0 0 120 28", preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("path.base", { d: "M0 27.5H120" }),
    points.length > 1 && s("polyline", { points: points.join(" ") }),
  );
}

function statuses(counts) {
  const present = STATUSES.filter((word) => counts[word]);
  const all = present.reduce((sum, word) => sum + counts[word], 0);
  if (!all) return panel("Runs by status", empty("There are no runs yet. Start one on the page of plugins."));
  const row = (word) =>
    h(
      "li",
      null,
      h("a", { href: `#/runs?status=${word}`, "data-row": true }, status(word)),
      meter(word, counts[word], all, `tone-${tone(word)}`),
      h("span.number", null, count(counts[word])),
    );
  return panel("Runs by status", h("ul.shares", null, present.map(row)));
}

function incidents(groups, all) {
  const row = (group) =>
    h(
      "tr",
      { "data-key": group.fingerprint },
      h("td.number", null, count(group.count)),
      h("td", null, h("a.strong", { href: `#/incidents?group=${group.fingerprint}`, "data-row": true }, group.workflow ?? group.kind), h("p.dim.clip", null, group.message)),
      h("td.number", null, time(group.last_at)),
    );
  if (!groups.length) return panel("Open incidents", empty("None. Nothing waits for a person to decide."));
  const heads = [{ text: "How many", class: "number" }, "What", { text: "Last", class: "number" }];
  return panel(`Open incidents (${count(all)})`, table("Open incidents", heads, groups.map(row)));
}

function limits(all) {
  const names = { active_runs: "Active runs", running_steps: "Running steps" };
  const row = (limit) => {
    const name = `${names[limit.what] ?? limit.what}${limit.workflow ? ` of ${limit.workflow}` : ""}`;
    const full = limit.used / limit.limit > 0.85;
    return h(
      "tr",
      { "data-key": name },
      h("td", null, name),
      h("td.wide", null, meter(name, limit.used, limit.limit, full ? "tone-warn" : "tone-run")),
      h("td.number", null, `${count(limit.used)} of ${count(limit.limit)}`),
      h("td.number", null, limit.waiting ? h("span.tone-warn", null, count(limit.waiting)) : "0"),
    );
  };
  const heads = ["Limit", "Use", { text: "Used", class: "number" }, { text: "Waiting", class: "number" }];
  return panel("Limits", table("Limits", heads, all.map(row)));
}

const daemon = (state) =>
  panel(
    "Daemon",
    h(
      "dl.facts",
      null,
      [
        ["Node", state.node], ["Version", state.version], ["Journal", h("code", null, state.store)],
        ["Started", time(state.started_at)], ["Up", lasted(state.started_at)],
      ].map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
    ),
  );

function plugins(all) {
  const row = (plugin) =>
    h(
      "tr",
      { "data-key": plugin.name },
      h("td", null, h("a.strong", { href: "#/plugins" }, plugin.name)),
      h("td", null, plugin.problem ? h("span.tone-bad", null, plugin.problem) : plugin.workflows.join(", ") || "–"),
      h("td", null, h("code", { title: plugin.code_hash }, plugin.code_hash.slice(0, 8))),
    );
  if (!all.length) return panel("Plugins", empty("No plugins. `jivsd plugins new NAME` writes one to begin with."));
  return panel("Plugins", table("Plugins", ["Plugin", "Workflows", "Code"], all.map(row)));
}

function children(all) {
  const row = (child) =>
    h(
      "tr",
      { "data-key": child.name },
      h("td", null, child.name),
      h("td", null, child.state),
      h("td.number", null, child.restarts ? h("span.tone-warn", null, count(child.restarts)) : "0"),
    );
  return panel("Parts of the daemon", table("Parts of the daemon", ["Part", "State", { text: "Restarts", class: "number" }], all.map(row)));
}
