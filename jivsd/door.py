"""Where a client finds a daemon: the socket in a data folder, or a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx

from jivsd.asking import limits
from jivsd.places import default_data_dir, socket_path

if TYPE_CHECKING:
    from collections.abc import Mapping


class Door(NamedTuple):
    """A socket, or else a URL; what is said there with every request; for sentences, its name and what may help."""

    path: Path | None
    url: str
    headers: Mapping[str, str]
    place: str
    remedy: str

    @classmethod
    def of(cls, data_dir: Path | str | None, url: str | None, token: str | None) -> Door:
        """The door of a data folder (by default the user's own), or the one at a URL.

        Raises:
            ConfigError: the data folder's path is too long for a socket in it.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if url is not None:
            remedy = "check the address, and that the daemon was started with --http"
            return cls(None, url, headers, url, remedy)
        folder = (default_data_dir() if data_dir is None else Path(data_dir)).expanduser().absolute()
        path = socket_path(folder)
        return cls(path, "", headers, f"socket {path}", f"start one with: jivsd run --data-dir {folder}")

    def transport(self) -> httpx.AsyncHTTPTransport:
        """What carries requests there."""
        if self.path is not None:
            return httpx.AsyncHTTPTransport(uds=str(self.path), verify=False, limits=limits())
        return httpx.AsyncHTTPTransport(verify=self.url.startswith("https:"), limits=limits())
