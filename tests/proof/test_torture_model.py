"""The torturer's programs, its model, and its checks: what was tampered with is found, and named."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from jivsd.proof.torture import language as say
from jivsd.proof.torture.account import Account, Case
from jivsd.proof.torture.evidence import looking
from jivsd.proof.torture.model import foresee, plan_of
from jivsd.proof.torture.orders import Wrong, orders
from jivsd.proof.torture.programs import draw
from jivsd.proof.torture.torturer import torture
from jivsd.proof.torture.verdict import check_all
from jivsd.records import Status, derived_id, new_id

SEED = 5
MANY = 300


# ---- programs


def test_the_same_seed_gives_the_same_workflows_in_every_process():
    code = (
        "from jivsd.proof.torture.programs import draw; import msgspec, hashlib;"
        f"print(hashlib.sha256(msgspec.json.encode([draw({SEED}, n) for n in range(50)])).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert draw(SEED, 1) != draw(SEED, 2)
    assert draw(SEED, 1) != draw(SEED + 1, 1)


def test_programs_have_all_kinds_of_commands():
    kinds = {kind for number in range(MANY) for kind, count in foresee(draw(SEED, number)).commands.items() if count}
    assert kinds >= {
        *("step", "plain step", "transaction step", "step that is retried", "step that fails for good"),
        *("step with compensation", "step that times out", "step that waits when cancelled"),
        *("step that a person decides", "sleep", "sleep_until", "wait_signal", "wait_until", "nursery", "race", "saga"),
        *("shield", "fail_after", "move_on_after", "cancel_scope", "side_effect", "version", "random", "uuid", "now"),
        *("child run", "raise", "try", "cancel", "terminate", "pause", "query", "lock_key", "timeout"),
        *("start_child", "signal", "lock", "map", "map of child runs", "emit", "set_attributes", "attributes"),
        *(
            "wait_signal with a timeout",
            "wait_until with a timeout",
            "continue_as_new",
            "update",
            "update with an async handler",
        ),
    }


def test_no_run_is_paused_while_a_deadline_is_to_overtake_a_thread():
    """A pause holds deadlines and lets steps end (DESIGN.md section 4, rule 15): it would decide what comes first."""
    made = [draw(SEED, number) for number in range(MANY)]
    overtaken = [one for one in made if b'"hold":"plain"' in msgspec.json.encode([one.nodes, one.rounds])]
    assert overtaken
    assert not any(one.pauses for one in overtaken)
    assert any(one.pauses for one in made)


def test_programs_cross_as_json():
    for number in range(MANY):
        program = say.Program("world", (made := draw(SEED, number)).nodes, made.rounds)
        assert msgspec.json.decode(msgspec.json.encode(program), type=say.Program) == program


# ---- the model


def test_what_a_saga_leaves_is_undone_and_the_handler_goes_on():
    undoable = say.Work("a", amount=3, undo=True)
    plan = plan_of(
        [
            say.Try(
                [say.Saga([undoable, say.Raise("r"), say.Work("never", amount=1000)])],
                [say.Work("b", amount=4), say.Receive("c", 5)],
            )
        ],
        "complete",
    )
    assert (plan.status, plan.counter) == (Status.COMPLETED, 3 + 4 + 5)
    assert list(plan.fates) == ["a", "b"]
    assert plan.fates["a"].undone
    assert [[fate.path for fate in group] for group in plan.groups] == [["a"]]


def test_paths_and_certainty_in_nurseries_and_races():
    child = [say.Work("w", amount=7)]
    plan = plan_of(
        [
            say.Fan("f", [[say.Child(child), say.Child(child)], [say.Work("x", amount=1)]], style="names"),
            say.Race("r", [[say.Work("y"), say.Hold()], [say.Work("z", amount=2)]], winner=1),
        ],
        "complete",
    )
    assert list(plan.fates) == ["f[_block]/torture", "f[_block]/torture#2", "f[_block#2]/x", "r[0]/y", "r[1]/z"]
    assert [fate.sure for fate in plan.fates.values()] == [True, True, True, False, True]
    assert plan.counter == 7 + 7 + 1 + 2 + 1, "the winner's number counts"


def test_a_run_that_fails_undoes_everything_that_was_reached():
    plan = plan_of(
        [say.Ledger("a", 1, undo=True), say.Saga([say.Work("b", undo=True)]), say.Late("c", 10, undo=True)], "complete"
    )
    assert plan.status is Status.COMPENSATED
    assert [fate.path for fate in plan.groups[-1]] == ["a", "b", "c"]


def test_what_a_run_says_to_the_outside_and_each_result_of_a_map_in_its_place():
    items: list[list[say.Node_]] = [[say.Work("a", amount=3)], [say.Work("b", amount=5)]]
    plan = plan_of(
        [
            say.Emit("e", 1),
            say.Attribute("size", [4, None, 6]),
            say.Map("m", items, "steps"),
            say.Map("r", items, "runs", limit=1),
            say.Try([say.Vain(10, "until")], [say.Emit("late", 2)]),
        ],
        "complete",
    )
    assert list(plan.fates) == ["m[0]/a", "m[1]/a", "r[0]/torture", "r[1]/torture"]
    assert plan.counter == 4 + 6 + 2 * (3 + 2 * 5)
    assert {path: mark.value for path, mark in plan.marks.items()} == {
        "emit": ["torture/e", 1],
        "!attributes": {"size": 4},
        "!attributes#2": {"size": None},
        "!attributes#3": {"size": 6},
        "emit#2": ["torture/late", 2],
    }


def test_a_run_that_goes_on_as_new_takes_its_counter_along_and_forgets_what_it_would_undo():
    plan = plan_of(
        [say.Work("a", amount=3, undo=True), say.Receive("early", 1)],
        "fail",
        [[say.Await("b", [4]), say.Ask("c", 5)], [say.Ledger("d", 6, undo=True), say.Raise("over")]],
    )
    assert [one.status for one in plan.chain] == [Status.CONTINUED, Status.CONTINUED, Status.COMPENSATED]
    assert [one.counter for one in plan.chain] == [3 + 1, 4 + 4 + 5, 13 + 6]
    assert [list(one.fates) for one in plan.chain] == [["a"], [], ["d"]]
    assert [fate.path for one in plan.chain for group in one.groups for fate in group] == ["d"]
    assert [one.name for one in plan.sends] == ["early", say.ADD]
    assert [one.ask.name for one in plan.asks] == ["c"]
    first = new_id()
    second = derived_id(first, "!continued")
    assert [run_id for run_id, _ in plan.family(first)] == [first, second, derived_id(second, "!continued")]


def test_a_run_that_is_let_go_has_a_plan_of_its_own_and_each_tells_the_other():
    launch = say.Launch("l", [say.Work("a", amount=3), say.Launch("m", [], 1, 2)], there=10, back=20)
    plan = plan_of([say.Child([launch])], "complete")
    child = derived_id(first := new_id(), "torture")
    (origins, launched), *others = plan.let_go(first)
    assert (origins, launched.path, launched.told, others) == ((first, child), "torture", "signal", [])
    assert launched.message == {"to": "l", "amount": 10}
    assert (plan.counter, launched.plan.counter) == (20, 10 + 3 + 2)
    assert (plan.heard, launched.plan.heard) == (0, 2)
    assert list(launched.plan.marks) == ["torture", "signal", "signal#2"]


def test_what_an_update_does_is_below_it_and_belongs_to_the_run():
    plan = plan_of(
        [
            say.Ask("plain", 2, rivals=True),
            say.Saga([say.Ask("works", 3, [say.Work("a", amount=5, undo=True)])]),
            say.Ask("fails", 7, [say.Work("b", amount=1, undo=True), say.Raise("r")]),
            say.Raise("over"),
        ],
        "fail",
    )
    assert list(plan.fates) == ["!update[u-works]/a", "!update[u-fails]/b"]
    assert [(one.message_ids, one.answer) for one in plan.asks] == [
        (["u-plain", "r-plain"], 2),
        (["u-works"], 3),
        (["u-fails"], None),
    ]
    assert plan.counter == 2 + (5 + 3) + 1
    assert [[fate.name for fate in group] for group in plan.groups] == [["a", "b"]]


# ---- the checks


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The databases of a torture in which nothing was done to the daemon."""
    folder = tmp_path_factory.mktemp("torture") / "kept"
    report = torture(orders(seconds=2, seed=SEED, faults=""), folder)
    assert report.violations == []
    assert report.starts >= 10
    return folder


@pytest.fixture
def copy(kept, tmp_path):
    return Path(shutil.copytree(kept, tmp_path / "copy"))


def judged(folder):
    """What the checks find, against an account that knows the starts and signals of the folder."""
    with closing(sqlite3.connect(folder / "account.sqlite")) as db:
        starts = db.execute("SELECT number, run_id FROM started").fetchall()
        told = db.execute("SELECT message_id, run_id FROM told").fetchall()
        answered = db.execute("SELECT run_id, message_id, answer FROM answered").fetchall()
    account = Account(folder / "again.sqlite")
    for number, run_id in starts:
        scenario = draw(SEED, number)
        case = Case(scenario, foresee(scenario), run_id)
        account.started(case)
        family = dict(case.plan.family(run_id))
        for message_id, receiver in told:
            if receiver in family:
                account.told(case, receiver, message_id)
        for answering, message_id, answer in answered:
            if answering in family:
                account.answered(case, answering, message_id, answer)
    with looking(folder / "state" / "jivsd.db", folder / "world.sqlite") as evidence:
        found = list(check_all(evidence, account))
    account.close()
    return found


@pytest.mark.slow
def test_what_was_not_tampered_with_is_good(copy):
    assert judged(copy) == []


def first(folder, sql, database="state/jivsd.db"):
    with closing(sqlite3.connect(folder / database)) as db:
        return db.execute(sql).fetchone()


def change(folder, sql, *parameters, database="state/jivsd.db"):
    with closing(sqlite3.connect(folder / database)) as db:
        assert db.execute(sql, parameters).rowcount == 1
        db.commit()


A_WORK = (
    "SELECT event.run_id, path, seq FROM event JOIN run USING (run_id)"
    " WHERE kind = 'StepDone' AND run.status = 'COMPLETED' AND run.parent IS NULL"
    " AND run.options ->> 'chain' IS NULL AND path NOT LIKE '%!undo'"
    " AND path NOT IN (SELECT name FROM torture_ledger AS l WHERE l.run_id = event.run_id)"
    " AND path NOT LIKE '%/%' AND path NOT LIKE '%]'"
)


def kinds(found, run_id, path=None):
    return {one.kind for one in found if one.run_id == run_id and path in (None, one.path)}


@pytest.mark.slow
def test_a_step_that_was_carried_out_after_its_record(copy):
    run_id, path, seq = first(copy, A_WORK)
    (at,) = first(copy, f"SELECT at FROM event WHERE run_id = '{run_id}' AND seq = {seq}")
    change(
        copy,
        "INSERT INTO call SELECT run_id, path, attempt, key, detail, ?, node FROM call"
        " WHERE run_id = ? AND path = ? LIMIT 1",
        *(at + 1, run_id, path),
        database="world.sqlite",
    )
    found = judged(copy)
    assert kinds(found, run_id) == kinds(found, run_id, path) == {"after record"}


@pytest.mark.slow
def test_an_outcome_that_was_recorded_twice(copy):
    run_id, path, seq = first(copy, A_WORK)
    other = f"SELECT seq FROM event WHERE run_id = '{run_id}' AND kind = 'Ended'"
    change(copy, f"UPDATE event SET seq = seq + 1 WHERE run_id = ? AND seq = ({other})", run_id)
    change(
        copy,
        f"INSERT INTO event SELECT run_id, ({other}) - 1, kind, path, attempt, 'x', ({other.replace('seq', 'at', 1)}),"
        " checksum, payload_hash, payload FROM event WHERE run_id = ? AND seq = ?",
        *(run_id, seq),
    )
    assert kinds(judged(copy), run_id, path) == {"twice"}


@pytest.mark.slow
def test_an_outcome_that_was_lost(copy):
    run_id, path, seq = first(copy, A_WORK)
    change(copy, "DELETE FROM event WHERE run_id = ? AND seq = ?", run_id, seq)
    assert "lost" in kinds(judged(copy), run_id, path)


@pytest.mark.slow
def test_a_step_that_was_never_carried_out(copy):
    run_id, path, _ = first(copy, A_WORK)
    with closing(sqlite3.connect(copy / "world.sqlite")) as db:
        db.execute("DELETE FROM call WHERE run_id = ? AND path = ?", (run_id, path))
        db.commit()
    assert "never done" in kinds(judged(copy), run_id, path)


@pytest.mark.slow
def test_a_run_that_was_lost(copy):
    run_id, _, _ = first(copy, A_WORK)
    change(copy, "DELETE FROM run WHERE run_id = ?", run_id)
    assert kinds(judged(copy), run_id) == {"lost"}


@pytest.mark.slow
def test_a_run_that_nobody_was_told_of(copy):
    run_id, _, _ = first(copy, A_WORK)
    with closing(sqlite3.connect(copy / "account.sqlite")) as db:
        db.execute("DELETE FROM started WHERE run_id = ?", (run_id,))
        db.commit()
    assert kinds(judged(copy), run_id) == {"unknown"}


@pytest.mark.slow
def test_a_counter_that_is_wrong(copy):
    run_id, _, _ = first(copy, A_WORK)
    change(copy, "UPDATE run SET output = json_set(output, '$.counter', 0) WHERE run_id = ?", run_id)
    assert kinds(judged(copy), run_id) == {"counter"}


@pytest.mark.slow
def test_a_signal_that_was_lost(copy):
    (run_id,) = first(copy, "SELECT run_id FROM told", "account.sqlite")
    message = "the signal nobody sent"
    change(copy, "INSERT INTO told VALUES (?, ?)", message, run_id, database="account.sqlite")
    assert [one.kind for one in judged(copy) if message in one.message] == ["lost"]


@pytest.mark.slow
def test_a_signal_of_one_run_to_another_that_was_lost(copy):
    sql = """SELECT substr("by", 5), message_id FROM inbox WHERE "by" LIKE 'run %' AND kind = 'Signal'"""
    sender, message_id = first(copy, sql)
    change(copy, "DELETE FROM inbox WHERE message_id = ?", message_id)
    assert kinds(judged(copy), sender) == {"lost"}


@pytest.mark.slow
def test_a_run_that_goes_on_for_none(copy):
    sql = "SELECT run_id, options ->> 'chain' FROM run WHERE options ->> 'chain' IS NOT NULL AND parent IS NULL"
    run_id, begun = first(copy, sql)
    change(copy, "UPDATE run SET options = json_remove(options, '$.chain') WHERE run_id = ?", run_id)
    found = judged(copy)
    assert kinds(found, run_id) >= {"unknown"}
    assert kinds(found, begun) >= {"unknown"}


@pytest.mark.slow
def test_an_answer_that_is_not_the_one_which_was_given(copy):
    run_id, message_id = first(copy, "SELECT run_id, message_id FROM answered", "account.sqlite")
    change(
        copy,
        "UPDATE answered SET answer = '-1' WHERE run_id = ? AND message_id = ?",
        *(run_id, message_id),
        database="account.sqlite",
    )
    assert kinds(judged(copy), run_id, f"!update[{message_id}]") == {"lost"}


@pytest.mark.slow
def test_a_ledger_with_a_row_too_many(copy):
    run_id, name = first(copy, "SELECT run_id, name FROM torture_ledger WHERE name NOT LIKE '%!undo'")
    change(
        copy,
        "INSERT INTO torture_ledger (run_id, name, amount) SELECT run_id, name, amount FROM torture_ledger"
        " WHERE run_id = ? AND name = ? LIMIT 1",
        *(run_id, name),
    )
    found = judged(copy)
    assert kinds(found, run_id) == {"ledger"}
    assert [one.path.endswith(name) for one in found] == [True]


@pytest.mark.slow
def test_an_event_that_was_not_published(copy):
    run_id, path = first(copy, "SELECT run_id, path FROM outbox")
    change(copy, "DELETE FROM outbox WHERE run_id = ? AND path = ?", run_id, path)
    assert kinds(judged(copy), run_id) == {"outbox", "model"}


@pytest.mark.slow
def test_an_attribute_that_is_not_as_the_journal_says(copy):
    run_id, number = first(copy, "SELECT run_id, number FROM run WHERE attributes LIKE '%scenario%'")
    change(copy, "UPDATE run SET attributes = json_set(attributes, '$.n0', 1) WHERE run_id = ?", run_id)
    change(copy, "DELETE FROM attribute WHERE run_number = ? AND name = 'scenario'", number)
    assert [one.kind for one in judged(copy) if one.run_id == run_id] == ["attributes"] * 2


@pytest.mark.slow
def test_something_that_was_not_undone(copy):
    run_id, path = first(copy, "SELECT run_id, path FROM event WHERE path LIKE '%!undo' AND kind = 'StepDone'")
    change(
        copy, "UPDATE event SET path = 'elsewhere' WHERE run_id = ? AND path = ? AND kind = 'StepDone'", run_id, path
    )
    found = judged(copy)
    assert "not undone" in kinds(found, run_id, path)
    assert "unknown" in kinds(found, run_id, "elsewhere")


@pytest.mark.slow
def test_a_run_that_has_not_ended(copy):
    run_id, _, _ = first(copy, A_WORK)
    change(copy, "UPDATE run SET status = 'RUNNING', ended_at = NULL WHERE run_id = ?", run_id)
    assert kinds(judged(copy), run_id) == {"not ended"}


@pytest.mark.slow
def test_two_that_were_under_one_lock_at_once(copy):
    run_id, name, second, _ = first(
        copy,
        "SELECT one.run_id, one.name, other.run_id, min(other.entry) FROM torture_ledger AS one"
        " JOIN torture_ledger AS other ON substr(other.name, 1, 8) = substr(one.name, 1, 8) AND other.entry > one.entry"
        " WHERE one.name GLOB 'enter-*'",
    )
    last = "(SELECT max(entry) + 1 FROM torture_ledger)"
    leave = name.replace("enter", "leave")
    change(copy, f"UPDATE torture_ledger SET entry = {last} WHERE name = ? AND run_id = ?", leave, run_id)
    assert kinds(judged(copy), second) == {"lock"}


# ---- what is asked for


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"store": "mysql://localhost/x"}, "--store mysql://localhost/x: write postgresql://"),
        ({"redis": "redis://localhost"}, "--redis is for several nodes: say how many, --nodes 3"),
        ({"faults": "kill,flush"}, "--faults flush: needs several nodes: --nodes 3"),
        ({"nodes": 3, "redis": "redis"}, "--redis redis: must be a URL, redis://… or "),
        ({"nodes": 3, "redis": "localhost:6379"}, "; or none, or cluster"),
        (
            {"nodes": 3, "redis": "none", "faults": "flush"},
            "needs a Redis of the torture's own: leave out --redis, or say --redis cluster",
        ),
        ({"nodes": 2, "faults": "fire"}, "--faults fire: allowed are kill, stop, leave, node-cut, flush"),
        ({"faults": "cut"}, "--faults cut: needs PostgreSQL: --store postgresql"),
        ({"faults": "pg-stop", "store": "postgresql://h/d"}, "needs a server that the torture may restart, stop"),
        ({"faults": "cut", "store": "postgresql://h/d?sslmode=verify-full"}, "sslmode=verify-full lets no proxy in"),
        ({"faults": "lose", "store": "postgresql://a,b/d"}, "no proxy can be put in between: it names several hosts"),
        ({"faults": "fire"}, "--faults fire: allowed are kill, stop"),
        ({"plant": "roses"}, "--plant roses: allowed are step-twice, lose-ack, stale-writer"),
    ],
)
def test_what_cannot_be_is_said(asked, says):
    with pytest.raises(Wrong) as refused:
        orders(seconds=1, **asked)
    assert says in str(refused.value)
