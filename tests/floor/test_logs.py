from __future__ import annotations

import io
import json
import logging
import sys
import timeit
import warnings

import pytest
import structlog
import trio

from jivsd import logs


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def lines():
    """The log, as JSON, of what happens before it is called."""
    stream = io.StringIO()
    logs.configure("info", "json", "n1", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_fields(lines):
    log = logs.get("engine").bind(workflow="nap")
    with logs.bound(run_id="r1", correlation_id="c1"):
        log.info("run started", attempt=2)
    log.warning("later")
    first, second = lines()
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "run started",
        "level": "info",
        "node": "n1",
        "part": "engine",
        "workflow": "nap",
        "run_id": "r1",
        "correlation_id": "c1",
        "attempt": 2,
    }
    assert "run_id" not in second


def test_levels_below_the_configured_one_are_not_written(lines):
    log = logs.get("engine")
    for say in (log.debug, log.info, log.warning, log.error, log.critical):
        say("x")
    logs.configure("critical", "json", "n1", io.StringIO())
    log.error("dropped")
    assert [line["level"] for line in lines()] == ["info", "warning", "error", "critical"]


def test_libraries_go_the_same_way(lines, monkeypatch):
    root = logging.getLogger()  # without pytest's own handler, which raises for wrong arguments
    monkeypatch.setattr(root, "handlers", [one for one in root.handlers if isinstance(one, logs._Forward)])
    with logs.bound(run_id="r1"):
        logging.getLogger("hypercorn.error").info("Running on %s", "postgresql://u:pw@h")
    logging.getLogger("quart").debug("below")
    logging.getLogger("odd").log(35, "too %s", "many", "arguments")
    structlog.get_logger().info("from a plugin", part="crm")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    seen = lines()
    assert [(line["part"], line["level"]) for line in seen] == [
        ("hypercorn.error", "info"),
        ("odd", "warning"),
        ("crm", "info"),
        ("py.warnings", "warning"),
    ]
    assert seen[0]["event"] == "Running on postgresql://u:***@h"
    assert seen[0]["run_id"] == "r1"
    assert seen[1]["event"] == "'too %s' with arguments that do not fit it"


async def test_fields_follow_tasks_and_threads(lines):
    with logs.bound(run_id="r1"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, logging.getLogger("step").warning, "in a thread")
    [line] = lines()
    assert line["run_id"] == "r1"


def test_an_exception_is_written_with_its_traceback_and_without_passwords(lines):
    try:
        raise ExceptionGroup("two", [OSError("cannot reach postgresql://u:hun/ter@2@h/d"), KeyError("x")])
    except ExceptionGroup as error:
        logs.get("store").error("failed", error=error, exc_info=error)
    [line] = lines()
    assert "Traceback" in line["exception"]
    assert "postgresql://u:***@h/d" in line["exception"]
    assert "ter@2" not in json.dumps(line)


def test_secrets_are_hidden_by_name_and_in_urls(lines):
    logs.get("x").info(
        "at redis://:hunter2@h",
        token="hunter2",
        headers={"Authorization": "Bearer hunter2", "Accept": "*"},
        urls=["postgresql://h/d?user=a&password=hunter2&sslmode=require"],
        password=None,
    )
    [line] = lines()
    assert "hunter2" not in json.dumps(line)
    assert line["headers"] == {"Authorization": "***", "Accept": "*"}
    assert line["urls"] == ["postgresql://h/d?user=a&password=***&sslmode=require"]
    assert line["password"] is None


def test_any_value_can_be_logged(lines):
    class Broken:
        def __str__(self):
            raise RuntimeError

    loop = {}
    loop["self"] = loop
    logs.get("x").info(
        "odd\ud800",
        big=10**5000,
        loop=loop,
        broken=Broken(),
        long="x" * 100_000,
        many=list(range(1000)),
        nan=float("nan"),
        level="mine",
        control="\x1b[2J\x00\n",
    )
    [line] = lines()
    assert line["event"] == "odd\\ud800"
    assert line["level"] == "info"
    assert line["broken"] == "<Broken: RuntimeError in its str()>"
    assert line["control"] == "\\x1b[2J\\x00\n"
    assert len(line["long"]) < 17_000
    assert len(line["many"]) == 100


def test_auto_is_text_on_a_terminal_and_json_elsewhere(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    logs.configure("info", "auto", "n1", terminal)
    logs.get("x").info("hello\nworld")
    logs.configure("info", "auto", "n1", pipe)
    logs.get("x").info("hello")
    monkeypatch.setenv("NO_COLOR", "1")
    logs.configure("info", "auto", "n1", plain := Terminal())
    logs.get("x").info("hello")
    assert "\x1b[" in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1
    assert json.loads(pipe.getvalue())["event"] == "hello"
    assert "\x1b[" not in plain.getvalue()
    assert "[info     ] hello" in plain.getvalue()


def test_text_for_people_shows_no_local_variables():
    logs.configure("info", "text", "n1", stream := io.StringIO())

    def fail():
        local = "hunter2"
        raise ValueError(len(local))

    try:
        fail()
    except ValueError as error:
        logs.get("x").error("failed", exc_info=error)
    assert "ValueError: 7" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_a_stream_that_fails_disturbs_nobody(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        logs.configure("info", "json", "n1", stream)
        logs.get("x").error("lost")
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure("info", "auto", "n1")
    logs.get("x").error("lost")


def test_unconfigured_it_warns_on_stderr(capsys):
    logs.get("x").info("silent")
    logs.get("x").warning("heard")
    out, err = capsys.readouterr()
    assert "heard" in err
    assert "silent" not in err
    assert not out


def test_a_message_below_the_level_costs_next_to_nothing(lines):
    log = logs.get("engine")
    assert min(timeit.repeat(lambda: log.debug("step", path="a"), number=1000, repeat=20)) / 1000 < 1e-6
    assert not lines()
