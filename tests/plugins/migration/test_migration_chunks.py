"""Chunks and their fence: exactly once, whoever tries it, however often."""

from __future__ import annotations

import threading

import msgspec
import pytest
from migration_cases import Load, change, context, dump, make, query, request_for

from plugins.migration.errors import Fenced, MigrationError, PlanRefused, Unavailable
from plugins.migration.model import Chunk
from plugins.migration.sqlite import target as target_module
from plugins.migration.steps import build_index, claim, complete_schema, copy_chunk, finish, inspect


def end(load):
    """What follows the last chunk, without verification."""
    for name in load.survey.indexes:
        build_index(context(), load.job, load.epoch, name)
    complete_schema(context(), load.job, load.epoch, [pair.source.name for pair in load.survey.pairs])
    finish(context(), load.job, load.epoch)


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.slow
def test_a_database_with_everything_comes_over(nasty, target):
    load = Load(nasty, target, load={"chunk_rows": 7})
    assert load.run() > 60
    end(load)
    assert dump(target) == dump(nasty)
    assert query(target, "PRAGMA user_version") == [(7,)]
    assert query(target, "PRAGMA application_id") == [(1234,)]
    assert query(target, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_killed_at_every_chunk_it_goes_on_exactly_once(nasty, target, monkeypatch, when):
    load = Load(nasty, target, load={"chunk_rows": 20})
    advance = target_module.fence.advance

    def dying(db, chunk, copied):
        advance(db, chunk, copied)
        if when == "before the commit":
            raise Killed
        db.execute("COMMIT")
        raise Killed

    def copy(chunk):
        with monkeypatch.context() as patch:
            patch.setattr(target_module.fence, "advance", dying)
            with pytest.raises(Killed):
                load.copy(chunk)
        before = query(target, "SELECT sum(rows), sum(chunks) FROM _jivsd_fence")
        copied = load.copy(chunk)
        after = query(target, "SELECT sum(rows), sum(chunks) FROM _jivsd_fence")
        assert (before == after) == (when == "after the commit")
        assert load.copy(chunk) == copied, "a third attempt finds what the second has committed"
        assert query(target, "SELECT sum(rows), sum(chunks) FROM _jivsd_fence") == after
        return copied

    load.run(copy)
    end(load)
    assert dump(target) == dump(nasty)


def test_a_chunk_that_is_behind_writes_nothing(nasty, target):
    load = Load(nasty, target, tables=["node"], load={"chunk_rows": 50})
    chunks = load.chunks()
    first = next(chunks)
    second = chunks.send(load.copy(first))
    load.copy(second)
    before = dump(target)
    with pytest.raises(Fenced, match=r"table 'node' is at chunk 2 in the target; this attempt, at chunk 1, wrote"):
        load.copy(first)
    assert dump(target) == before


@pytest.mark.slow
def test_a_stale_owner_writes_nothing(nasty, target):
    old = Load(nasty, target, load={"chunk_rows": 50}, run="old")
    chunk = next(old.chunks())
    old.copy(chunk)
    new = Load(nasty, target, load={"chunk_rows": 50}, run="new")
    assert (old.epoch, new.epoch) == (1, 2)
    assert new.survey.taken_over
    before = dump(target), query(target, "SELECT * FROM _jivsd_fence")
    for stale in (
        lambda: old.copy(chunk),
        lambda: build_index(context(), old.job, old.epoch, "node pair"),
        lambda: complete_schema(context(), old.job, old.epoch, ["node"]),
        lambda: finish(context(), old.job, old.epoch),
    ):
        with pytest.raises(Fenced, match=r"run new has taken over the target \(epoch 2\)"):
            stale()
    assert (dump(target), query(target, "SELECT * FROM _jivsd_fence")) == before
    new.run()
    end(new)
    assert dump(target) == dump(nasty)


def test_a_node_that_the_run_has_left_writes_nothing(nasty, target):
    load = Load(nasty, target, load={"chunk_rows": 50}, tables=["node"])
    job, epoch = load.job, load.epoch
    chunks = load.chunks()
    first = next(chunks)
    second = chunks.send(load.copy(first))
    copied = copy_chunk(context(fence=3), job, epoch, second)  # the run goes on elsewhere
    third = chunks.send(copied)
    before = dump(target), query(target, "SELECT * FROM _jivsd_fence")
    for stale in (
        lambda: copy_chunk(context(fence=2), job, epoch, third),
        lambda: build_index(context(fence=2), job, epoch, "node pair"),
        lambda: complete_schema(context(fence=2), job, epoch, ["node"]),
        lambda: finish(context(fence=2), job, epoch),
        lambda: claim(context("run-1", "run-1/claim", fence=2), job, []),
    ):
        with pytest.raises(Unavailable, match=r"the run has gone on elsewhere \(fence 3\); this attempt, of fence 2"):
            stale()
    assert (dump(target), query(target, "SELECT * FROM _jivsd_fence")) == before
    assert claim(context("run-1", "run-1/claim", fence=4), job, []).epoch == epoch
    with pytest.raises(Unavailable, match="fence 4"):
        copy_chunk(context(fence=3), job, epoch, third)


@pytest.mark.slow
def test_a_later_run_goes_on_behind_the_watermarks(nasty, target):
    old = Load(nasty, target, load={"chunk_rows": 20}, run="old")
    chunks, copied = old.chunks(), None
    for _ in range(9):
        copied = old.copy(chunks.send(copied))
    done = query(target, "SELECT sum(rows) FROM _jivsd_fence")[0][0]
    new = Load(nasty, target, load={"chunk_rows": 35}, run="new")
    assert sum(state.rows for state in new.claimed.parts) == done
    new.run()
    end(new)
    assert dump(target) == dump(nasty)


def test_a_later_run_takes_what_was_appended_meanwhile(tmp_path, target):
    path = make(tmp_path / "s.db", "CREATE TABLE t (i INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    Load(path, target, run="old").run()
    change(path, "INSERT INTO t VALUES (3)")
    Load(path, target, run="new").run()
    assert query(target, "SELECT i FROM t") == [(1,), (2,), (3,)]


def test_the_claim_is_the_same_when_it_is_repeated(nasty, target):
    load = Load(nasty, target, run="one")
    parts = [state.part for state in load.claimed.parts]
    assert claim(context("one", "one/claim"), load.job, parts) == load.claimed
    assert claim(context("one", "another"), load.job, parts).epoch == 2


def test_an_unfinished_migration_of_other_content_is_not_taken_over(nasty, target):
    load = Load(nasty, target, run="one")
    with pytest.raises(PlanRefused, match="holds an unfinished migration of other content, by run one"):
        inspect(request_for(nasty, target, tables=["node"]))
    other = Load(nasty, target.with_name("other.db"), tables=["node"])
    with pytest.raises(MigrationError, match="holds another unfinished migration, of run one"):
        claim(context("two", "two"), msgspec.structs.replace(other.job, target=load.job.target), [])


def test_a_target_that_was_finished_or_replaced_is_left_alone(nasty, target):
    load = Load(nasty, target, tables=["node"])
    chunk = next(load.chunks())
    load.run()
    end(load)
    with pytest.raises(Fenced, match="has no fence any more: it was finished, or replaced"):
        load.copy(chunk)
    finish(context(), load.job, load.epoch)
    target.unlink()
    with pytest.raises(MigrationError, match=r"the target .*target\.db is gone"):
        load.copy(chunk)
    assert not target.exists()


@pytest.mark.slow
def test_tables_load_side_by_side(nasty, target):
    load = Load(nasty, target, load={"chunk_rows": 5})
    pairs = {pair.source.name: pair.source for pair in load.survey.pairs}
    failures = []

    def one(state):
        after, done, number = state.after, False, 0
        try:
            while not done:
                number += 1
                table = pairs[state.part.table]
                copied = copy_chunk(context(), load.job, load.epoch, Chunk(table, 0, number, 5, after))
                after, done = copied.after, copied.done
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(state,)) for state in load.claimed.parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    end(load)
    assert dump(target) == dump(nasty)


def test_one_chunk_tried_by_many_at_once_is_loaded_once(nasty, target):
    load = Load(nasty, target, tables=["node"], load={"chunk_rows": 100})
    chunk = next(load.chunks())
    results = []
    threads = [threading.Thread(target=lambda: results.append(load.copy(chunk))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(repr, results))) == 1
    assert query(target, "SELECT count(*) FROM node") == [(100,)]


def test_a_full_disk_is_worth_another_attempt(tmp_path, target, monkeypatch):
    path = make(tmp_path / "s.db", "CREATE TABLE t (i INTEGER PRIMARY KEY, b)", [("t", [(1, "x" * 50_000)])])
    load = Load(path, target)
    chunk = next(load.chunks())
    opened = target_module.writing

    def full(*args, **more):
        def limit(db):
            db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")

        return opened(*args, **{**more, "prepare": limit})

    with monkeypatch.context() as patch:
        patch.setattr(target_module, "writing", full)
        with pytest.raises(Unavailable, match=r"no space is left on the disk of the target .* while loading table 't'"):
            load.copy(chunk)
    assert query(target, "SELECT count(*) FROM t") == [(0,)]
    assert load.copy(chunk).rows == 1
    assert query(target, "SELECT count(*) FROM t") == [(1,)]
