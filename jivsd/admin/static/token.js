/* Asks for the daemon's token when it wants one, and forgets it when told to. */

import { onTokenWanted, token } from "./api.js";
import { ask } from "./dialog.js";

let asking = null;

/** From now on, whoever is refused for want of a token is asked for it; it is kept until the tab is closed. */
export function askForToken() {
  onTokenWanted((wrong) => {
    asking ??= ask({
      title: "This daemon wants a token",
      text: wrong
        ? "It did not accept the one that was given."
        : "It is the one in the daemon's configuration (`token`, or one of `tokens`). It stays in this tab and is forgotten with it.",
      fields: [{ name: "token", label: "Token", kind: "password", required: true }],
      confirm: "Go on",
      putAside: false,
      send: ({ token: given }) => token.set(given.trim()),
    }).finally(() => (asking = null));
    return asking;
  });
}
