/* Plugins, the workflows that they bring, and a form that starts one. */

import * as api from "./api.js";
import { ask, say, who } from "./dialog.js";
import { h } from "./dom.js";
import { empty, facts, marked, panel, prose, table, title } from "./parts.js";
import { sample, shape } from "./schema.js";
import { startForm } from "./start.js";
import { count } from "./words.js";

export function plugins(place) {
  return place.id ? one(place) : all(place);
}

function all({ refresh }) {
  async function load(signal) {
    const [found, types] = await Promise.all([api.get("/plugins", {}, { signal }), api.workflows({ signal })]);
    return { found: found.items, types };
  }
  const view = ({ found, types }) => [
    title("Plugins", h("button", { type: "button", onclick: () => reload(refresh) }, "Load again")),
    panel("Workflows", workflows(types)),
    panel("Plugins", list(found)),
  ];
  return { title: "Plugins", load, view };
}

function workflows(types) {
  if (!types.length) return empty("None. `jivsd plugins new NAME` writes a plugin to begin with.");
  const row = (type) =>
    h(
      "tr",
      { "data-key": type.name },
      h("td", null, h("a.strong", { href: `#/plugins/${encodeURIComponent(type.name)}`, "data-row": true }, type.name)),
      h("td", null, type.plugin),
      h("td", null, h("span.clip.dim", { title: type.description }, marked(type.description.split("\n")[0]))),
      h("td", null, type.quarantined ? h("span.status.tone-bad", { title: type.quarantined }, "QUARANTINED") : ""),
    );
  return table("Workflows", ["Workflow", "Plugin", "What it does", { text: "Quarantine", hidden: true }], types.map(row));
}

function list(found) {
  if (!found.length) return empty("None.");
  const row = (plugin) =>
    h(
      "tr",
      { "data-key": plugin.name },
      h("td.strong", null, plugin.name),
      h("td", null, plugin.problem ? h("span.status.tone-bad", null, "DID NOT LOAD") : h("span.status.tone-ok", null, "LOADED")),
      h("td", null, h("span.clip", null, plugin.problem ?? plugin.workflows.join(", "))),
      h("td", null, h("code", { title: plugin.code_hash }, plugin.code_hash.slice(0, 12))),
    );
  return table("Plugins", ["Plugin", "State", "Workflows", "Code"], found.map(row));
}

async function reload(refresh) {
  const done = await ask({
    title: "Load all plugins again?",
    text: "New runs go by what is in the folders now; open runs stay on the code that they began with.",
    confirm: "Load again",
    send: () => api.post("/plugins/reload", {}),
  });
  if (!done) return;
  say("The plugins are loaded again");
  refresh();
}

function one({ id, refresh }) {
  async function load(signal) {
    const types = await api.workflows({ signal });
    const type = types.find((found) => found.name === id);
    if (!type) throw new api.Refusal(404, { detail: `there is no workflow ${id}` });
    return type;
  }
  const view = (type) => [
    h(
      "div.title.run",
      null,
      h("p.crumb", null, h("a", { href: "#/plugins" }, "Plugins"), ` / ${type.plugin}`),
      h("h1", null, type.name),
      h("p.under", null, type.quarantined && h("span.status.tone-bad", null, "QUARANTINED"), h("a", { href: `#/runs?workflow=${encodeURIComponent(type.name)}` }, "Its runs")),
    ),
    type.quarantined && h("section.panel.tone-bad.edge", { "aria-label": "Quarantine" }, h("p", null, type.quarantined)),
    type.description && h("div.description", null, prose(type.description)),
    h("div.columns", null, panel("Start a run", startForm(type.name, sample(type.input_schema))), panel("About", about(type), quarantine(type, refresh))),
    panel("Input", shape(type.input_schema)),
  ];
  return { title: id, load, view };
}

const names = (all) => (all.length ? all.map((name) => [h("code", null, name), " "]) : null);

const about = (type) =>
  facts([
    ["Signals", names(type.signals)], ["Updates", names(type.updates)], ["Queries", names(type.queries)],
    ["Lock key", type.lock_key && h("code", null, type.lock_key)], ["Timeout", type.timeout],
    ["Active runs", type.active_runs && `at most ${count(type.active_runs)}`],
    ["Running steps", type.running_steps && `at most ${count(type.running_steps)}`],
    ["Code", h("code", null, type.code_hash)],
  ]);

function quarantine(type, refresh) {
  const [path, name, text] = type.quarantined
    ? ["lift", "Lift the quarantine", "New starts are accepted again, and its open runs go on."]
    : ["quarantine", "Quarantine", "New starts are refused and its open runs rest, until somebody lifts it."];
  const act = async () => {
    const done = await ask({
      title: `${name}: ${type.name}?`, text, confirm: name, danger: !type.quarantined, fields: [{ name: "reason", label: "Why" }, who()],
      send: ({ reason }) => api.post(`/workflows/${encodeURIComponent(type.name)}/${path}`, { reason }),
    });
    if (!done) return;
    say(`${name}: done`);
    refresh();
  };
  return h("p", null, h("button", { type: "button", class: type.quarantined ? null : "danger", onclick: act }, name));
}
