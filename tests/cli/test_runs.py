"""The commands about runs, against a real daemon."""

from __future__ import annotations

import json
import re

import pytest

from jivsd.testing.__main__ import main

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def test_start_prints_the_run_id_alone_on_stdout(jivsd):
    started = jivsd("start", "add-up", "--input", "3")
    assert started.code == 0
    assert re.fullmatch(rf"{UUID}\n", started.out)
    assert f"jivsd wait {started.out.strip()}" in started.err


def test_start_and_wait(jivsd):
    ended = jivsd("start", "add-up", "--input", "3", "--id", "waited", "--wait")
    assert (ended.code, ended.err) == (0, "")
    assert re.match(r"COMPLETED add-up:waited after \d+", ended.out)
    assert re.search(r"Output +3\n", ended.out)
    as_json = jivsd("start", "add-up", "--input", "3", "--wait", "--json")
    assert (as_json.code, as_json.err) == (0, "")
    assert as_json.json["output"] == 3
    assert as_json.json["status"] == "COMPLETED"
    assert as_json.json["existing"] is False
    assert as_json.json["created_at"].endswith("Z")


def test_a_run_that_fails_is_exit_code_1(jivsd):
    failed = jivsd("start", "ship", "--wait")
    assert failed.code == 1
    assert failed.out.startswith("COMPENSATED ship:")
    assert "ConnectionError: the carrier [31mdoes not answer" in failed.out
    assert "\x1b" not in failed.out
    assert "jivsd timeline" in failed.err
    assert jivsd("start", "ship", "--wait", "--json").json["error"]["type"] == "ConnectionError"


def test_what_runs_publish_is_listed_and_removed(jivsd):
    for item in ("tea", "milk"):
        jivsd("start", "announce", "--input", f'"{item}"', "--id", item, "--wait")
    listed = jivsd("outbox", "list", "--topic", "announced", "--limit", "1")
    assert re.search(r"announced +announce:tea +\{\"item\": \"tea\"\}", listed.out)
    number = jivsd("outbox", "list", "--limit", "1", "--json").json["next"]
    assert f"jivsd outbox list --after {number}" in listed.err
    (milk,) = jivsd("outbox", "list", "--after", number, "--json").json["items"]
    assert (milk["payload"], milk["path"], milk["workflow_id"]) == ({"item": "milk"}, "emit", "milk")
    assert jivsd("outbox", "prune", "--before", "1d").out == "Removed 0 events.\n"
    assert jivsd("outbox", "prune", "--before", "0s", "--json").json == {"removed": 2}
    assert jivsd("outbox", "list").out == "Nothing was published.\n"


def test_watching_all_that_happens(jivsd):
    run = jivsd("start", "add-up", "--input", "2", "--id", "seen", "--wait", "--json").json
    told = jivsd("watch", "--after", "oldest", "--run", run["run_id"], "--limit", "4")
    assert (told.code, told.err) == (0, "")
    lines = [line.split("  ")[1:] for line in told.out.splitlines()]
    assert lines == [
        ["add-up:seen", "Started"],
        ["add-up:seen", "StepDone add"],
        ["add-up:seen", "StepDone add#2"],
        ["add-up:seen", "Ended COMPLETED"],
    ]
    watched = jivsd("watch", "--after", "oldest", "--id", "seen", "--kind", "StepDone", "--limit", "1", "--json")
    event = json.loads(watched.out)
    assert (event["run_id"], event["seq"], event["path"]) == (run["run_id"], 2, "add")
    following = jivsd("watch", "--after", event["cursor"], "--id", "seen", "--limit", "1", "--json")
    assert json.loads(following.out)["seq"] == 3
    wrong = jivsd("watch", "--kind", "Stepped")
    assert wrong.code == 6
    assert "kind" in wrong.err
    wrong = jivsd("watch", "--after", "yesterday")
    assert "'yesterday' is no cursor of this feed" in wrong.err


def test_the_same_idempotency_key_is_the_same_run(jivsd):
    first = jivsd("start", "add-up", "--input", "1", "--idempotency-key", "k1", "--json").json
    again = jivsd("start", "add-up", "--input", "1", "--idempotency-key", "k1", "--json").json
    assert (first["existing"], again["existing"]) == (False, True)
    assert again["run_id"] == first["run_id"]
    other = jivsd("start", "add-up", "--input", "2", "--idempotency-key", "k1", "--json")
    assert other.code == 5
    assert other.error["code"] == "key_reused"
    assert other.error["run_id"] == first["run_id"]


@pytest.mark.parametrize(
    ("arguments", "code", "word", "says"),
    [
        (["start", "nope"], 4, "not_found", "nope"),
        (["start", "add-up", "--input", '"x"'], 6, "invalid", "int"),
        (["start", "add-up", "--input", "x"], 6, "bad_json", "--input"),
        (["start", "add-up", "--input", "1", "--timeout", "soon"], 6, "invalid", "soon"),
        (["show", "add-up:nobody"], 4, "not_found", "nobody"),
        (["show", ""], 4, "not_found", "run"),
        (["timeline", "nobody"], 4, "not_found", "nobody"),
        (["why", "nobody"], 4, "not_found", "nobody"),
        (["signal", "nobody", "x"], 4, "not_found", "nobody"),
        (["query", "nobody", "x"], 4, "not_found", "nobody"),
        (["pause", "nobody"], 4, "not_found", "nobody"),
        (["list", "--cursor", "wrong"], 6, "invalid", "cursor"),
        (["list", "--status", "done"], 2, "usage", "COMPLETED"),
        (["list", "--limit", "0"], 2, "usage", "--limit"),
        (["start"], 2, "usage", "WORKFLOW"),
        (["prune"], 2, "usage", "--before"),
        (["prune", "--before", "1d", "--status", "RUNNING"], 2, "usage", "RUNNING"),
        (["incidents", "show", "nobody"], 4, "not_found", "nobody"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(jivsd, arguments, code, word, says):
    refused = jivsd(*arguments, "--json")
    assert refused.code == code
    assert refused.error["code"] == word
    assert says in refused.error["message"]
    text = jivsd(*arguments)
    assert (text.code, text.out) == (code, "")
    assert text.err.startswith("jivsd: ")
    assert "\x1b" not in text.err
    assert len(text.err.splitlines()) <= 2


def test_what_a_user_typed_cannot_control_the_terminal(jivsd):
    for odd in ("\x1b[2J", "\u202eabc", "a\nb", "\udcff", ".."):
        refused = jivsd("show", odd)
        assert refused.code in (4, 6)
        assert not set(refused.err) & set("\x1b\u202e")


def test_an_input_that_does_not_fit_is_told_what_fits(jivsd):
    for command in (["start", "add-up"], ["start", "add-up", "--input", '"x"']):
        refused = jivsd(*command)
        assert refused.code == 6
        assert "workflow 'add-up': invalid input: Expected `int`, got" in refused.err
        assert "Its --input: integer\n" in refused.err


def test_an_unknown_workflow_is_told_the_known_ones(jivsd):
    assert "Workflows: " in jivsd("start", "nope").err
    assert "add-up" in jivsd("start", "nope").err


def test_runs_are_found_by_their_attributes(jivsd):
    given = ("--attribute", "region=eu", "--attribute", "tries=3", "--attribute", "gold=true")
    run_id = jivsd("start", "add-up", "--input", "1", *given).out.strip()
    assert jivsd("show", run_id, "--json").json["attributes"] == {"region": "eu", "tries": 3, "gold": True}
    assert '"region": "eu"' in jivsd("show", run_id).out
    assert [run["run_id"] for run in jivsd("list", *given, "--json").json["items"]] == [run_id]
    assert jivsd("list", "--attribute", "region=us").out == "No runs.\n"
    refused = jivsd("list", "--attribute", "region")
    assert (refused.code, refused.err) == (2, "jivsd: --attribute: 'region' is not of the form NAME=VALUE\n")


@pytest.mark.slow
def test_the_life_of_a_run_that_waits(jivsd):
    run_id = jivsd("start", "gate", "--id", "g1").out.strip()
    assert jivsd("query", "gate:g1", "progress", "--json").json["value"]["total"] == 4
    assert '"phase": "FANNING"' in jivsd("query", "gate:g1", "progress").out

    why = jivsd("why", "gate:g1")
    assert re.search(r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d \(in 59m 5\ds\)", why.out)
    assert jivsd("why", "gate:g1", "--json").json["run"]["run_id"] == run_id

    paused = jivsd("pause", run_id, "--reason", "lunch")
    assert "is paused: lunch" in paused.out
    assert jivsd("pause", run_id).code == 5
    assert jivsd("show", run_id, "--json").json["paused"] is True
    assert jivsd("resume", run_id).code == 0

    asked = jivsd("update", "gate:g1", "ask", '"who"', "--message-id", "u1", "--wait", "0s")
    assert asked.out == f"Run {run_id} has the update 'ask', message u1, and works on it.\n"
    assert f"jivsd update {run_id} ask --message-id u1" in asked.err
    assert jivsd("update", "gate:g1", "tell").code == 4
    assert jivsd("update", "gate:g1", "ask", "--wait", "long").code == 2

    sent = jivsd("signal", "gate:g1", "approve", '"ann"', "--message-id", "m1", "--json").json
    assert sent == {"run_id": run_id, "message_id": "m1", "duplicate": False}
    ended = jivsd("wait", "gate:g1")
    assert (ended.code, '"ann"' in ended.out) == (0, True)
    assert jivsd("update", run_id, "ask", "--message-id", "u1").out == '"who? ann"\n'
    assert "ask" in jivsd("timeline", run_id).out
    again = jivsd("signal", run_id, "approve", "--input", '"ann"')
    assert again.code == 5
    assert "ended" in again.err


def test_a_negative_number_is_no_option(jivsd):
    assert jivsd("start", "add-up", "--input", "-5", "--wait", "--json").json["output"] == 0
    assert jivsd("start", "add-up", "--input=-5").code == 0


def test_a_payload_is_given_once(jivsd):
    twice = jivsd("signal", "gate:g1", "approve", "1", "--input", "2")
    assert twice.code == 2
    assert "twice" in twice.err


def test_cancel_and_terminate(jivsd):
    jivsd("start", "gate", "--id", "c1")
    assert "is asked to stop" in jivsd("cancel", "gate:c1", "--reason", "no more").out
    assert jivsd("wait", "gate:c1").code == 1
    assert jivsd("show", "gate:c1", "--json").json["status"] == "CANCELLED"
    jivsd("start", "gate", "--id", "t1")
    assert "is terminated" in jivsd("terminate", "gate:t1").out
    assert jivsd("wait", "gate:t1").code == 1
    assert jivsd("list", "--id", "t1", "--status", "terminated", "--json").json["items"][0]["workflow"] == "gate"


def test_retry_is_a_new_run(jivsd):
    failed = jivsd("start", "ship", "--id", "r1", "--wait", "--json").json
    again = jivsd("retry", "ship:r1")
    assert again.code == 0
    assert re.fullmatch(rf"{UUID}\n", again.out)
    assert again.out.strip() != failed["run_id"]
    assert jivsd("wait", again.out.strip()).code == 1


@pytest.mark.slow
def test_lists_are_whole_lines_and_pages(jivsd):
    for number in range(4):
        name = f"an id of some length, number {number}"
        jivsd("start", "add-up", "--input", "1", "--id", name, "--attribute", "listed=yes", "--wait")
    listed = jivsd("list", "--attribute", "listed=yes", "--limit", "3")
    head, *lines = listed.out.splitlines()
    assert head.split() == ["RUN", "STATUS", "AGE", "TOOK", "WORKFLOW:ID"]
    assert len(lines) == 3
    for number, line in zip((3, 2, 1), lines, strict=True):
        assert re.fullmatch(rf"{UUID}  COMPLETED +\S+ +\S+  add-up:an id of some length, number {number}", line)
    assert "--cursor" in listed.err

    seen, cursor = [], None
    while True:
        more = ["--cursor", cursor] if cursor else []
        page = jivsd("list", "--attribute", "listed=yes", "--limit", "2", "--json", *more).json
        assert set(page) == {"items", "next"}
        seen += [item["run_id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    everything = [item["run_id"] for item in jivsd("list", "--attribute", "listed=yes", "--json").json["items"]]
    assert len(seen) == 4
    assert seen == everything == sorted(everything, reverse=True)
    assert jivsd("list", "--workflow", "nope").out == "No runs.\n"
    assert jivsd("list", "--workflow", "nope", "--json").json == {"items": [], "next": None}


def test_a_run_and_its_timeline_are_shown(jivsd):
    run_id = jivsd("start", "add-up", "--input", "8", "--id", "t8", "--correlation-id", "c8", "--wait", "--json").json[
        "run_id"
    ]
    shown = jivsd("show", "add-up:t8").out
    for line in (f"Run          {run_id}", "Status       COMPLETED", "Correlation  c8", "Input        8"):
        assert line in shown.splitlines()
    tree = jivsd("timeline", run_id).out
    assert "├── add … add#8  8 times done" in tree
    assert "└── Ended  COMPLETED" in tree
    flat = jivsd("timeline", run_id, "--flat", "--limit", "3", "--after", "1")
    assert [line.split()[0] for line in flat.out.splitlines()[2:]] == ["SEQ", "2", "3", "4"]
    assert "--after 4" in flat.err
    page = jivsd("timeline", run_id, "--limit", "2", "--json").json
    assert [event["kind"] for event in page["items"]] == ["Started", "StepDone"]
    assert page["next"] == 2


@pytest.mark.slow
def test_an_incident_is_looked_at_retried_and_resolved(jivsd):
    jivsd("start", "weigh", "--id", "w1")
    held = _incident(jivsd, "weigh:w1")
    assert "the scales are broken" in held["message"]
    assert jivsd("show", "weigh:w1", "--json").json["status"] == "BLOCKED"
    assert "the scales are broken" in jivsd("why", "weigh:w1").out
    page = jivsd("incidents", "show", held["incident_id"])
    assert f"jivsd incidents retry {held['incident_id']}" in page.out

    retried = jivsd("incidents", "retry", held["incident_id"], "--why", "mended", "--json").json
    assert (retried["state"], retried["resolved_why"]) == ("RESOLVED", "mended")
    again = _incident(jivsd, "weigh:w1", failures=3)  # the retry is one of them, in the journal's words

    wrong = jivsd("incidents", "resolve", again["incident_id"], "--value", '"heavy"')
    assert wrong.code == 6
    resolved = jivsd("incidents", "resolve", again["incident_id"], "--value", "7", "--reason", "weighed by hand")
    assert resolved.code == 0
    assert "weighed by hand" in resolved.out
    assert jivsd("wait", "weigh:w1", "--json").json["output"] == 7
    assert jivsd("incidents", "list", "--run", "weigh:w1").out == "No incidents.\n"
    assert jivsd("incidents", "list", "--run", "weigh:w1", "--all", "--json").json["items"]


def test_a_group_of_incidents_is_decided_at_once(jivsd):
    jivsd("start", "weigh", "--id", "g1")
    incident = _incident(jivsd, "weigh:g1")
    group = incident["fingerprint"]
    assert group in jivsd("incidents", "groups").out
    assert "seen by" not in jivsd("incidents", "list", "--group", group).out
    assert jivsd("incidents", "acknowledge", "--group", group, "--reason", "mine").out == "acknowledge: 1 of 1 done.\n"
    assert "(seen by" in jivsd("incidents", "list", "--group", group).out
    skipped = jivsd("incidents", "skip", "--group", group)
    assert (skipped.code, "cannot be skipped" in skipped.out) == (1, True)
    assert jivsd("incidents", "retry").code == 2
    assert jivsd("incidents", "retry", incident["incident_id"], "--group", group).code == 2
    assert jivsd("incidents", "resolve", incident["incident_id"]).code == 6
    assert jivsd("incidents", "resolve", "--group", group, "--value", "5").code == 0
    assert jivsd("wait", "weigh:g1", "--json").json["output"] == 5
    assert "acknowledge by" in jivsd("incidents", "show", incident["incident_id"]).out


def test_a_workflow_is_quarantined_and_lifted(jivsd):
    assert jivsd("quarantine", "list").out == "No workflow is quarantined.\n"
    begun = jivsd("quarantine", "begin", "add-up", "--reason", "it miscounts")
    assert "workflow 'add-up' is quarantined: it miscounts" in begun.out
    refused = jivsd("start", "add-up", "--input", "1")
    assert (refused.code, "jivsd quarantine lift add-up" in refused.err) == (5, True)
    assert "it miscounts" in jivsd("quarantine", "list").out
    assert jivsd("quarantine", "lift", "add-up").out == "Workflow 'add-up' runs again.\n"
    assert jivsd("start", "add-up", "--input", "1", "--wait").code == 0
    assert jivsd("quarantine", "lift", "add-up").code == 4


def _incident(jivsd, ref, failures=1):
    """The run's open incident, once its journal has so many failures: no command waits for that."""
    for _ in range(100):
        events = jivsd("timeline", ref, "--json").json["items"]
        items = jivsd("incidents", "list", "--run", ref, "--json").json["items"]
        if items and sum(event["kind"] == "AttemptFailed" for event in events) == failures:
            return items[0]
    raise AssertionError(f"no incident holds {ref}")


def test_prune_removes_what_has_ended(jivsd):
    jivsd("start", "gate", "--id", "stays")
    jivsd("start", "add-up", "--input", "1", "--id", "goes", "--wait")
    assert jivsd("prune", "--before", "365d").out == "Removed 0 runs.\n"
    assert jivsd("prune", "--before", "0s", "--workflow", "add-up", "--json").json["pruned"] >= 1
    assert jivsd("show", "add-up:goes").code == 4
    assert jivsd("show", "gate:stays").code == 0


def test_prune_counts_archives_and_goes_on(jivsd, tmp_path, capsys):
    file = tmp_path / "runs.jsonl.gz"
    run_ids = [
        jivsd("start", "add-up", "--input", "2", "--id", f"old{number}", "--wait", "--json").json["run_id"]
        for number in range(3)
    ]
    options = ("prune", "--before", "0s", "--workflow", "add-up")
    counted = jivsd(*options, "--dry-run", "--json").json
    assert counted["runs"] >= 3
    assert f"{counted['runs']} runs would be removed." in jivsd(*options, "--dry-run").out
    done = jivsd(*options, "--archive", file, "--shrink", "--json").json
    assert done["pruned"] == done["archived"] == counted["runs"]
    assert jivsd("show", run_ids[0]).code == 4
    assert main(["replay", str(file)]) == 0
    assert "3 runs replay" in capsys.readouterr().out.replace(f"{counted['runs']} of {counted['runs']}", "3")
    assert main(["replay", str(file), "--run", run_ids[1]]) == 0
    assert "add-up:old1 replays: 4 events, 2 commands; it ends COMPLETED" in capsys.readouterr().out
    jivsd("start", "add-up", "--input", "0", "--id", "old9", "--wait")
    assert jivsd(*options, "--archive", file, "--json").json["archived"] == 1
    (tmp_path / "notes").write_text("dear diary")
    assert jivsd(*options, "--archive", tmp_path / "notes", "--json").error["code"] == "not_an_archive"
    assert jivsd(*options, "--keys-before", "1h").code == 6
    assert jivsd(*options, "--keys-before", "2d").out.endswith("Forgot 0 idempotency keys.\n")


def test_list_by_time_and_correlation(jivsd):
    run_id = jivsd("start", "add-up", "--input", "0", "--id", "timed", "--wait", "--json").json["run_id"]
    found = jivsd("list", "--ended-after", "1h", "--created-after", "1h", "--id", "timed", "--json").json["items"]
    assert [run["run_id"] for run in found] == [run_id]
    for none in (("--ended-before", "1h"), ("--created-before", "1h"), ("--correlation-id", "c"), ("--parent", run_id)):
        assert jivsd("list", "--id", "timed", *none, "--json").json["items"] == []


def test_locks(jivsd):
    assert jivsd("locks").out == "Nobody holds a lock.\n"
    for id in ("holds", "first", "second"):
        assert jivsd("start", "gate", "--id", id, "--lock-key", "crane", "--json").code == 0
    page = jivsd("locks", "--key", "crane", "--waiters", "1", "--json").json
    (crane,) = page["items"]
    assert (crane["holder"]["workflow_id"], crane["waiting"], page["circles"]) == ("holds", 2, [])
    assert [one["workflow_id"] for one in crane["waiters"]] == ["first"]
    shown = jivsd("locks").out
    assert [word in shown for word in ("crane", "gate:holds", "waits 2", "gate:second")] == [True] * 4
    tree = jivsd("locks", "--graph", "--waiters", "1").out
    assert tree.index("gate:holds") < tree.index("crane") < tree.index("gate:first") < tree.index("1 more")
    for id in ("second", "first", "holds"):
        jivsd("terminate", f"gate:{id}")
    assert jivsd("locks", "--json").json == {"items": [], "next": None, "circles": []}
