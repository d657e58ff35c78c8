/* Hears of what happens, over the daemon's WebSocket: only that there is news; what it is, the pages ask. */

import { token } from "./api.js";

const FIRST = 1000;
const LONGEST = 30_000;
const LINGER = 5000;

const listeners = new Set();
let socket = null;
let wait = FIRST;
let next = 0;

/** Call `listener` whenever something has happened, until the function that is returned is called. */
export function onNews(listener) {
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
    setTimeout(() => listeners.size || close(), LINGER);
  };
}

/** Begin to listen, unless that is so; to be called when the daemon has just answered, so that it is there. */
export function listen() {
  if (socket || !listeners.size || performance.now() < next) return;
  const offered = ["jivsd.v1"];
  if (token.get()) offered.push(`jivsd.bearer.${encoded(token.get())}`);
  const mine = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/api/v1/events`, offered);
  socket = mine;
  mine.onmessage = ({ data }) => {
    wait = FIRST;
    if (!data.startsWith('{"events":[]')) for (const listener of listeners) listener();
  };
  mine.onclose = () => {
    if (socket !== mine) return;
    socket = null;
    next = performance.now() + wait;
    wait = Math.min(2 * wait, LONGEST);
  };
}

function close() {
  const mine = socket;
  socket = null;
  mine?.close();
}

const encoded = (text) => btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
