/* How things are called and written: statuses, times, durations, numbers. */

import { h } from "./dom.js";

export const STATUSES = [
  "PENDING", "RUNNING", "WAITING", "BLOCKED", "COMPENSATING", "COMPENSATION_BLOCKED",
  "COMPLETED", "FAILED", "COMPENSATED", "CANCELLED", "TERMINATED", "TIMED_OUT", "CONTINUED",
];
export const ENDED = new Set([
  "COMPLETED", "FAILED", "COMPENSATED", "CANCELLED", "TERMINATED", "TIMED_OUT", "CONTINUED",
]);

const TONES = {
  PENDING: "wait", RUNNING: "run", WAITING: "wait", PAUSED: "warn", BLOCKED: "bad", COMPENSATING: "undo",
  COMPENSATION_BLOCKED: "bad", COMPLETED: "ok", FAILED: "bad", COMPENSATED: "undo", CANCELLED: "off",
  TERMINATED: "off", TIMED_OUT: "bad", CONTINUED: "ok", OPEN: "bad", RESOLVED: "ok",
};

/** The colour that a status has everywhere: ok, bad, warn, run, wait, undo or off. */
export const tone = (status) => TONES[status] ?? "wait";

/** A status as people see it; the word says what the colour says. */
export function status(word, paused = false) {
  const chip = h("span.status", { class: `tone-${tone(word)}` }, word);
  return paused ? h("span.together", null, chip, h("span.status.tone-warn", null, "PAUSED")) : chip;
}

/** A moment: the time of day, and the date unless it is today's. */
export function time(at, { none = "–" } = {}) {
  if (!at) return none;
  const moment = new Date(at);
  return h("time", { datetime: moment.toISOString(), title: moment.toISOString() }, timeText(moment));
}

export function timeText(moment) {
  const [day, clock] = [date(moment), moment.toLocaleTimeString("en-GB")];
  return day === date(new Date()) ? clock : `${day} ${clock}`;
}

const two = (number) => String(number).padStart(2, "0");
const date = (moment) => `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;

/** A length of time, in two units at most, from milliseconds. */
export function duration(length) {
  const ms = Math.abs(length);
  if (ms < 1) return "0 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 && ms % 1000 ? 1 : 0)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return pair(Math.floor(seconds / 60), "min", seconds % 60, "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return pair(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.round(minutes / 60);
  return pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

const pair = (large, unit, small, below) => (small ? `${large} ${unit} ${small} ${below}` : `${large} ${unit}`);

/** From a start to an end, or to now. */
export const lasted = (from, to) => (from ? duration(new Date(to ?? Date.now()) - new Date(from)) : "–");

export const count = (number) => number.toLocaleString("en-US");

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** A rate: as many digits as it takes to see that it is not nothing. */
export function rate(perSecond) {
  if (!perSecond) return "0";
  if (perSecond >= 100) return count(Math.round(perSecond));
  return perSecond >= 10 ? perSecond.toFixed(1) : perSecond.toFixed(2);
}

/** The head of an id, for narrow places; the whole is in the title. */
export const short = (id) => (id.length > 20 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id);

export const runLink = (run) => `#/runs/${encodeURIComponent(run)}`;

/** JSON as people read it; a plain string without its quotes only if `bare`. */
export const pretty = (value) => JSON.stringify(value, null, 2);
