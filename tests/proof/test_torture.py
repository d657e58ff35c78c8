"""The torturer itself: it finds nothing in jivsd, and every bug that is built in."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio
from databases import NEWEST

from jivsd.proof.daemons import DaemonFailed
from jivsd.proof.torture import servers, workflows
from jivsd.proof.torture.faults import ON_DAEMON
from jivsd.proof.torture.serverfaults import ON_OWN
from jivsd.store.plugin_tables import Migration
from jivsd.store.postgres import PostgresStore

LEDGER = Path(workflows.__file__).parent / "migrations" / "postgres" / "0001_ledger.sql"


def run(*arguments):
    """Run `jivsd torture`; its exit code, its report, and what it said."""
    command = [sys.executable, "-m", "jivsd", "torture", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    return done.returncode, json.loads(done.stdout or "null"), done.stderr


def recounted(kept, journal="state/jivsd.db"):
    """What the README's SQL says about what `--keep` left: the rows of each query, by the name of its last column."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"sqlite3 -box \./kept/state/jivsd\.db <<'SQL'\n(.*?)SQL\n", readme, re.DOTALL)
    found = {}
    with closing(sqlite3.connect(kept / journal)) as db:
        for query in re.sub(r"--.*", "", block).replace("./kept", os.fspath(kept)).split(";"):
            answer = db.execute(query)
            if answer.description:
                found[answer.description[-1][0]] = answer.fetchall()
    return found


@pytest.mark.slow
def test_nothing_is_wrong_after_twenty_seconds(tmp_path):
    code, report, said = run("--seconds", "20", "--seed", "3", "--keep", str(tmp_path / "kept"))
    assert (code, report["violations"]) == (0, []), said
    assert report["kills"] >= 1
    assert report["kills"] == report["faults"]["kill"]
    assert report["runs"] >= report["starts"] > 0
    assert report["events"] > report["runs"]
    assert report["seed"] == 3
    assert len(report["commands"]) >= 19
    again = recounted(tmp_path / "kept")
    assert again.pop("not_ended") == [(report["runs"], 0)]
    assert dict(again.pop("times")) == report["faults"]
    assert 0 < again.pop("came_back")[0][0] <= report["kills"]
    assert (again.pop("lost_starts"), again.pop("lost_signals")) == ([(0,)], [(0,)])
    assert len(again) == 3
    assert not any(again.values()), again


@pytest.mark.slow
@pytest.mark.parametrize("plant", ["step-twice", "lose-ack", "stale-writer"])
def test_what_was_planted_is_found(plant):
    code, report, said = run("--seconds", "60", "--seed", "1", "--plant", plant)  # it ends when it has found it
    assert code == 1, said
    assert [one for one in report["violations"] if one["run_id"] and one["path"]]
    assert report["plant"] == plant


@pytest.mark.slow
def test_nothing_is_wrong_on_a_postgresql_server_that_has_all_its_faults(tmp_path):
    kept = tmp_path / "kept"
    code, report, said = run("--seconds", "8", "--seed", "2", "--store", "postgresql", "--keep", str(kept))
    assert (code, report["violations"]) == (0, []), said
    assert report["store"] == "PostgreSQL 16"
    assert set(report["progress_s"]) <= {*ON_DAEMON, *ON_OWN}
    again = recounted(kept, "journal.sqlite")
    assert again.pop("not_ended") == [(report["runs"], 0)]
    assert dict(again.pop("times")) == report["faults"]
    assert again.pop("came_back")
    assert (again.pop("lost_starts"), again.pop("lost_signals")) == ([(0,)], [(0,)])
    assert not any(again.values()), again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redis", "faults"), [((), "kill,stop,flush"), (("--redis", "cluster"), "kill,flush,redis-kill,redis-stop")]
)
def test_nothing_is_wrong_with_two_nodes_while_they_and_their_redis_are_killed_or_stand_still(redis, faults):
    code, report, said = run("--seconds", "8", "--seed", "0", "--nodes", "2", "--faults", faults, *redis)
    assert (code, report["violations"]) == (0, []), said
    assert report["nodes"] == 2
    assert report["faults"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("redis", [(), ("--redis", "none"), ("--redis", "cluster")])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_wrong_with_three_nodes_after_two_minutes(seed, redis):
    command = [
        sys.executable,
        "-m",
        "jivsd",
        "torture",
        "--seconds",
        "120",
        "--seed",
        str(seed),
        "--nodes",
        "3",
        *redis,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_stale_writer_among_three_nodes_is_found():
    command = ["--seconds", "120", "--seed", "1", "--nodes", "3", "--plant", "stale-writer"]
    done = subprocess.run(
        [sys.executable, "-m", "jivsd", "torture", "--json", *command], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "stale" in {one["kind"] for one in json.loads(done.stdout)["violations"]}


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("plant", ["step-twice", "lose-ack", "stale-writer"])
def test_what_was_planted_on_postgresql_is_found(plant):
    code, report, said = run("--seconds", "90", "--seed", "1", "--store", "postgresql", "--plant", plant)
    assert code == 1, said
    assert [one for one in report["violations"] if one["run_id"] and one["path"]]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("faults", [*ON_OWN, ",".join((*ON_DAEMON, *ON_OWN))])
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_wrong_after_a_minute_on_postgresql(seed, faults):
    command = [sys.executable, "-m", "jivsd", "torture", "--seconds", "60", "--seed", str(seed)]
    done = subprocess.run([*command, "--store", "postgresql", "--faults", faults], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wrong_usage_is_said_in_a_sentence():
    code, _, said = run("--seconds", "1", "--faults", "flush")
    assert code == 2
    assert "--faults flush: needs several nodes: --nodes 3" in json.loads(said)["error"]["message"]


def test_on_somebodys_server_it_has_a_schema_of_its_own_that_is_gone_afterwards(postgres, tmp_path):
    databases = postgres(NEWEST)
    url = databases.server.url(databases.clone())
    there = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'jivsd%'"

    async def visit():
        async with servers.postgres(url, 1, ["cut"], tmp_path) as ground:
            assert set(ground.faults) == {"pg-terminate", "cut", "lose"}
            (environment,) = ground.environments.values()
            async with PostgresStore(environment["JIVSD_STORE"]) as store:
                await store.open(environment["JIVSD_NODE"])
                await store.migrate_plugin("torture", {"postgres": [Migration(1, "ledger", LEDGER.read_text())]})
                assert await ground.left_open(serving=True) == []
                assert await ground.check() == []
            assert await ground.left_open(serving=False) == []
            with closing(sqlite3.connect(await ground.journal())) as copy:
                assert copy.execute("SELECT max(epoch) FROM shard").fetchall() == [(1,)]

    trio.run(visit)
    assert databases.sql(there, database=url.rpartition("/")[2]) == [("jivsd",)]


def test_a_schema_with_something_in_it_is_left_alone(postgres, tmp_path):
    databases = postgres(NEWEST)

    async def visit(url):
        async with servers.postgres(url, 1, [], tmp_path):
            pytest.fail("it was taken")

    url = databases.fresh() + "?schema=jivsd"  # not within trio: it runs asyncio
    with pytest.raises(DaemonFailed, match="has something in it"):
        trio.run(visit, url)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_wrong_after_two_minutes(seed):
    command = [sys.executable, "-m", "jivsd", "torture", "--seconds", "120", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
