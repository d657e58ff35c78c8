"""Starting many runs: from a file of JSON lines, or standard input."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from jivsd.cli import look
from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.output import Answer
from jivsd.engine.api import NewStart, StartOptions, StartResult
from jivsd.jsonguard import MAX_BYTES, BadJson, check
from jivsd.records import NULL

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from jivsd.cli.output import Page
    from jivsd.client import Client

AT_ONCE: Final = 1000
SHOWN: Final = 20
"""Refused starts that are listed for people."""


class Line(StartOptions, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A line of the file: the input and the options of a start."""

    input: msgspec.Raw = NULL


async def start_many(client: Client, workflow: str, file: str, options: StartOptions) -> Answer:
    """Start a run for each line; `options` hold where a line says nothing else."""
    counts = {"accepted": 0, "existing": 0, "refused": 0}
    refused: list[tuple[int, StartResult]] = []
    with _opened(file) as source:
        lines = _lines(source, workflow, options)
        while some := list(islice(lines, AT_ONCE)):
            results = await client.start_many([start for _, start in some])
            for (number, _), result in zip(some, results, strict=True):
                counts[result.result] += 1
                if result.result == "refused":
                    refused.append((number, result))
    document = {**counts, "refusals": [_refusal(number, result) for number, result in refused]}

    def view() -> Page:
        yield ", ".join(f"{count:,} {what}" for what, count in counts.items())
        if refused:
            table = look.table("LINE", "CODE", "WHY", numbers=("LINE",), wraps=("WHY",))
            for number, result in refused[:SHOWN]:
                table.add_row(str(number), result.code or "", result.why or "")
            yield table

    more = [f"{len(refused) - SHOWN:,} more were refused; --json lists all."] if len(refused) > SHOWN else []
    return Answer(document, view, Exit.FAILED if refused else Exit.OK, more)


def _refusal(number: int, result: StartResult) -> dict[str, Any]:
    return {"line": number, "code": result.code, "why": result.why, "run_id": result.run_id}


@contextmanager
def _opened(file: str) -> Generator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            source = stack.enter_context(Path(file).open("rb"))
        except OSError as error:
            code = Exit.NOT_FOUND if isinstance(error, FileNotFoundError) else Exit.INVALID
            raise CommandError(code, "no_file", f"--bulk: cannot read {file!r}: {error.strerror}") from None
        yield source


def _lines(source: IO[bytes], workflow: str, options: StartOptions) -> Iterator[tuple[int, NewStart]]:
    """The starts of a file, with the numbers of their lines; empty lines are left out.

    Raises:
        CommandError: a line is no start. What came before it may have been started already.
    """
    number = 0
    while line := source.readline(MAX_BYTES + 1):
        number += 1
        if not line.strip():
            continue
        try:
            check(line)
            found = msgspec.json.decode(line, type=Line)
        except (BadJson, msgspec.ValidationError) as error:
            message = f'--bulk, line {number}: {error}; a line is like {{"input": 5, "id": "a"}}'
            hint = f"The {number - 1:,} lines before it may have been started." if number > AT_ONCE else None
            raise CommandError(Exit.INVALID, "bad_line", message, hint=hint) from None
        given = {name: getattr(found, name) for name in StartOptions.__struct_fields__ if _given(found, name)}
        yield number, NewStart(workflow, found.input, msgspec.structs.replace(options, **given))


def _given(line: Line, name: str) -> bool:
    return getattr(line, name) != getattr(_NOTHING, name)


_NOTHING: Final = Line()
