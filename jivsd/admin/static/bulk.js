/* One action on many runs: those that were ticked, or all that a filter lists; and a result for each. */

import * as api from "./api.js";
import { ACTIONS } from "./actions.js";
import { ask, who } from "./dialog.js";
import { h } from "./dom.js";
import { plural, runLink, short, status } from "./words.js";

const PAGE = 500;
const SHOWN = 200;
const COUNTED = 2_000;

/** Do it to the runs that were ticked. */
export const bulk = (action, runs) =>
  meant(action, plural(runs.length, "run"), (reason) => named(action, runs, reason));

/** Do it to all runs of a filter to which it can be done; first it is counted how many those are. */
export async function bulkAll(action, filter) {
  const found = await api.actions({ action, filter, limit: 1, dry_run: true });
  const count = found.items.length + found.left;
  const runs = count > COUNTED ? `more than ${COUNTED.toLocaleString("en")} runs` : plural(count, "run");
  return meant(action, runs, (reason) => listed(action, filter, reason));
}

/** Ask whether it is meant, do it, and show what became of each. */
async function meant(action, runs, act) {
  const { name, does, danger } = ACTIONS[action];
  const results = await ask({
    title: `${name} ${runs}?`,
    text: does,
    danger,
    confirm: `${name} ${runs}`,
    fields: [{ name: "reason", label: "Why" }, who()],
    send: ({ reason }) => act(reason),
  });
  if (results) await report(name, results);
}

/** Runs whose turn did not come in the time of one call are sent again. */
async function named(action, runs, reason) {
  const results = [];
  let left = runs.map((run) => run.run_id);
  while (left.length) {
    const page = await api.actions({ action, reason, runs: left.slice(0, PAGE) });
    const reached = page.items.filter((one) => one.result !== "left");
    results.push(...reached);
    left = left.slice(reached.length);
  }
  return results;
}

async function listed(action, filter, reason) {
  const results = [];
  let cursor = null;
  do {
    const page = await api.actions({ action, reason, filter, limit: PAGE, cursor });
    results.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return results;
}

function report(name, results) {
  const refused = results.filter((one) => one.result === "refused");
  const done = results.filter((one) => one.result !== "refused");
  const line = (one) =>
    h(
      "tr",
      null,
      h("td", null, h("a", { href: runLink(one.run_id ?? one.ref) }, one.workflow ? `${one.workflow}:${short(one.workflow_id)}` : one.ref)),
      h("td", null, one.why ? h("span.tone-bad", null, one.why) : status(one.status, one.paused)),
    );
  const shown = [...refused, ...done].slice(0, SHOWN);
  return ask({
    title: `${name}: ${plural(done.length, "run")} done${refused.length ? `, ${refused.length} refused` : ""}`,
    text: shown.length < results.length ? `These are the first ${SHOWN}; those that were refused come first.` : "",
    body: h("div.scroll.results", { tabindex: "0", role: "region", "aria-label": "Results" }, h("table", null, h("tbody", null, shown.map(line)))),
    confirm: "Close",
    putAside: false,
  });
}
