"""How things look, for records that a small daemon would not show."""

from __future__ import annotations

import io

import msgspec
import pytest

from jivsd.cli import demoshow, incidentpages, look, proofpages, runpages, timelines
from jivsd.cli.output import console
from jivsd.cli.watching import of_steps, progress_of
from jivsd.engine.api import Wait, Why
from jivsd.proof.demo import Count, DemoReport, Kill, Scene
from jivsd.records import (
    AttemptFailed,
    Ended,
    ErrorRecord,
    Event,
    Incident,
    IncidentState,
    Kind,
    Progress,
    Recovered,
    Run,
    Signal,
    Status,
    StepDone,
    StepFailed,
    encode,
)

AT = 1_790_000_000_000_000
RUN_ID = "01a1fc02-5e9b-70e7-afa4-1770e8919822"
ERROR = ErrorRecord("OSError", "no\nspace", {"table": "orders"}, [ErrorRecord("ValueError", "inner")])


def a_run(**changes):
    fields = {
        "run_id": RUN_ID,
        "workflow": "move",
        "workflow_id": "acme",
        "code_hash": "c0de",
        "shard": 1,
        "status": Status.RUNNING,
        "input": msgspec.Raw(b'{"tenant":"acme"}'),
        "created_at": AT,
        "started_at": AT,
    }
    return Run(**fields | changes)


def an_event(seq, kind, path, payload, **more):
    return Event(RUN_ID, seq, kind, path, encode(payload), AT + seq * look.SECOND, **more)


def shown(page):
    file = io.StringIO()
    screen = console(file)
    for part in page:
        screen.print(part)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def done(seq, path, result=b"1"):
    return an_event(seq, Kind.STEP_DONE, path, StepDone("h", msgspec.Raw(result)))


def test_a_timeline_is_a_tree_of_branches():
    events = [
        *(done(seq, f"load/tables[a]/copy#{seq}" if seq > 1 else "load/tables[a]/copy") for seq in range(1, 8)),
        an_event(8, Kind.ATTEMPT_FAILED, "load/verify", AttemptFailed("h", ERROR, AT), attempt=1),
        an_event(9, Kind.SIGNAL, "", Signal("approve", "m", msgspec.Raw(b'"ann"')), by="ann"),
        done(10, "load/verify", b'"' + b"x" * 200 + b'"'),
        an_event(11, Kind.RECOVERED, "", Recovered(["load/index"])),
        an_event(12, Kind.STEP_FAILED, "load/index", StepFailed("h", ERROR, unknown=True), attempt=3),
        an_event(13, Kind.ENDED, "", Ended(Status.FAILED, error=ERROR)),
    ]
    _, _, *tree = shown(timelines.tree(a_run(), events))
    parts = [
        ("├── load", ""),
        ("│   ├── tables[a]", ""),
        ("│   │   └── copy … copy#7  7 times done", ""),
        ("│   ├── verify  AttemptFailed  OSError: no space; again at", ""),
        ("│   │   StepDone  ", "x…"),
        ("│   └── index  StepFailed  OSError: no space; it may have happened all the same (attempt 3)", ""),
        ('├── Signal  approve "ann" by ann', ""),
        ("├── Recovered  after a restart; in flight: load/index", ""),
        ("└── Ended  FAILED OSError: no space", ""),
    ]
    assert len(tree) == len(parts)
    for line, (start, inside) in zip(tree, parts, strict=True):
        assert line.startswith(start)
        assert inside in line


def test_branches_that_went_well_are_folded_only_when_there_are_many():
    few = [done(seq, f"fan[{seq}]/add") for seq in range(10)]
    many = [done(seq, f"fan[{seq}]/add") for seq in range(1000)]
    assert len(shown(timelines.tree(a_run(), few))) == 2 + 20
    assert shown(timelines.tree(a_run(), many))[2:][0].startswith("└── fan[0] … fan[999]  1,000 times done")
    many[500] = an_event(500, Kind.STEP_FAILED, "fan[500]/add", StepFailed("h", ERROR))
    assert sum("StepFailed" in line for line in shown(timelines.tree(a_run(), many))) == 1


def test_an_event_of_a_newer_daemon_is_shown_as_it_is():
    odd = Event(RUN_ID, 1, "Teleported", "ship", b'{"to": "mars"}', AT)
    assert 'Teleported  {"to": "mars"}' in shown(timelines.tree(a_run(), [odd]))[2]
    assert "mars" in shown(timelines.flat(a_run(), [odd]))[3]


def test_why_names_the_holders_of_a_lock_and_the_last_error():
    waits = [
        Wait("", "lock", "lock 'tenant:acme'", behind=["run-1", "run-2"]),
        Wait("ship", "retry", "attempt 3 of step ship", until=AT, error="OSError: gone"),
    ]
    lines = shown(runpages.why(Why(a_run(status=Status.WAITING, paused=True), waits)))
    assert lines[0] == "move:acme  WAITING paused"
    assert "│   ├── held by run run-1" in lines
    assert "│   └── before it run run-2" in lines
    assert any(line.endswith("OSError: gone") for line in lines)
    assert "at work" in shown(runpages.why(Why(a_run(), [])))[-1]
    assert "ended" in shown(runpages.why(Why(a_run(status=Status.FAILED), [])))[-1]


def test_an_error_is_shown_with_its_data_and_causes():
    lines = shown(runpages.run(a_run(status=Status.FAILED, error=ERROR, ended_at=AT + 90 * look.SECOND)))
    assert "Error        OSError: no" in lines
    assert any(line.endswith('space {"table": "orders"}') for line in lines)
    assert any(line.endswith("  ValueError: inner") for line in lines)
    assert "Took         1m 30s" in lines


def test_a_huge_output_is_cut_on_the_page():
    huge = msgspec.Raw(encode(["x" * 100] * 1000))
    lines = shown(runpages.run(a_run(output=huge)))
    assert len("".join(lines)) < 10_000
    assert any("--json shows all" in line for line in lines)


def test_what_others_wrote_cannot_control_the_terminal():
    nasty = "a\x1b[2Jb\x07c\u202ed\x9be"
    run = a_run(workflow_id=nasty, error=ErrorRecord(nasty, nasty), status=Status.FAILED)
    incident = Incident("i", nasty, nasty, AT, details={nasty: nasty})
    pages = [
        runpages.listing([run]),
        runpages.run(run),
        timelines.tree(run, [an_event(1, Kind.SIGNAL, nasty, Signal(nasty, "m", msgspec.Raw(b"1")), by=nasty)]),
        incidentpages.incident(incident),
    ]
    for page in pages:
        text = "\n".join(shown(page))
        assert "a[2Jbcde" in text
        assert not set(text) & set("\x1b\x07\u202e\x9b")


def test_markup_in_names_is_only_text():
    assert "[bold]x[/bold] :smile:" in "\n".join(shown(runpages.run(a_run(workflow_id="[bold]x[/bold] :smile:"))))


def test_incidents():
    where = {"run_id": RUN_ID, "workflow": "move", "path": "ship"}
    how = {"resolution": "value", "resolved_by": "ann", "resolved_why": "by hand", "resolved_at": AT}
    open_ = Incident("i-1", "step", "it failed", AT, details={"attempts": 5}, **where)
    mended = msgspec.structs.replace(open_, state=IncidentState.RESOLVED, **how)
    page = shown(incidentpages.incident(open_))
    assert "Attempts  5" in page
    assert any("jivsd incidents retry i-1" in line for line in page)
    assert any("jivsd incidents resolve i-1" in line for line in page)
    closed = "\n".join(shown(incidentpages.incident(mended)))
    assert "by hand" in closed
    assert "jivsd incidents retry" not in closed
    listed = shown(incidentpages.listing([open_, mended]))
    assert listed[1].endswith("move:ship: it failed")
    assert listed[2].endswith("move:ship: it failed (value)")


def test_only_what_says_how_far_it_is_is_progress():
    told = progress_of(msgspec.Raw(b'{"phase": "LOADING", "done": 3, "total": 4, "status": "more than we know"}'))
    assert told is not None
    assert told.percent == 75
    assert progress_of(msgspec.Raw(b'{"done": 9, "total": 4}')).percent == 100
    assert progress_of(msgspec.Raw(b'{"done": 0, "total": 0}')).percent is None
    for other in (b"null", b"{}", b"7", b'{"state": 1}', b'{"done": "many"}', b"[1]"):
        assert progress_of(msgspec.Raw(other)) is None


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (-1, "0ms", "0ms"),
        (0.0124, "12ms", "12ms"),
        (3.44, "3.4s", "3s"),
        (312, "5m 12s", "5m"),
        (7500, "2h 5m", "2h"),
        (187_200, "2d 4h", "2d"),
    ],
)
def test_lengths_of_time(seconds, long, short):
    assert look.length(int(seconds * look.SECOND)) == long
    assert look.brief(int(seconds * look.SECOND)) == short


def test_the_page_of_a_demo_names_what_does_not_hold():
    report = DemoReport(
        holds=False,
        kills=1,
        rows=100_000,
        lost=2,
        recorded_twice=0,
        wrong=0,
        again=1,
        seconds=20.04,
        seed=7,
        runs={"order COMPENSATED": 8},
        killed=[Kill(1, 9.7, 0.17, 5, 4, 2.04)],
        counts=[
            Count("twice", "ledger entries too many", 0, "SELECT 0"),
            Count("lost", "starts without a run", 2, "…"),
        ],
        kept=None,
    )
    lines = shown(proofpages.demo(report))
    for line in ("  order     COMPENSATED     8", "      2  starts without a run     lost"):
        assert line in lines
    assert ["1", "9.7", "17%", "5", "4", "2.0", "s"] in [line.split() for line in lines]
    assert lines[-3].startswith("IT DOES NOT HOLD: 1 kills, 100,000 rows moved; 2 lost, 0 recorded twice")
    assert "jivsd demo --seed 7" in lines[-1]
    holding = shown(proofpages.demo(msgspec.structs.replace(report, holds=True, kept="/kept")))
    assert holding[-3].startswith("It holds")
    assert holding[-1].endswith("/kept/recount.sql")


def test_a_demo_is_told_in_lines_where_there_is_no_terminal(capsys):
    lines = demoshow.Lines()
    for phase in ("PLANNING", "PLANNING", "LOADING"):
        lines.scene(Scene(seconds=1.0, phase=phase))
    lines.killed(Kill(1, 9.7, 0.17, 5, 4, 2.0))
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_how_far_steps_are():
    said = [Progress("tables[a]/copy", 1, look.now(), msgspec.Raw(b'"row 7"'), 7, 10), Progress("tables[b]/copy", 2, 5)]
    page = "\n".join(shown(runpages.run(a_run(), said)))
    assert "Steps at work" in page
    assert "7 of 10 (70 %), row 7  " in page
    assert "tables[b]/copy  at work" in page
    assert "Steps at work" not in shown(runpages.run(a_run()))


def test_the_bar_of_steps_that_beat():
    assert of_steps([Progress("a", 1, 5), Progress("b", 1, 5, msgspec.Raw(b"3"))]) is None
    one = of_steps([Progress("a", 1, 5), Progress("b", 1, 5, done=3, total=4)])
    assert (one.phase, one.done, one.total, one.percent) == ("b", 3, 4, 75)
    two = of_steps([Progress("a", 1, 5, done=1, total=4), Progress("b", 1, 5, done=3, total=4)])
    assert (two.phase, two.percent) == ("2 steps", 50)
    assert of_steps([Progress("a", 1, 5, done=1), Progress("b", 1, 5, done=3, total=4)]).percent is None
