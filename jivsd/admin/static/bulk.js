/* One action on many runs: a few calls at a time, and a result for each. */

import * as api from "./api.js";
import { ACTIONS } from "./actions.js";
import { ask, who } from "./dialog.js";
import { h } from "./dom.js";
import { plural, runLink, short, status } from "./words.js";

const AT_ONCE = 6;

/** Ask whether it is meant, do it to every run, and show what became of each. */
export async function bulk(action, runs) {
  const { name, does, danger } = ACTIONS[action];
  const results = [];
  const done = await ask({
    title: `${name} ${plural(runs.length, "run")}?`,
    text: does,
    danger,
    confirm: `${name} ${plural(runs.length, "run")}`,
    fields: [{ name: "reason", label: "Why" }, who()],
    send: async ({ reason }) => {
      const waiting = [...runs];
      const work = async () => {
        for (let run = waiting.shift(); run; run = waiting.shift()) results.push(await one(run, action, reason));
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      return results;
    },
  });
  if (done) await report(name, results);
}

async function one(run, action, reason) {
  try {
    return { run, now: await api.act(run.run_id, action, reason) };
  } catch (error) {
    return { run, problem: error.message };
  }
}

function report(name, results) {
  const failed = results.filter((one) => one.problem).length;
  const line = ({ run, now, problem }) =>
    h(
      "tr",
      null,
      h("td", null, h("a", { href: runLink((now ?? run).run_id) }, `${run.workflow}:${short(run.workflow_id)}`)),
      h("td", null, problem ? h("span.tone-bad", null, problem) : status(now.status, now.paused)),
    );
  return ask({
    title: `${name}: ${plural(results.length - failed, "run")} done${failed ? `, ${failed} refused` : ""}`,
    body: h("div.scroll.results", { tabindex: "0", role: "region", "aria-label": "Results" }, h("table", null, h("tbody", null, results.map(line)))),
    confirm: "Close",
    putAside: false,
  });
}
