/* Migrations: the runs of the migration plugin, with how far each is. */

import * as api from "./api.js";
import { h } from "./dom.js";
import { empty, meter, panel, title } from "./parts.js";
import { ENDED, count, duration, lasted, runLink, short, status, time } from "./words.js";

const SHOWN = 20;

export function migrations() {
  const known = new Map();

  async function load(signal) {
    const page = await api.runs({ workflow: "migration", limit: String(SHOWN) }, { signal });
    return Promise.all(page.items.map((run) => look(run, signal)));
  }

  /** A run with its progress; that of an ended one is asked for once. */
  async function look(run, signal) {
    if (known.has(run.run_id)) return known.get(run.run_id);
    const options = { signal };
    const [whole, said] = await Promise.all([
      api.run(run.run_id, options),
      api.queryRun(run.run_id, "progress", options).catch(() => null),
    ]);
    const found = { run: whole, progress: said?.value ?? null };
    if (ENDED.has(run.status)) known.set(run.run_id, found);
    return found;
  }

  const view = (all) => [
    title("Migrations", h("a.button.primary", { href: "#/plugins/migration" }, "Start a migration")),
    all.length ? all.map(card) : panel(null, empty("There are no migrations yet.")),
    all.length === SHOWN && h("p", null, h("a", { href: "#/runs?workflow=migration" }, "All migrations")),
  ];
  return { title: "Migrations", load, view };
}

/** An end of a migration: the name of a connection, or a system and its URL. */
const place = (end) => (typeof end === "string" ? end : end?.url ?? end?.system ?? "");

function card({ run, progress }) {
  const { source, target, name } = run.input ?? {};
  return h(
    "section.panel.migration",
    { "data-key": run.run_id },
    h(
      "h2",
      null,
      h("a", { href: runLink(run.run_id), "data-row": true }, name ?? short(run.workflow_id)),
      status(run.status, run.paused),
      h("span.dim", null, time(run.created_at), ` · ${lasted(run.started_at ?? run.created_at, run.ended_at)}`),
    ),
    h("p.route", null, h("code", null, place(source)), " → ", h("code", null, place(target))),
    run.error && h("p.problem", null, run.error.message),
    progress && bar(run, progress),
    progress?.tables?.length > 0 && !ENDED.has(run.status) && tables(progress.tables),
  );
}

function bar(run, progress) {
  const ended = ENDED.has(run.status);
  const rates = progress.rate ? `${count(Math.round(progress.rate))} ${progress.unit}/s, ${count(Math.round(progress.bytes_per_s / 1e3))} kB/s` : "";
  const parts = [
    progress.phase, `${count(progress.rows)} of ${count(progress.total_rows)} rows`, !ended && progress.detail, !ended && rates,
    !ended && progress.remaining_s ? `${duration(progress.remaining_s * 1000)} left` : "",
  ];
  return h(
    "div.whole",
    null,
    meter(`Progress of ${run.workflow_id}`, progress.percent, 100, ended ? (run.status === "COMPLETED" ? "tone-ok" : "tone-bad") : "tone-run"),
    h("strong", null, `${progress.percent} %`),
    h("p.dim", null, parts.filter(Boolean).join(" · ")),
  );
}

const tables = (all) =>
  h(
    "details",
    null,
    h("summary", null, `${count(all.length)} tables`),
    h("ul.shares.progress", null, all.slice(0, 200).map((one) => h("li", { "data-key": one.table }, h("span.name", { title: one.table }, one.table), meter(one.table, one.rows, one.total, "tone-run"), h("span.number", null, `${count(one.rows)} of ${count(one.total)}`)))),
  );
