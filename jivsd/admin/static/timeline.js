/* Turns a run's events, and what it waits for now, into rows and bars against time. Pure: nothing is drawn here.

   The journal has outcomes, not beginnings: a step that succeeds costs one record. So a bar begins with what came
   before it in its branch; only attempts after the first have a recorded time. */

import { ENDED, tone } from "./words.js";

const MOMENTS = {
  CancelRequested: ["cancel was asked for", "warn"],
  Recovered: ["recovered: taken up after a restart", "wait"],
  CodeChanged: ["moved to new code", "wait"],
  Reset: ["reset: goes on from an earlier run", "wait"],
  ContinuedAsNew: ["continued as new", "ok"],
};

/** The segments of a path; a key in brackets may contain "/". */
export function segments(path) {
  return path.match(/(?:\[[^\]]*\]|[^/[])+/g) ?? [];
}

/** A path as a row shows it: the branch, and the name of the command there without its number. */
export function named(path) {
  const all = segments(path);
  const last = all.pop() ?? "";
  const undo = last.endsWith("!undo");
  const name = last.replace(/!undo$/, "").replace(/#\d+$/, "").replace(/^!/, "");
  return { branch: all.join("/"), name: undo ? `undo ${name}` : name, undo };
}

/** More rows than these are folded: a row for each branch. */
const FEW = 40;

/** What to draw of a run: rows with bars and marks, moments, pauses, and the times that it goes from and to. */
export function outline(run, events, waits, now) {
  const drawing = new Drawing(Date.parse(run.created_at));
  for (const event of events) drawing.take(event);
  const ended = ENDED.has(run.status);
  const end = ended ? Math.max(Date.parse(run.ended_at), drawing.latest) : Math.max(now, drawing.latest);
  if (!ended) for (const wait of waits) drawing.wait(wait, end);
  drawing.close(end);
  return { begins: drawing.begins, ends: end, open: !ended, rows: folded(drawing.sorted()), moments: drawing.moments, pauses: drawing.pauses };
}

class Drawing {
  constructor(begins) {
    this.begins = begins;
    this.latest = begins;
    this.moments = [];
    this.pauses = [];
    this.rows = new Map();
    /** By branch, when something was heard of it last: of itself, and of it or what is below it. */
    this.own = new Map([["", begins]]);
    this.whole = new Map([["", begins]]);
    /** By path, when its next attempt begins or has begun. */
    this.next = new Map();
  }

  take(event) {
    const at = Date.parse(event.at);
    this.latest = Math.max(this.latest, at);
    const does = this[event.kind];
    if (does) does.call(this, event, at);
    else if (event.kind in MOMENTS) {
      const [label, look] = MOMENTS[event.kind];
      this.moments.push({ at, label: event.by ? `${label} (${event.by})` : label, tone: look });
    }
    this.heard(event.path, at);
  }

  StepDone(event, at) {
    const { undo } = named(event.path);
    const skipped = event.payload.skipped;
    const state = skipped ? `skipped by ${event.by}` : undo ? "compensated" : event.by ? `decided by ${event.by}` : "done";
    this.bar(event, at, { tone: undo ? "undo" : skipped ? "warn" : "ok", state, value: event.payload.result });
  }

  StepFailed(event, at) {
    this.bar(event, at, { tone: "bad", state: "failed for good", error: event.payload.error });
  }

  StepCancelled(event, at) {
    this.bar(event, at, { tone: "off", state: event.payload.started === "no" ? "cancelled before it began" : "cancelled" });
  }

  AttemptFailed(event, at) {
    const next = event.payload.next_at ? event.payload.next_at / 1000 : null;
    this.bar(event, at, { tone: "bad", look: "attempt", state: `attempt ${event.attempt} failed`, error: event.payload.error });
    this.next.set(event.path, next ?? at);
    if (next) this.add(event.path, { from: at, to: next, tone: "warn", look: "pause", state: "waits for its next attempt" });
  }

  TimerFired(event, at) {
    this.bar(event, at, { tone: "wait", look: "wait", state: "timer" });
  }

  LockGranted(event, at) {
    this.bar(event, at, { tone: "wait", look: "wait", state: `lock granted, fence ${event.payload.fence}` });
  }

  ChildEnded(event, at) {
    const { status, run_id: child, error } = event.payload;
    this.bar(event, at, { tone: tone(status), look: "child", state: `child run ${status}`, child, error });
  }

  Marker(event, at) {
    const { value, error } = event.payload;
    this.add(event.path, { from: at, to: at, tone: error ? "bad" : "ok", look: "mark", state: "recorded", value, error, seq: event.seq });
  }

  Signal(event, at) {
    this.message(event, at, "signal");
  }

  Update(event, at) {
    this.message(event, at, "update");
  }

  Paused(event, at) {
    this.pauses.push({ from: at, to: null, by: event.by });
  }

  Resumed(event, at) {
    const open = this.pauses.at(-1);
    if (open && open.to === null) open.to = at;
  }

  Ended(event, at) {
    this.moments.push({ at, label: event.payload.status, tone: tone(event.payload.status), end: true });
  }

  message(event, at, kind) {
    const { name, payload } = event.payload;
    const state = event.by ? `${kind} from ${event.by}` : kind;
    this.add(name, { from: at, to: at, tone: "run", look: "message", state, value: payload, seq: event.seq }, kind);
  }

  /** A command's end, or the end of one of its attempts. */
  bar(event, at, bar) {
    const from = Math.min(this.beginning(event.path), at);
    this.add(event.path, { from, to: at, attempt: event.attempt, seq: event.seq, by: event.by, ...bar });
  }

  beginning(path) {
    if (this.next.has(path)) return this.next.get(path);
    const { branch, undo } = named(path);
    if (undo) return this.latestBefore ?? this.begins;
    if (this.whole.has(branch)) return this.whole.get(branch);
    const above = segments(branch);
    while (above.length) {
      above.pop();
      if (this.own.has(above.join("/"))) return this.own.get(above.join("/"));
    }
    return this.begins;
  }

  heard(path, at) {
    const { branch } = named(path);
    this.latestBefore = at;
    this.own.set(branch, at);
    const above = segments(branch);
    this.whole.set(branch, at);
    while (above.length) {
      above.pop();
      this.whole.set(above.join("/"), at);
    }
  }

  /** What is under way, or waited for, now. */
  wait({ path, kind, what, until, error }, now) {
    if (!path || what === "a deadline") return;
    const looks = { step: ["run", ""], retry: ["warn", "pause"], incident: ["bad", ""], child: ["run", "child"] };
    const [look, shape] = looks[kind] ?? ["wait", "wait"];
    const from = kind === "retry" || kind === "incident" ? this.whole.get(named(path).branch) : this.beginning(path);
    const row = this.rows.get(rowKey(path));
    if (kind === "retry" && row?.bars.at(-1)?.look === "pause") row.bars.pop();
    this.add(path, { from: Math.min(from ?? this.begins, now), to: now, tone: look, look: shape, state: what, until, open: true, error: error && { message: error } });
  }

  add(path, bar, kind = "") {
    const key = rowKey(kind + path);
    const { branch, name, undo } = named(path);
    if (!this.rows.has(key)) this.rows.set(key, { key, branch, name: kind ? `${kind} ${name}` : name, undo, first: bar.from, bars: [] });
    const row = this.rows.get(key);
    row.bars.push({ id: `${key}/${row.bars.length}`, path, ...bar });
  }

  close(end) {
    for (const pause of this.pauses) pause.to ??= end;
    for (const row of this.rows.values()) for (const bar of row.bars) bar.to = Math.min(bar.to, end);
  }

  /** Rows in the order in which they begin; those of a nursery, and its branches, stay together. */
  sorted() {
    const first = new Map();
    const group = (row) => (row.undo || !row.branch ? row.key : segments(row.branch)[0].replace(/\[.*/, ""));
    for (const row of this.rows.values()) first.set(group(row), Math.min(first.get(group(row)) ?? Infinity, row.first));
    for (const row of this.rows.values()) first.set(`${row.branch}/`, Math.min(first.get(`${row.branch}/`) ?? Infinity, row.first));
    const order = (row) => [first.get(group(row)), first.get(`${row.branch}/`), row.first];
    return [...this.rows.values()].sort((a, b) => compare(order(a), order(b)));
  }
}

const compare = (a, b) => a.map((one, index) => one - b[index]).find((one) => one) ?? 0;

/** The same rows, or with all of a branch in one row where there are too many. */
function folded(rows) {
  if (rows.length <= FEW) return rows;
  const branches = new Map();
  for (const row of rows) {
    const key = row.branch ? `${row.branch}>` : row.key;
    const known = branches.get(key);
    if (known) known.bars.push(...row.bars);
    else branches.set(key, { ...row, key, name: row.branch ? "" : row.name, undo: false, bars: [...row.bars] });
  }
  for (const row of branches.values()) row.bars.sort((a, b) => a.from - b.from);
  return [...branches.values()];
}

const rowKey = (path) => {
  const { branch, name } = named(path);
  return `${branch}>${name}`;
};
