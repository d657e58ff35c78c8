"""Named connections: the configuration says where something is (`[connections.crm]`), inputs of workflows name it.

So no input, record or log has a password in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_urls: dict[str, str] = {}


def configure(urls: Mapping[str, str]) -> None:
    """Say which connections there are, by name; for the daemon, and for tests of plugins."""
    _urls.clear()
    _urls.update(urls)


def url_of(name: str) -> str:
    """The URL of a connection, with its credentials: for a driver, and for nothing that anybody reads.

    Raises:
        LookupError: there is none of that name; the message says which there are.
    """
    if name not in _urls:
        known = ", ".join(sorted(_urls)) or "none"
        raise LookupError(f"the configuration has no connection {name!r} ([connections.{name}]); there are: {known}")
    return _urls[name]
