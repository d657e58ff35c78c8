"""Archives of runs: added to in whole members, read back run by run."""

from __future__ import annotations

import gzip

import msgspec
import pytest

from jivsd.records import Event, Run, Status
from jivsd.store.api import Plugin
from jivsd.testing.__main__ import main
from jivsd.testing.archive import Archive, NotAnArchive, read
from jivsd.testing.history import History

PLUGIN = Plugin("c0de", "naps", {"naps.py": "x = 1\n"}, 5)


def histories(*names):
    for name in names:
        run = Run(name, "nap", name, "c0de", 0, Status.COMPLETED, msgspec.Raw(b"1"), 5)
        yield History.of(run, [Event(name, 1, "Started", "", b"{}", 5)])


def add(path, *names):
    with Archive(path) as archive:
        archive.add(histories(*names), {"c0de": PLUGIN})
        return archive


def test_what_is_added_is_read_back_with_its_code(tmp_path):
    path = tmp_path / "runs.jsonl.gz"
    add(path, "a", "b")
    assert add(path, "c").last == {"a", "b"}
    found = list(read(path))
    assert [history.run_id for history in found] == ["a", "b", "c"]
    assert all(history.plugin == PLUGIN for history in found)
    assert path.stat().st_mode & 0o777 == 0o600
    lines = gzip.decompress(path.read_bytes()).splitlines()
    assert [b"plugin" in line and b"naps.py" in line for line in lines] == [True, False, True]


@pytest.mark.parametrize("lost", [1, 8, 60])
def test_what_was_not_written_to_the_end_is_cut_off(tmp_path, lost):
    path = tmp_path / "runs.jsonl.gz"
    add(path, "a")
    whole = path.stat().st_size
    add(path, "b", "c")
    torn = path.stat().st_size - lost
    with path.open("r+b") as file:
        file.truncate(torn)
    assert [history.run_id for history in read(path)] == ["a"]
    archive = add(path, "b")
    assert archive.cut == torn - whole
    assert archive.last == {"a"}
    assert [history.run_id for history in read(path)] == ["a", "b"]


def test_only_one_writes_and_only_to_an_archive(tmp_path):
    path = tmp_path / "runs.jsonl.gz"
    with Archive(path), pytest.raises(NotAnArchive, match="being written by another process"):
        Archive(path)
    (tmp_path / "notes.txt").write_text("dear diary")
    with pytest.raises(NotAnArchive, match=r"notes.txt is not an archive"):
        Archive(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "dear diary"


def test_a_damaged_archive_is_never_cut(tmp_path):
    path = tmp_path / "runs.jsonl.gz"
    for name in ("a", "b", "c"):
        add(path, name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(NotAnArchive, match="damaged"):
        Archive(path)
    assert path.read_bytes() == content


def test_a_run_that_is_not_in_the_archive(tmp_path, capsys):
    path = tmp_path / "runs.jsonl.gz"
    add(path, "a")
    assert main(["replay", str(path), "--run", "z"]) == 2
    assert "there is no run z" in capsys.readouterr().err
    assert main(["replay", str(path), "--break", "x"]) == 2
    assert "--run RUN_ID" in capsys.readouterr().err
