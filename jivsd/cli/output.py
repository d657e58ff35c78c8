"""What commands print: JSON for programs, text for people; results on stdout, everything about them on stderr."""

from __future__ import annotations

import re
import sys
from io import StringIO
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TextIO

import msgspec

from jivsd.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console, RenderableType

    Page = Iterable[RenderableType]

PLAIN_WIDTH: Final = 100_000
"""The width of what is not a terminal, in columns: nothing wraps, nothing is cut."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Answer(NamedTuple):
    """What a command found: `document` for programs, `view` for people (made only when it is asked for).

    `notes` go to stderr and only to people: what to do next.
    """

    document: Any
    view: Callable[[], Page]
    exit_code: Exit = Exit.OK
    notes: Sequence[str] = ()


def give(answer: Answer, *, json: bool) -> None:
    """Print an answer; a document that is UNSET: all has been printed."""
    if answer.document is msgspec.UNSET:
        return
    if json:
        print_json(answer.document, sys.stdout)
        return
    if sys.stdout.isatty():
        _print(answer.view(), sys.stdout)
    else:
        _print(answer.view(), padded := StringIO())
        sys.stdout.writelines(f"{line.rstrip()}\n" for line in padded.getvalue().splitlines())
    sys.stdout.flush()
    for note in answer.notes:
        say(note)


def _print(page: Page, file: IO[str]) -> None:
    screen = console(file)
    for part in page:
        screen.print(part)


def complain(error: CommandError, *, json: bool) -> None:
    """Print an error on stderr: `{"error": {"code", "message", ...}}` or a sentence."""
    if json:
        print_json(error.document(), sys.stderr)
        return
    say(f"jivsd: {error.message}")
    if error.hint:
        say(error.hint)


def print_json(document: Any, file: TextIO) -> None:
    """Print a value as JSON, indented; in UTF-8, whatever the terminal can show."""
    file.flush()
    file.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    file.buffer.flush()


def say(line: str) -> None:
    """Print a line for people on stderr."""
    sys.stderr.write(harmless(line) + "\n")
    sys.stderr.flush()


def harmless(text: str) -> str:
    """Return the text with what could control a terminal or reorder a line made visible: it may come from anybody."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def console(file: IO[str]) -> Console:
    """A rich console that never cuts what it prints into a pipe or a file, and leaves out control characters.

    They have no width: leaving them out, unlike showing them, does not disturb the layout.
    """
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

    class HarmlessConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(_CONTROL.sub("", text), style)

    width = None if file.isatty() else PLAIN_WIDTH
    return HarmlessConsole(file=file, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)
