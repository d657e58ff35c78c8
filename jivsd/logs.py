"""Structured logs on stderr: JSON lines for machines, text for people at a terminal.

What libraries say through `logging` goes the same way. Writing a log line never raises, whatever is in it and wherever
stderr went: a run must not fail because nobody could read about it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

import msgspec
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback

from jivsd.masking import HIDDEN, masked

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error", "critical"]
Format = Literal["auto", "json", "text"]

VALUE_LIMIT = 16_384
"""Characters of one text in a log line; longer ones are cut."""
DEPTH_LIMIT = 6
ITEMS_LIMIT = 100
"""Members of one collection in a log line; the rest is left out."""

bound = structlog.contextvars.bound_contextvars
"""`with bound(run_id=…, workflow=…, correlation_id=…):` gives every line from inside, libraries' too, these fields."""

_SECRET_NAMES = re.compile(r"pass(word|wd|phrase)|secret|token|authorization|cookie|credential", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Logger:
    """The logger of a part of the daemon. It may be made before `configure`, and follows it.

    structlog's own lazy loggers cost 2 us for a message below the level, this one 0.1 us: it sits near the hot path.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = dict(fields)

    def bind(self, **fields: object) -> Logger:
        """Return a logger that adds these fields to every line."""
        return Logger(self._fields | fields)

    def debug(self, event: str, **fields: object) -> None:
        """For whoever looks for a bug in jivsd."""
        if _output.threshold <= logging.DEBUG:
            _output.write(logging.DEBUG, event, self._fields | fields)

    def info(self, event: str, **fields: object) -> None:
        """For an operator who wonders what the daemon does."""
        if _output.threshold <= logging.INFO:
            _output.write(logging.INFO, event, self._fields | fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something is not as it should be, and may need a person."""
        if _output.threshold <= logging.WARNING:
            _output.write(logging.WARNING, event, self._fields | fields)

    def error(self, event: str, **fields: object) -> None:
        """Something failed. `exc_info=error` adds the traceback of an exception."""
        if _output.threshold <= logging.ERROR:
            _output.write(logging.ERROR, event, self._fields | fields)

    def critical(self, event: str, **fields: object) -> None:
        """The daemon cannot go on."""
        _output.write(logging.CRITICAL, event, self._fields | fields)


def get(name: str) -> Logger:
    """Return the logger of a part of the daemon, such as `engine`."""
    return Logger({"part": name})


def configure(level: Level, format: Format, node: str, stream: TextIO | None = None) -> None:
    """Set up logging for the process. Before it, warnings and worse go to stderr, and `logging` is left alone.

    Args:
        level: the least severe messages that are written.
        format: `auto` is text if the stream is a terminal.
        node: the name of this node, a field of every line.
        stream: where to write; None is stderr.
    """
    global _output
    _output = _Output(logging.getLevelNamesMapping()[level.upper()], format, {"node": node}, stream)
    structlog.configure(
        processors=_output.processors,
        wrapper_class=structlog.make_filtering_bound_logger(_output.threshold),
        logger_factory=lambda *_names: _output.sink,  # pyright: ignore[reportUnknownLambdaType] - any arguments
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Forward)]
    root.addHandler(_Forward())
    root.setLevel(_output.threshold)
    logging.captureWarnings(True)


class _Output:
    """Where lines go and what they look like."""

    def __init__(self, threshold: int, format: Format, fields: Mapping[str, str], stream: TextIO | None) -> None:
        self.threshold = threshold
        self.sink = _Sink(stream)
        terminal = self.sink.is_terminal()
        text = format == "text" or (format == "auto" and terminal)

        def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
            return {**event, **fields}

        self.processors: list[Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            add_fields,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _clean,
            _for_people(colors=terminal and "NO_COLOR" not in os.environ) if text else _as_json,
        ]
        self._writer = cast(
            "FilteringBoundLogger",
            structlog.wrap_logger(
                self.sink,
                processors=self.processors,
                wrapper_class=structlog.make_filtering_bound_logger(threshold),
                cache_logger_on_first_use=True,
            ),
        )

    def write(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        getattr(self._writer, logging.getLevelName(level).lower())(event, **fields)


class _Sink:
    """Writes lines, one at a time, and shrugs when it cannot."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def _target(self) -> TextIO | None:
        return sys.stderr if self._stream is None else self._stream

    def is_terminal(self) -> bool:
        target = self._target()
        return target is not None and not target.closed and target.isatty()

    def msg(self, line: str) -> None:
        target = self._target()
        if target is None:
            return
        try:
            with self._lock:
                target.write(line + "\n")
                target.flush()
        except (OSError, ValueError):
            pass  # full disk, closed pipe, closed file: there is no better place to say so

    debug = info = warning = error = critical = msg


class _Forward(logging.Handler):
    """Hands the records of `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:
            message = f"{record.msg!r} with arguments that do not fit it"
        level = max(logging.DEBUG, min(record.levelno // 10 * 10, logging.CRITICAL))
        if level >= _output.threshold:
            _output.write(level, message, {"part": record.name, "exc_info": record.exc_info})


def _clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make every value plain, bounded and free of secrets."""
    return {name: _plain(name, value, DEPTH_LIMIT) for name, value in event.items()}


def _plain(name: str, value: Any, depth: int) -> Any:
    if value is not None and _SECRET_NAMES.search(name):
        return HIDDEN
    match value:
        case None | bool() | float():
            return value
        case int():
            return int(value) if -(2**63) <= value < 2**63 else f"an integer of {value.bit_length()} bits"
        case str():
            return _text(value)
        case Mapping() if depth:
            items = list(cast("Mapping[object, object]", value).items())[:ITEMS_LIMIT]
            return {_text(str(key)): _plain(str(key), inner, depth - 1) for key, inner in items}
        case list() | tuple() if depth:
            return [_plain("", inner, depth - 1) for inner in cast("list[object]", value)[:ITEMS_LIMIT]]
        case Mapping() | list() | tuple():
            return "…"
        case _:
            try:
                return _text(str(value))
            except Exception as error:
                return f"<{type(value).__name__}: {type(error).__name__} in its str()>"


def _text(text: str) -> str:
    if len(text) > VALUE_LIMIT:
        text = f"{text[:VALUE_LIMIT]}… ({len(text)} characters)"
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], masked(text))


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return msgspec.json.encode(event).decode()


def _for_people(colors: bool) -> Processor:
    # plain_traceback: the others print local variables, and so secrets
    render = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)

    def one_line(logger: WrappedLogger, method: str, event: EventDict) -> str:
        for name, value in event.items():
            if isinstance(value, str) and name != "exception":
                event[name] = value.replace("\n", "\\n")
        return render(logger, method, event)

    return one_line


_output = _Output(logging.WARNING, "auto", {}, None)
