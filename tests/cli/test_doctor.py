"""The doctor looks at hosts on which things are wrong, with real databases and servers."""

from __future__ import annotations

import resource
import socket

import pytest
from databases import NEWEST


@pytest.fixture
def examined(run, tmp_path):
    """What the doctor says, by what it looked at: the state and the words of each finding; and the exit code."""

    def examine(*arguments, folder=tmp_path / "state"):
        answer = run("doctor", "--data-dir", folder, "--json", *arguments)
        found = {}
        for one in answer.json["items"]:
            found.setdefault(one["what"], []).append((one["state"], f"{one['says']} | {one.get('remedy', '')}"))
        return found, answer.code

    return examine


def test_a_host_on_which_all_is_well(examined):
    found, code = examined()
    assert code == 0
    assert {state for each in found.values() for state, _ in each} == {"good"}
    assert found.keys() == {"config", "data folder", "open files", "daemon", "store", "plugins"}
    assert "it will be made" in found["store"][0][1]


@pytest.mark.parametrize(("hard", "state"), [(1024, "doubtful"), (65536, "good"), (resource.RLIM_INFINITY, "good")])
def test_few_open_files_are_worth_a_look(examined, monkeypatch, hard, state):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    found, code = examined()
    ((found_state, says),) = found["open files"]
    assert (found_state, code) == (state, 0)
    assert ("LimitNOFILE=4096" in says and "1024 files" in says) is (state == "doubtful")


def test_a_daemon_that_runs_is_asked(examined, daemon, data_dir):
    found, code = examined(folder=data_dir)
    assert code == 0
    assert any("one runs, jivsd" in says for _, says in found["daemon"])
    assert found["store"][0][0] == "good"
    assert "it can be read" in found["store"][0][1]


def test_postgresql_and_redis(examined, postgres, redis):
    url = postgres(NEWEST).fresh()
    found, code = examined("--store", url, "--redis", redis.url)
    assert code == 0
    assert (found["store"][-1][0], found["redis"][0][0], found["clock"][0][0]) == ("good", "good", "good")
    assert "schema version" in found["store"][-1][1]
    assert ("doubtful", "it runs with fsync=off: a crash of its machine loses what was acknowledged") in [
        (state, says.partition(" | ")[0]) for state, says in found["store"]
    ]


def test_what_is_wrong_is_said_with_what_mends_it(examined, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    plugins.chmod(0o755)
    (plugins / "broken.py").write_text("import nothing_of_the_kind\n")
    config = tmp_path / "jivsd.toml"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config.write_text(
            f'store = "postgresql://ann:hunter2@127.0.0.1:1/x"\nhttp = "127.0.0.1:{port}"\n'
            f'redis = "redis://127.0.0.1:1"\nplugins = ["{plugins}"]\n'
        )
        config.chmod(0o644)
        found, code = examined("--config", config)
    assert code == 1
    states = {what: each[0][0] for what, each in found.items()}
    assert states == {
        "config": "doubtful",
        "data folder": "good",
        "open files": "good",
        "daemon": "good",
        "store": "wrong",
        "redis": "doubtful",
        "plugins": "wrong",
        "http": "wrong",
    }
    assert "chmod o-rwx" in found["config"][0][1]
    assert "connection refused" in found["store"][0][1].lower()
    assert "nothing_of_the_kind" in found["plugins"][0][1]
    assert "jivsd plugins check" in found["plugins"][0][1]
    assert "in use" in found["http"][0][1]
    assert "hunter2" not in str(found)


def test_redis_without_a_shared_store(examined, redis):
    found, code = examined("--redis", redis.url)
    assert code == 1
    assert "leave redis out" in found["redis"][0][1]


def test_a_configuration_that_cannot_be_read_is_said_as_ever(run, tmp_path):
    config = tmp_path / "jivsd.toml"
    config.write_text("http = 5\n")
    answer = run("doctor", "--config", config)
    assert answer.code == 6
    assert "http" in answer.err
