"""Commands that act on many runs, against a real daemon."""

from __future__ import annotations

import io
import sys

import pytest


def gates(jivsd, lot, count):
    return [jivsd("start", "gate", "--id", f"{lot}-{n}", "--attribute", f"lot={lot}").out.strip() for n in range(count)]


def lot(name):
    return "--attribute", f"lot={name}"


def test_many_are_paused_resumed_signalled_and_terminated(jivsd):
    ids = gates(jivsd, "m", 3)
    tried = jivsd("pause", *lot("m"), "--dry-run")
    assert tried.out.startswith("Would pause 3 runs.\n")
    assert "gate:m-2" in tried.out
    assert jivsd("pause", *lot("m"), "--reason", "tea").out == "Paused: 3 runs.\n"
    listed = jivsd("list", "--paused", *lot("m"), "--json").json["items"]
    assert {one["run_id"] for one in listed} == set(ids)
    assert "3 runs" in jivsd("status").out
    assert jivsd("resume", *lot("m"), "--json").json["done"] == 3
    sent = jivsd("signal", "approve", '"ann"', *lot("m"), "--message-id", "m1")
    assert sent.out == "Sent the signal: 3 runs.\n"
    for run_id in ids:
        assert jivsd("wait", run_id).code == 0
    assert jivsd("terminate", *lot("m")).out == "Terminated: 0 runs.\n"


def test_what_is_refused_is_said_for_each(jivsd):
    jivsd("start", "ship", "--id", "many-1", "--attribute", "lot=r", "--wait")
    jivsd("retry", "ship:many-1")
    jivsd("wait", "ship:many-1")
    refused = jivsd("retry", *lot("r"))
    assert refused.code == 1
    assert refused.out.startswith("Tried again: 1 run.\n\nRefused: 1\n")
    assert "is not the newest of ship:many-1" in refused.out
    jivsd("wait", "ship:many-1")
    items = jivsd("retry", *lot("r"), "--json").json["items"]
    assert [(one["result"], one.get("code")) for one in items] == [("done", None), *[("refused", "state")] * 2]
    jivsd("wait", "ship:many-1")


def test_all_are_paused_and_resumed(jivsd):
    gates(jivsd, "a", 2)
    paused = jivsd("pause", "--workflow", "gate", "--json").json
    assert paused["done"] >= 2
    assert jivsd("resume", "--all", "--json").json["done"] == paused["done"]
    jivsd("cancel", *lot("a"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pause"], "which one? Name a RUN, or say which with a filter"),
        (["pause", "gate:x", "--all"], "give a RUN or a filter, not both"),
        (["pause", "--all", "--workflow", "gate"], "--all means every run: leave it out, or the other filters"),
        (["signal", "gate:x"], "which signal? Give RUN and NAME, or NAME and a filter"),
        (["signal", "gate:x", "approve", "1", "--all"], "give a RUN or a filter, not both"),
        (["cancel", "--created-after", "soon"], "--created-after: 'soon' is not a date"),
    ],
)
def test_a_command_line_that_means_nothing(jivsd, arguments, said):
    refused = jivsd(*arguments)
    assert refused.code == 2
    assert said in refused.err


@pytest.mark.parametrize(("answer", "done"), [("y\n", 1), ("\n", 0)])
def test_a_person_at_a_terminal_is_asked(jivsd, monkeypatch, answer, done):
    (run_id,) = gates(jivsd, f"t{done}", 1)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", screen)
    result = jivsd("terminate", *lot(f"t{done}"))
    assert "terminate 1 run? [y/N] " in screen.getvalue()
    assert (result.code, jivsd("show", run_id, "--json").json["status"] == "TERMINATED") == (0 if done else 130, done)


def test_stats_say_what_has_become_of_runs(jivsd):
    jivsd("start", "add-up", "--input", "1", "--wait")
    jivsd("start", "ship", "--wait")
    found = {one["workflow"]: one for one in jivsd("stats", "--json").json["items"]}
    assert found["add-up"]["ended"]["COMPLETED"] >= 1
    assert found["ship"]["failure_rate"] == 1.0
    assert found["ship"]["attempts"]["failed"] >= 1
    page = jivsd("stats", "ship", "--since", "1d").out
    assert "COMPENSATED" in page
    assert "failed attempts in the last" in page
    assert "100.0%" in page
    assert jivsd("stats", "nobody").code == 4


def test_one_run_is_looked_at_first(jivsd):
    (run_id,) = gates(jivsd, "d", 1)
    assert jivsd("pause", run_id, "--dry-run").out.startswith("Would pause 1 run.")
    assert jivsd("show", run_id, "--json").json["paused"] is False
    ended = jivsd("start", "add-up", "--input", "1", "--wait", "--json").json["run_id"]
    refused = jivsd("pause", ended, "--dry-run")
    assert refused.code == 1
    assert "is COMPLETED" in refused.out
