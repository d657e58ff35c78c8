/* Keeps what is seen true: loads again when something has happened and every now and then, while the page is visible;
   and says when the daemon is away.

   The one place that knows how news comes: the pages only say how to load and how to draw. */

import { Away } from "./api.js";
import { listen, onNews } from "./feed.js";

const EVERY = 2000;
const SHORTEST = 1000;
const LONGEST = 15_000;

/** Load and draw until stopped.

    `load(signal)` resolves to what `draw` gets; `fail` gets what the daemon refused. `tell` hears of the state:
    {state: "live" | "away" | "still", error, wait}. */
export function follow(load, { draw, fail, tell }) {
  const ended = new AbortController();
  let timer = 0;
  let failures = 0;
  let asked = 0;
  let began = 0;
  let due = 0;

  async function round() {
    clearTimeout(timer);
    clearTimeout(due);
    due = 0;
    began = performance.now();
    const mine = ++asked;
    let wait = EVERY;
    try {
      const data = await load(ended.signal);
      if (mine !== asked || ended.signal.aborted) return;
      failures = 0;
      tell({ state: "live" });
      draw(data);
      listen();
    } catch (error) {
      if (mine !== asked || ended.signal.aborted) return;
      if (error instanceof Away) {
        wait = Math.min(EVERY * 2 ** failures++, LONGEST);
        tell({ state: "away", error: error.message, wait });
      } else {
        wait = LONGEST;
        tell({ state: "live" });
        fail(error);
      }
    }
    if (!document.hidden) timer = setTimeout(round, wait);
  }

  const deaf = onNews(() => {
    if (due || document.hidden) return;
    due = setTimeout(round, Math.max(0, began + SHORTEST - performance.now()));
  });

  function seen() {
    clearTimeout(timer);
    if (document.hidden) tell({ state: "still" });
    else round();
  }

  document.addEventListener("visibilitychange", seen);
  round();
  return {
    refresh: round,
    stop() {
      ended.abort();
      clearTimeout(timer);
      clearTimeout(due);
      deaf();
      document.removeEventListener("visibilitychange", seen);
    },
  };
}
