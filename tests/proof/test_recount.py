"""The recount finds what it is there to find: each kind of damage, done to the databases of a trial that held."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import apsw
import pytest
import trio

from jivsd.proof.recount import Databases, recount, script
from jivsd.proof.trial import Plan, Trial

TAMPER = {
    "lost: acknowledged starts without a run": "DELETE FROM main.run WHERE workflow_id = 'A-0'",
    "lost: acknowledged signals that no run has received": "DELETE FROM main.event WHERE kind = 'Signal'",
    "lost: gaps in the journals of runs": "DELETE FROM main.event WHERE path = 'reserve'",
    "lost: entries that should be in the ledger": "DELETE FROM main.showcase_ledger WHERE what = 'settle'",
    "lost: steps recorded as done that have done nothing in the outside world": (
        "DELETE FROM world.effect WHERE path = 'charge'"
    ),
    "lost: rows of order line missing in the target": 'DELETE FROM target."order line" WHERE number = 2',
    "lost: rows of product missing in the target": "UPDATE target.product SET picture = x'00' WHERE picture IS NULL",
    "twice: rows of product too many in the target": (
        "INSERT INTO target.product SELECT code || 'x', title, price, picture FROM target.product LIMIT 1"
    ),
    "twice: rows of note too many in the target": "INSERT INTO target.note SELECT * FROM target.note LIMIT 1",
    "twice: runs beyond the first of one acknowledged start": (
        "UPDATE main.run SET workflow_id = 'A-0' WHERE workflow_id = 'A-1'"
    ),
    "twice: outcomes beyond the first of one step, timer or child run": (
        "UPDATE main.event SET path = 'reserve' WHERE path = 'settle'"
    ),
    "twice: signals received more than once": (
        "INSERT INTO main.event SELECT run_id, seq + 1000, kind, path, attempt, by, at, checksum, payload_hash, payload"
        " FROM main.event WHERE kind = 'Signal'"
    ),
    "twice: ledger entries beyond the first of one step": (
        "INSERT INTO main.showcase_ledger (run_id, what, item, amount)"
        " SELECT run_id, what, item, amount FROM main.showcase_ledger WHERE what = 'letter'"
    ),
    "twice: effects in the outside world beyond the first of one step": (
        "INSERT INTO world.effect SELECT key || 'x', run_id, path FROM world.effect"
    ),
    "twice: steps that were run again after they had been recorded as done": (
        "UPDATE world.call SET at = at + 60000000 WHERE path = 'pack'"
    ),
    "wrong: runs that did not end as they should": "UPDATE main.run SET status = 'FAILED' WHERE workflow_id = 'A-0'",
    "wrong: runs that have not ended": "UPDATE main.run SET status = 'RUNNING' WHERE workflow_id = 'A-0'",
    "wrong: ledger entries that nobody asked for": "UPDATE main.showcase_ledger SET item = 'X' WHERE what = 'reserve'",
    "wrong: incidents that nobody has resolved": (
        "INSERT INTO main.incident"
        " (incident_id, kind, message, at, path, details, state, fingerprint, history, acknowledged)"
        " VALUES ('i', 'step', 'm', 0, '', '{}', 'OPEN', 'f', '[]', 0)"
    ),
    "wrong: rows of the target that refer to nothing": "DELETE FROM target.region WHERE id = 1",
    "wrong: differences between the schemas": "DROP INDEX target.order_customer",
}


@pytest.fixture(scope="module")
def folder():
    """What a small trial, gently interrupted, has left behind."""
    with tempfile.TemporaryDirectory(prefix="jivsd-recount-") as made:
        plan = Plan(seed=5, kills=1, gently=True, rows=2_000, chunk_rows=100, orders=6, campaigns=1, letters=10)
        trio.run(Trial(Path(made), plan).run)
        yield Path(made)


def databases(folder):
    named = {name: folder / f"{name}.sqlite" for name in ("notes", "world", "source", "target")}
    return Databases(main=folder / "state" / "jivsd.db", **named)


def found_in(folder):
    return {f"{count.means}: {count.what}": count.found for count in recount(databases(folder)).counts}


@pytest.mark.slow
def test_a_daemon_that_is_asked_to_end_under_load_loses_nothing_and_repeats_nothing(folder):
    found = recount(databases(folder))
    assert found.holds
    assert found.rows >= 2_000
    assert found.again == 0
    assert found.runs["order COMPENSATED"] == 2
    assert '"exit_code"' not in (folder / "daemon.log").read_text()
    assert "steps are cut short" not in (folder / "daemon.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("what", TAMPER)
def test_it_finds(folder, tmp_path, what):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    with closing(apsw.Connection(str(databases(tmp_path).main))) as db:
        for name, path in databases(tmp_path).attached().items():
            db.execute(f"ATTACH ? AS {name}", (str(path),))
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute(TAMPER[what])
        assert db.changes() or "DROP" in TAMPER[what]
    assert found_in(tmp_path)[what] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["main", "target"])
def test_it_finds_damaged_pages(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    path = getattr(databases(tmp_path), name)
    with closing(apsw.Connection(str(path))) as db:
        rows = "SELECT rootpage FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY name LIMIT 1"
        ((page,),) = db.execute(rows).fetchall()
        ((size,),) = db.execute("PRAGMA page_size").fetchall()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))
    assert sum(found for what, found in found_in(tmp_path).items() if what.startswith("wrong: damaged pages")) > 0


@pytest.mark.slow
def test_anybody_can_count_again_with_the_script(folder):
    with closing(sqlite3.connect(f"file:{databases(folder).main}?mode=ro", uri=True)) as db:
        lines = script(databases(folder), recount(databases(folder)).counts)
        answers = [db.execute(statement).fetchall() for statement in lines.split(";\n") if statement.strip()]
    counted = [rows[0] for rows in answers if rows]
    assert len(counted) == len(found_in(folder))
    assert {found for _, found in counted} == {0}
