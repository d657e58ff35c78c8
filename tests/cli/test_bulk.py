"""Starting later, and many at once, from the command line."""

from __future__ import annotations

import json
import re

import pytest


def test_a_delayed_start(jivsd):
    run = jivsd("start", "add-up", "--input", "1", "--delay", "1h", "--id", "tomorrow", "--json").json
    assert (run["status"], run["start_at"]) == ("PENDING", run["wake_at"])
    assert "its time to begin" in jivsd("why", "add-up:tomorrow").out
    assert jivsd("cancel", "add-up:tomorrow", "--json").code == 0
    at = jivsd("start", "add-up", "--input", "1", "--at", "2099-12-24T18:00:00+01:00", "--json").json
    assert at["start_at"] == "2099-12-24T17:00:00Z"
    assert jivsd("terminate", at["run_id"]).code == 0
    wrong = jivsd("start", "add-up", "--at", "noon", "--json")
    assert (wrong.code, "'noon' is not a time" in wrong.error["message"]) == (2, True)


def test_many_from_a_file(jivsd, tmp_path):
    file = tmp_path / "many.jsonl"
    lines = [{"input": n, "id": f"bulk-{n}", "idempotency_key": f"b{n}"} for n in range(1200)]
    file.write_text("".join(f"{json.dumps(line)}\n\n" for line in lines))
    started = jivsd("start", "add-up", "--bulk", file, "--priority", "5")
    assert (started.code, started.out) == (0, "1,200 accepted, 0 existing, 0 refused\n")
    assert jivsd("show", "add-up:bulk-7", "--json").json["priority"] == 5
    lines[3]["input"] = "three"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines[:10]))
    again = jivsd("start", "add-up", "--bulk", file, "--json")
    assert again.code == 1
    assert (again.json["accepted"], again.json["existing"], again.json["refused"]) == (0, 9, 1)
    (refusal,) = again.json["refusals"]
    assert (refusal["line"], refusal["code"]) == (4, "invalid")
    assert "LINE" in jivsd("start", "add-up", "--bulk", file).out


@pytest.mark.parametrize(
    ("text", "options", "code", "problem"),
    [
        ('{"input": 1}\n{"inptu": 1}\n', [], 6, "--bulk, line 2: Object contains unknown field `inptu`"),
        ("5\n", [], 6, "--bulk, line 1: Expected `object`, got `int`"),
        ("{\n", [], 6, "--bulk, line 1: not JSON"),
        ("{}\n", ["--id", "x"], 2, "--bulk goes without"),
        (None, [], 4, "--bulk: cannot read"),
    ],
)
def test_a_file_that_does_not_fit(jivsd, tmp_path, text, options, code, problem):
    file = tmp_path / "many.jsonl"
    if text is not None:
        file.write_text(text)
    found = jivsd("start", "add-up", "--bulk", file, *options, "--json")
    assert (found.code, problem in found.error["message"]) == (code, True)


def test_status_shows_the_limits(jivsd):
    page = jivsd("status").out
    assert re.search(r"active_runs +all +[\d,]+ +10,000", page)
    assert re.search(r"running_steps +all +[\d,]+ +2,000", page)
