/* What people do to one run: each act says what it does and asks before it is done. */

import * as api from "./api.js";
import { ask, say, who } from "./dialog.js";
import { ENDED, runLink } from "./words.js";

export const ACTIONS = {
  pause: { name: "Pause", does: "Steps that run now end; nothing more starts until somebody resumes it." },
  resume: { name: "Resume", does: "It goes on where it was: messages first, then timers that are due." },
  retry: { name: "Retry", does: "A new run of the same workflow id goes on from the last good event." },
  cancel: { name: "Cancel", does: "It is told to stop, and undoes what it did (compensates).", danger: true },
  terminate: { name: "Terminate", does: "It ends at once and undoes nothing.", danger: true },
};

const RETRIED = new Set(["FAILED", "COMPENSATED", "CANCELLED", "TERMINATED", "TIMED_OUT"]);

/** The actions that fit a run as it stands. */
export function fitting(run) {
  if (ENDED.has(run.status)) return RETRIED.has(run.status) ? ["retry"] : [];
  return [run.paused ? "resume" : "pause", "cancel", "terminate"];
}

/** Ask, do it, say so; a retry leads to the new run. */
export async function act(run, action, refresh) {
  const { name, does, danger } = ACTIONS[action];
  const now = await ask({
    title: `${name} ${run.workflow}:${run.workflow_id}?`,
    text: does,
    danger,
    confirm: `${name} this run`,
    fields: [{ name: "reason", label: "Why" }, who()],
    send: ({ reason }) => api.act(run.run_id, action, reason),
  });
  if (!now) return;
  if (now.run_id !== run.run_id) {
    location.hash = runLink(now.run_id);
    say(`A new run goes on: ${now.status}`);
    return;
  }
  say(now.paused ? "The run is paused" : `The run is ${now.status}`);
  refresh();
}

/** Send a signal: one of those that the workflow takes, with any JSON. */
export async function signal(run, names, refresh) {
  const choice = names.length
    ? { name: "name", label: "Signal", kind: "choice", options: names, value: names[0] }
    : { name: "name", label: "Signal", required: true };
  const receipt = await ask({
    title: `Send a signal to ${run.workflow}:${run.workflow_id}`,
    text: "It is kept from the moment it is accepted, and delivered once.",
    confirm: "Send",
    fields: [choice, { name: "payload", label: "Payload (JSON)", kind: "json", value: "null" }, who()],
    send: ({ name, payload }) => api.signal(run.run_id, name, payload),
  });
  if (!receipt) return;
  say("The signal is accepted");
  refresh();
}
