"""Reads JSON values that are given on the command line, from a file, or on stdin."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jivsd import attributes
from jivsd.cli.exits import CommandError, Exit
from jivsd.records import Status

if TYPE_CHECKING:
    from jivsd.engine.api import Which


def read_value(given: str | None, option: str) -> bytes:
    """Return the JSON that an argument means: itself, `@FILE`, or `-` for stdin; None is `null`.

    Raises:
        CommandError: there is no such file, or the text is not JSON that the daemon would take.
    """
    from jivsd.jsonguard import MAX_BYTES, BadJson, check

    data = b"null" if given is None else _read(given, option, MAX_BYTES + 1)
    try:
        check(data)
    except BadJson as error:
        message, data = f"{option}: {error}", {"problem": error.code}
        raise CommandError(Exit.INVALID, "bad_json", message, hint=_hint(given or ""), data=data) from None
    return data


def _read(given: str, option: str, limit: int) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read(limit)
    if not given.startswith("@"):
        return given.encode(errors="surrogateescape")
    path = Path(given[1:])
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        code = Exit.NOT_FOUND if isinstance(error, FileNotFoundError) else Exit.INVALID
        raise CommandError(code, "no_file", f"{option}: cannot read {str(path)!r}: {error.strerror}") from None


def _hint(given: str) -> str | None:
    """What was probably meant by something that is not JSON."""
    if given[:1] in ("", "-", "@", "{", "[", '"') or given[:1].isdigit():
        return None
    return f"A text has quotes of its own, as in '\"{given[:40]}\"'; a file is named as @FILE; - is standard input."


def read_moment(given: str, option: str) -> int:
    """Return a time in microseconds since the epoch: from a date or a time (local without an offset), or an age.

    Raises:
        CommandError: it is neither.
    """
    from jivsd.clock import microseconds

    try:
        return round(datetime.fromisoformat(given).astimezone().timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        pass
    try:
        return time.time_ns() // 1000 - microseconds(given)
    except ValueError:
        example = "a date (2026-01-31), a time (2026-01-31T12:00:00+01:00) or an age (36h, 30d)"
        raise CommandError(Exit.USAGE, "usage", f"{option}: {given!r} is not {example}") from None


def read_time(given: str, option: str) -> datetime:
    """Return a time, local without an offset.

    Raises:
        CommandError: it is none.
    """
    try:
        return datetime.fromisoformat(given).astimezone()
    except (ValueError, OverflowError):
        example = "2026-12-24T18:00 or 2026-12-24T18:00:00+01:00"
        raise CommandError(Exit.USAGE, "usage", f"{option}: {given!r} is not a time such as {example}") from None


def check_duration(given: str, option: str) -> None:
    """Raises CommandError when it is no length of time."""
    from jivsd.clock import microseconds

    try:
        microseconds(given)
    except ValueError as error:
        raise CommandError(Exit.USAGE, "usage", f"{option}: {error}") from None


def read_statuses(given: list[str] | None) -> tuple[Status, ...]:
    """Return the statuses that `--status` names, in whatever case.

    Raises:
        CommandError: there is no such status.
    """
    try:
        return tuple(Status(name.upper()) for name in given or ())
    except ValueError as error:
        known = ", ".join(Status)
        raise CommandError(Exit.USAGE, "usage", f"--status: {error}: it is one of {known}") from None


def read_attributes(given: list[str] | None) -> dict[str, str]:
    """Return names and values as `--attribute NAME=VALUE` gives them.

    Raises:
        CommandError: one is not of that form.
    """
    try:
        return dict(attributes.parse(one) for one in given or ())
    except ValueError as error:
        raise CommandError(Exit.USAGE, "usage", f"--attribute: {error}") from None


def attribute_values(given: list[str] | None) -> dict[str, attributes.Value]:
    """Return attributes for a start: what reads as a number or a truth value is one, the rest is text.

    Raises:
        CommandError: one is not of the form NAME=VALUE.
    """
    return {name: _plain(value) for name, value in read_attributes(given).items()}


def _plain(text: str) -> attributes.Value:
    try:
        return msgspec.json.decode(text, type=bool | int | float)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text


def read_which(given: str | None) -> Which:
    """Return which runs a filter means: a RUN, or `workflow=W,id=ID,status=S,parent=RUN`, one or more of them.

    Raises:
        CommandError: it has another word.
    """
    from jivsd.engine.api import Which

    if given is None:
        return Which()
    if "=" not in given:
        return Which(run=given)
    words: dict[str, str] = {}
    status: list[str] = []
    for part in given.split(","):
        word, equals, value = part.partition("=")
        if word == "status":
            status.append(value)
        elif word in ("workflow", "id", "parent") and equals:
            words[word] = value
        else:
            known = "a RUN, or workflow=W, id=ID, status=S or parent=RUN, with commas between them"
            raise CommandError(Exit.USAGE, "usage", f"--runs: {part!r} is not {known}")
    return Which(**words, status=list(read_statuses(status)))
