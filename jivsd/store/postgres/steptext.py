"""The SQL of transaction steps: parameters as SQLite has them become PostgreSQL's, and what a step may not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from jivsd.store.api import TransactionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TOKEN: Final = re.compile(
    r"""
    (?P<quoted> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]*
              | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ )
  | (?P<comment> /\* )
  | (?P<numbered> \$\d+ )
  | (?P<word> [^\W\d][\w$]* )
  | (?P<named> (?<!:):[^\W\d]\w* )
  | (?P<mark> \? )
  | (?P<end> ; )
  | (?P<other> ::|\d\w*|\s+|. )
    """,
    re.VERBOSE | re.DOTALL,
)
_FORBIDDEN: Final = {
    **dict.fromkeys(
        ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT"),
        "BEGIN, COMMIT or ROLLBACK: the step commits when its function returns",
    ),
    **dict.fromkeys(("PREPARE", "DISCARD", "LISTEN", "UNLISTEN", "COPY"), None),
}
"""The first words of statements that a step may not use, and how that is said; None: by the word itself."""


class _Piece(NamedTuple):
    kind: str
    text: str


class _Text(NamedTuple):
    """SQL for asyncpg, and the parameters' names, or None when they are given in order."""

    sql: str
    names: tuple[str, ...] | None


def prepared(sql: str, parameters: Sequence[Any] | Mapping[str, Any], schema: str) -> tuple[str, Sequence[Any]]:
    """The SQL of a step and its parameters, as asyncpg takes them.

    Args:
        sql: with `?` or `$1` for parameters in order, or `:name` for those by name.
        parameters: in order or by name.
        schema: jivsd's own, which a step may not touch.

    Raises:
        TransactionError: it says what a step may not say, or a parameter is missing.
    """
    if not isinstance(parameters, Mapping):
        text = _translated(sql, schema, "mark" if len(parameters) else "")
        return text.sql, parameters
    text = _translated(sql, schema, "named")
    assert text.names is not None
    try:
        return text.sql, [parameters[name] for name in text.names]
    except KeyError as error:
        raise TransactionError(f"there is no parameter {error} for this statement") from None


@lru_cache(maxsize=1_000)
def _translated(sql: str, schema: str, style: str) -> _Text:
    """What becomes of SQL whose parameters are given in order ("mark"), by name ("named"), or not at all ("")."""
    pieces = list(_pieces(sql))
    _check(pieces, schema)
    if style == "mark" and any(piece.kind == "numbered" for piece in pieces):
        style = ""
    names: dict[str, int] = {}
    marks = 0
    parts: list[str] = []
    for kind, text in pieces:
        if kind != style:
            parts.append(text)
        elif kind == "named":
            parts.append(f"${names.setdefault(text[1:], len(names) + 1)}")
        else:
            marks += 1
            parts.append(f"${marks}")
    return _Text("".join(parts), tuple(names) if style == "named" else None)


def _pieces(sql: str) -> Iterator[_Piece]:
    at = 0
    while at < len(sql):
        found = _TOKEN.match(sql, at)
        assert found is not None
        end = found.end()
        kind = cast("str", found.lastgroup)
        if kind == "comment":
            end = _end_of_comment(sql, end)
        yield _Piece(kind, sql[at:end])
        at = end


def _end_of_comment(sql: str, at: int) -> int:
    """Where a comment ends; they nest in PostgreSQL."""
    depth = 1
    for found in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if found[0] == "/*" else -1
        if not depth:
            return found.end()
    return len(sql)


def _check(pieces: list[_Piece], schema: str) -> None:
    """Raise TransactionError for what a step may not say."""
    said: list[str] = []
    for place, (kind, text) in enumerate(pieces):
        if kind == "end":
            _check_statement(said)
            said = []
        elif kind == "word":
            said.append(text.upper())
        name = text.lower() if kind == "word" else text.strip('"') if text.startswith('"') else None
        if name == schema and _next(pieces, place) == ".":
            raise TransactionError(f"a transaction step may not touch jivsd's own schema {schema!r}")
    _check_statement(said)


def _next(pieces: list[_Piece], place: int) -> str:
    """The first piece behind one that says something."""
    return next((text for kind, text in pieces[place + 1 :] if kind != "comment" and not text.isspace()), "")


def _check_statement(words: list[str]) -> None:
    first = words[0] if words else ""
    if first in _FORBIDDEN and not (first == "ROLLBACK" and "TO" in words[1:3]):
        raise TransactionError(f"a transaction step may not use {_FORBIDDEN[first] or first}")
