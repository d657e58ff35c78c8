"""The kinds of values that settings have: what is accepted for each, and how it is shown."""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

import durationpy
from pydantic import AfterValidator, BeforeValidator, Secret, SecretStr

from jivsd.clock import SECOND, microseconds
from jivsd.masking import masked

LONGEST = 3650 * 86_400 * SECOND
"""The longest duration that makes sense here, in microseconds."""


class SecretUrl(Secret[str]):
    """A URL that may have a password in it, which is never shown; `get_secret_value()` returns all of it."""

    def _display(self) -> str:
        return masked(self.get_secret_value())


class Address(NamedTuple):
    """Where to listen. Port 0: any that is free."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Duration(int):
    """A time in microseconds that is shown as people write it: `30s`."""

    def __str__(self) -> str:
        return durationpy.to_str(timedelta(microseconds=self))


def sqlite_path(url: str) -> Path:
    """Return the file of a `sqlite:////absolute/path` URL; `%3F` and the like are decoded.

    Raises:
        ValueError: it is not such a URL, or its path is not absolute.
    """
    path = unquote(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError("must be sqlite:////absolute/path/of/a/file, with four slashes")
    if "?" in url or "#" in url:
        raise ValueError("must have no options: write ? as %3F and # as %23 in the path of a sqlite URL")
    return Path(path)


def any_url(value: Any, *schemes: str) -> SecretUrl:
    """A URL, of one of the schemes if any are given. What is wrong with a value, each of these says as a ValueError."""
    text = value.get_secret_value() if isinstance(value, SecretUrl) else value
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://.", text) if isinstance(text, str) else None
    if not isinstance(text, str) or scheme is None or (schemes and scheme[1] not in schemes):
        allowed = " or ".join(f"{name}://…" for name in schemes) or "scheme://…"
        raise ValueError(f"must be a URL, {allowed}")
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("must have no white space: write a space as %20")
    if scheme[1] == "sqlite":
        sqlite_path(text)
    return SecretUrl(text)


def store_url(value: Any) -> SecretUrl:
    """Where a journal can be."""
    return any_url(value, "sqlite", "postgresql", "postgres")


_REDIS = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def redis_url(value: Any) -> SecretUrl | None:
    """Where Redis is; none is none."""
    return None if value in (None, "none") else any_url(value, *_REDIS)


def _duration(value: Any) -> int:
    try:
        length = microseconds(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("must be a duration such as '250ms', '30s', '10m' or '1h30m'") from None
    if not 0 < length <= LONGEST:
        raise ValueError("must be longer than nothing and at most ten years, e.g. '30s'")
    return length


def _size(value: Any) -> Any:
    units = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
    if isinstance(value, str):
        parts = re.fullmatch(r"\s*([0-9]{1,15})\s*([A-Za-z]*)\s*", value)
        if parts is None or parts[2].lower() not in units:
            raise ValueError("must be a number of bytes, or a text such as '64KiB' or '1MiB'")
        return int(parts[1]) * units[parts[2].lower()]
    return _whole(value)


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


def _folder(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("must be the path of a folder")
    return Path(value).expanduser().absolute()


def folders(value: Any) -> Any:
    """Several paths in one text, as in `$PATH`."""
    if isinstance(value, str):
        return [part for part in value.split(os.pathsep) if part]
    return value


def address(value: Any) -> Any:
    """`HOST:PORT`, or none."""
    if value in (None, "none"):
        return None
    if not isinstance(value, str):
        return value
    parts = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", value)
    if parts is None or int(parts[3]) > 65_535:
        raise ValueError("must be HOST:PORT, e.g. 127.0.0.1:8420 or [::1]:8420, or none")
    return Address(parts[1] or parts[2], int(parts[3]))


def printable(value: SecretStr) -> SecretStr:
    """What can be sent in an HTTP header."""
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be one or more printable ASCII characters without spaces")
    return value


def lower(value: Any) -> Any:
    """A word in whatever case."""
    return value.lower() if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_whole)]
Microseconds = Annotated[int, BeforeValidator(_duration), AfterValidator(Duration)]
Size = Annotated[int, BeforeValidator(_size)]
Folder = Annotated[Path, BeforeValidator(_folder)]
