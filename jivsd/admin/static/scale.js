/* Time to pixels. A long stretch in which nothing happens is drawn short, with a break, so that the rest can be seen. */

const BREAK = 46;
const MOST = 3;
const SHARE = 0.6;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5, 864e5];

/** A scale over an outline's times: `x(ms)`, its `breaks` and its `ticks`. */
export function scale({ begins, ends, rows, moments }, width) {
  const last = Math.max(ends, begins + 1);
  const [gaps, broken] = joined(gapsOf(begins, last, rows, moments));
  const kept = gaps.reduce((sum, gap) => sum + (broken.has(gap) ? 0 : gap.length), 0) || 1;
  const room = width - BREAK * broken.size;
  let at = 0;
  for (const gap of gaps) {
    gap.x = at;
    gap.width = broken.has(gap) ? BREAK : (gap.length / kept) * room;
    at += gap.width;
  }
  const x = (time) => {
    const gap = gaps.findLast((one) => one.from <= time) ?? gaps[0];
    return gap.x + (gap.width * Math.min(Math.max(time - gap.from, 0), gap.length)) / gap.length;
  };
  const breaks = [...broken].map((gap) => ({ x: gap.x + gap.width / 2, length: gap.length }));
  return { x, breaks, ticks: ticks(begins, gaps, broken, kept / Math.max(room, 1), x) };
}

function gapsOf(begins, ends, rows, moments) {
  const bars = rows.flatMap((row) => row.bars);
  const times = [begins, ends, ...bars.flatMap((bar) => [bar.from, bar.to]), ...moments.map((one) => one.at)];
  const points = [...new Set(times)].filter((time) => time >= begins && time <= ends).sort((a, b) => a - b);
  const works = bars.filter((bar) => bar.look !== "wait" && bar.look !== "pause");
  return points.slice(1).map((to, index) => {
    const from = points[index];
    return { from, length: to - from, busy: works.some((bar) => bar.from <= from && bar.to >= to) };
  });
}

/** The gaps, with neighbours that are broken as one; and those that are. */
function joined(gaps) {
  const chosen = choose(gaps);
  const [all, broken] = [[], new Set()];
  for (const gap of gaps) {
    const before = all.at(-1);
    if (chosen.has(gap) && broken.has(before)) {
      before.length += gap.length;
      continue;
    }
    all.push(gap);
    if (chosen.has(gap)) broken.add(gap);
  }
  return [all, broken];
}

/** The gaps in which nothing works and that make all others too small to see. */
function choose(gaps) {
  const broken = new Set();
  let whole = gaps.reduce((sum, gap) => sum + gap.length, 0);
  for (const gap of [...gaps].sort((a, b) => b.length - a.length).slice(0, MOST)) {
    if (gaps.length < 3 || gap.busy || gap.length < whole * SHARE) break;
    broken.add(gap);
    whole -= gap.length;
  }
  return broken;
}

function ticks(begins, gaps, broken, perPixel, x) {
  const step = STEPS.find((one) => one / perPixel >= 90) ?? STEPS.at(-1) * Math.ceil((90 * perPixel) / STEPS.at(-1));
  const found = [];
  let right = -Infinity;
  for (const gap of gaps) {
    if (broken.has(gap)) continue;
    for (let at = begins + Math.ceil((gap.from - begins) / step) * step; at <= gap.from + gap.length; at += step) {
      if (x(at) - right < 60) continue;
      right = x(at);
      found.push({ x: right, after: at - begins });
    }
  }
  return found;
}
