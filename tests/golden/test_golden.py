"""Journals that earlier versions have written replay on this one: the same commands, the same outcome."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from golden.make import PLACE, SCENARIOS
from jivsd.records import ENDED, payload_of
from jivsd.testing.history import History, replay

FILES = sorted(Path(__file__).parent.glob("*.json"))


def scenario_of(file):
    return next(name for name in sorted(SCENARIOS, key=len, reverse=True) if file.stem.startswith(name))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_journal_replays(file):
    history = History.read(file)
    assert history.issued
    assert history.status in ENDED
    plugin, _ = SCENARIOS[scenario_of(file)]
    assert replay(history, plugin).issued == history.issued


def test_every_scenario_has_its_journals():
    assert {file.stem for file in FILES} >= SCENARIOS.keys()


def test_every_kind_of_command_and_event_is_among_them():
    histories = [History.read(file) for file in FILES]
    issued = {command.kind for history in histories for command in history.issued}
    assert issued == {
        "step", "timer", "signal", "until", "marker", "version", "child", "lock",
        "update", "publish", "attributes", "start", "send", "continue",
    }  # fmt: skip
    events = {event.kind for history in histories for event in history.events}
    assert events >= {
        "Started", "StepDone", "StepFailed", "AttemptFailed", "StepCancelled", "TimerFired", "Marker", "Signal",
        "LockGranted", "Recovered", "Reset", "ChildEnded", "CancelRequested", "CodeChanged",
        "Paused", "Resumed", "Update", "UpdateDone", "ContinuedAsNew", "Ended",
    }  # fmt: skip
    statuses = {history.status for history in histories}
    assert statuses == {"COMPLETED", "FAILED", "COMPENSATED", "CANCELLED", "TERMINATED", "TIMED_OUT", "CONTINUED"}


def test_decisions_of_people_are_among_them():
    events = [payload_of(event) for file in FILES for event in History.read(file).journal() if event.kind == "StepDone"]
    assert any(done.why and not done.skipped for done in events)
    assert any(done.why and done.skipped for done in events)


def test_no_journal_names_the_machine_that_it_was_made_on():
    for file in FILES:
        paths = re.findall(r'"(?:sqlite:///)?(/[^"]*)"', file.read_text())
        assert all(path.startswith(f"{PLACE}/") for path in paths), paths
