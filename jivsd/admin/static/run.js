/* One run: how it stands, its picture, what it waits for, its values, its events, and what can be done about it. */

import * as api from "./api.js";
import { ACTIONS, act, fitting, signal } from "./actions.js";
import { h } from "./dom.js";
import { facts, json, meter, panel, table } from "./parts.js";
import { picture } from "./picture.js";
import { outline } from "./timeline.js";
import { ENDED, count, duration, lasted, pretty, runLink, short, status, time, tone } from "./words.js";

const PAGES = 8;
const SHOWN = 60;

export function run({ id, redraw, refresh }) {
  const drawn = { chosen: null, all: false, events: SHOWN };
  const events = [];
  let last = 0;
  let complete = true;
  let types = null;
  let settled = null;

  async function load(signal) {
    if (settled) return settled;
    const options = { signal };
    types ??= await api.workflows(options);
    const run = await api.run(id, options);
    const ref = run.run_id;
    const type = types.find((one) => one.name === run.workflow);
    const ended = ENDED.has(run.status);
    const [waits, children, incidents, said] = await Promise.all([
      ended ? [] : api.why(ref, options).then((found) => found.waits),
      api.runs({ parent: ref, limit: "20" }, options),
      api.get("/incidents", { run: ref, limit: "20" }, options),
      ended || !type?.queries.includes("progress") ? null : api.queryRun(ref, "progress", options).catch(() => null),
      more(ref, options),
    ]);
    const found = { run, type, waits, children, incidents: incidents.items, progress: said?.value };
    if (ended && complete && !incidents.items.length) settled = found;
    return found;
  }

  /** The events that are new since the last time. */
  async function more(ref, options) {
    for (let page = 0; page < PAGES; page++) {
      const { items, next } = await api.timeline(ref, last, options);
      for (const event of items) if (event.seq > last) events.push(event), (last = event.seq);
      complete = next === null || next === undefined;
      if (complete) return;
    }
  }

  const view = (data) => {
    const { run, type, waits, children, incidents, progress } = data;
    const width = document.getElementById("main").clientWidth - (window.innerWidth < 640 ? 58 : 90);
    return [
      head(run),
      buttons(run, type, refresh),
      incidents.length > 0 && troubles(incidents),
      run.error && failure(run.error),
      bars(run.progress ?? [], progress),
      panel("Timeline", picture(outline(run, events, waits, Date.now()), width, drawn, redraw), !complete && h("p.dim", null, `The first ${count(events.length)} events; more are being loaded.`)),
      waiting(waits),
      h("div.columns", null, values(run), about(run)),
      children.items.length > 0 && family(children),
      list(events, drawn, redraw),
    ];
  };
  return { title: "Run", load, view };
}

const head = (run) =>
  h(
    "div.title.run",
    null,
    h("p.crumb", null, h("a", { href: "#/runs" }, "Runs"), " / ", h("a", { href: `#/runs?workflow=${encodeURIComponent(run.workflow)}` }, run.workflow)),
    h("h1", null, run.workflow, h("span.dim", null, ":"), h("span.id", null, run.workflow_id)),
    h(
      "p.under",
      null,
      status(run.status, run.paused),
      h("span", null, ENDED.has(run.status) ? "took " : "for ", lasted(run.started_at ?? run.created_at, run.ended_at)),
      h("span.dim", null, "created ", time(run.created_at)),
      run.ended_at && h("span.dim", null, "ended ", time(run.ended_at)),
      run.wake_at && h("span.dim", null, "wakes ", time(run.wake_at)),
    ),
  );

function buttons(run, type, refresh) {
  const open = !ENDED.has(run.status);
  const one = (action) =>
    h("button", { type: "button", class: ACTIONS[action].danger ? "danger" : null, onclick: () => act(run, action, refresh) }, ACTIONS[action].name);
  const actions = fitting(run);
  if (!actions.length) return null;
  return h(
    "div.actions",
    { role: "group", "aria-label": "Actions" },
    open && (!type || type.signals.length > 0) && h("button.primary", { type: "button", onclick: () => signal(run, type?.signals ?? [], refresh) }, "Signal"),
    actions.map(one),
  );
}

const troubles = (incidents) =>
  h(
    "section.panel.tone-bad.edge",
    { "aria-label": "Open incidents" },
    incidents.map((incident) =>
      h("p", { "data-key": incident.incident_id }, h("strong", null, "An incident holds this run. "), incident.message, " ", h("a", { href: `#/incidents/${incident.incident_id}` }, "Decide it")),
    ),
  );

const failure = (error) =>
  h(
    "section.panel.tone-bad.edge",
    { "aria-label": "Error" },
    h("p", null, h("strong", null, error.type), h("span", null, `: ${error.message}`)),
    (error.causes ?? []).map((cause) => h("p.dim", null, `${cause.type}: ${cause.message}`)),
    error.data && Object.keys(error.data).length > 0 && h("pre.code", { tabindex: "0", "aria-label": "Details of the error" }, pretty(error.data)),
  );

/** How far the steps say that they are, and the run as a whole if its code answers the query `progress`. */
function bars(steps, whole) {
  const rows = steps.map((step) => ({
    name: step.path, done: step.done ?? 0, total: step.total ?? 0,
    text: step.done === null ? "at work" : `${count(step.done)}${step.total ? ` of ${count(step.total)}` : ""}`,
  }));
  if (whole && typeof whole.done === "number") {
    const left = whole.remaining_s ? `, ${duration(whole.remaining_s * 1000)} left` : "";
    rows.unshift({ name: whole.phase ?? "progress", done: whole.done, total: whole.total, text: `${count(whole.done)} of ${count(whole.total)} ${whole.unit ?? ""}${left}` });
  }
  if (!rows.length) return null;
  return panel("Progress", h("ul.shares.progress", null, rows.map((row) => h("li", { "data-key": row.name }, h("span.name", { title: row.name }, row.name), meter(row.name, row.done, row.total, "tone-run"), h("span.number", null, row.text)))));
}

function waiting(waits) {
  if (!waits.length) return null;
  const line = (wait) =>
    h(
      "li",
      { "data-key": `${wait.path} ${wait.kind}` },
      h("span", null, wait.what),
      wait.path && h("code.dim", null, wait.path),
      wait.until && h("span.dim", null, "until ", time(wait.until)),
      wait.behind.length > 0 && h("span.dim", null, "behind ", wait.behind.slice(0, 5).map((ahead) => [h("a", { href: runLink(ahead) }, short(ahead)), " "])),
      wait.error && h("span.tone-bad", null, wait.error),
    );
  return panel("It waits for", h("ul.waits", null, waits.map(line)));
}

const values = (run) =>
  panel("Values", json("Input", run.input ?? null), run.output !== undefined ? json("Output", run.output) : h("div.value", null, h("h3", null, "Output"), h("p.empty", null, ENDED.has(run.status) ? "None." : "None so far.")));

const about = (run) =>
  panel(
    "About",
    facts([
      ["Run id", h("code.id", null, run.run_id)],
      ["Attributes", Object.keys(run.attributes).length ? h("code", null, JSON.stringify(run.attributes)) : null],
      ["Started", run.started_at && time(run.started_at)],
      ["Begins at", run.start_at && time(run.start_at)],
      ["Timeout", run.timeout], ["Lock key", run.lock_key && h("code", null, run.lock_key)], ["Lock wait", run.lock_wait],
      ["Priority", run.priority || null], ["Correlation id", run.correlation_id],
      ["Parent", run.parent && h("a", { href: runLink(run.parent) }, `${run.parent_workflow ?? ""}:${short(run.parent_workflow_id ?? run.parent)}`)],
      ["Continues", run.chain && run.chain !== run.run_id && h("a", { href: runLink(run.chain) }, short(run.chain))],
      ["Code", h("code", { title: run.code_hash }, run.code_hash.slice(0, 12))],
    ]),
  );

const family = (children) =>
  panel(
    children.next ? "Child runs (the newest)" : "Child runs",
    table(
      "Child runs",
      ["Status", "Workflow", "Workflow id", "Created", { text: "Took", class: "number" }],
      children.items.map((child) =>
        h(
          "tr",
          { "data-key": child.run_id },
          h("td", null, status(child.status, child.paused)), h("td", null, child.workflow),
          h("td", null, h("a.strong", { href: runLink(child.run_id), "data-row": true }, short(child.workflow_id))),
          h("td", null, time(child.created_at)), h("td.number", null, lasted(child.started_at ?? child.created_at, child.ended_at)),
        ),
      ),
    ),
  );

const LOOKS = { StepFailed: "bad", AttemptFailed: "warn", CancelRequested: "warn", Paused: "warn" };

function list(events, drawn, redraw) {
  const row = (event) => {
    const look = LOOKS[event.kind] ?? (event.kind === "Ended" ? tone(event.payload.status) : "");
    return h(
      "tr",
      { "data-key": String(event.seq) },
      h("td.number", null, event.seq), h("td", null, time(event.at)),
      h("td", null, h("span", { class: look ? `tone-${look}` : null }, event.kind)),
      h("td", null, h("code", null, event.path || "–")),
      h("td.number", null, event.attempt || ""), h("td", null, event.by),
      h("td.wide", null, h("code.clip", { title: JSON.stringify(event.payload) }, brief(event.payload))),
    );
  };
  const heads = [{ text: "Seq", class: "number" }, "At", "Event", "Path", { text: "Attempt", class: "number" }, "By", "What it says"];
  const more = () => {
    drawn.events += 1000;
    redraw();
  };
  return panel(
    `Events (${count(events.length)})`,
    events.length > drawn.events && h("p", null, h("button", { type: "button", onclick: more }, `Show ${count(Math.min(1000, events.length - drawn.events))} earlier ones`)),
    table("Events", heads, events.slice(-drawn.events).map(row)),
  );
}

/** A payload without what only the engine reads. */
function brief(payload) {
  const { args_hash: _, seed: __, code_hash: ___, ...rest } = payload ?? {};
  const text = JSON.stringify(rest);
  return text === "{}" ? "" : text.slice(0, 200);
}
