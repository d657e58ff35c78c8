from __future__ import annotations

import io
import sys
from datetime import datetime

import pytest

from jivsd.cli.exits import CommandError, Exit
from jivsd.cli.values import read_moment, read_statuses, read_value
from jivsd.records import Status


def test_a_value_is_json_a_file_or_standard_input(tmp_path, monkeypatch):
    (tmp_path / "input.json").write_text('{"a": 1}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2]")))
    assert read_value('{"b": "ü"}', "--input") == '{"b": "ü"}'.encode()
    assert read_value(f"@{tmp_path}/input.json", "--input") == b'{"a": 1}'
    assert read_value("-", "--input") == b"[1, 2]"
    assert read_value(None, "--input") == b"null"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("hello", "--input: "),
        ("{", "--input: "),
        ("", "--input: "),
        ("1" * 4000, "--input: "),
        ("[" * 60_000, "--input: "),
        ('"\\u0000"', "--input: "),
        ('"' + "x" * 2_000_000 + '"', "too large"),
        ("\udcff", "UTF-8"),
    ],
)
def test_what_is_not_json_is_refused_before_it_is_sent(given, says):
    with pytest.raises(CommandError) as caught:
        read_value(given, "--input")
    assert caught.value.exit_code is Exit.INVALID
    assert says in caught.value.message
    assert len(caught.value.message) < 300


def test_a_bare_word_is_told_about_quotes():
    with pytest.raises(CommandError) as caught:
        read_value("ann", "JSON")
    assert "'\"ann\"'" in caught.value.hint
    with pytest.raises(CommandError) as caught:
        read_value('{"a": }', "JSON")
    assert caught.value.hint is None


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(CommandError, match=r"nowhere.*No such file") as caught:
        read_value(f"@{tmp_path}/nowhere", "--input")
    assert caught.value.exit_code is Exit.NOT_FOUND
    with pytest.raises(CommandError, match="directory"):
        read_value(f"@{tmp_path}", "--input")


def test_a_moment_is_a_time_or_an_age():
    assert read_moment("2026-01-31T12:00:00+01:00", "--before") == 1769857200_000_000
    assert read_moment("2026-01-31", "--before") == datetime(2026, 1, 31).astimezone().timestamp() * 1_000_000
    now = datetime.now().astimezone().timestamp() * 1_000_000
    assert read_moment("36h", "--before") == pytest.approx(now - 36 * 3600 * 1_000_000, abs=5_000_000)
    for wrong in ("soon", "2026-13-01", "", "0001-01-01"):
        with pytest.raises(CommandError, match=r"--before: .* is not a date"):
            read_moment(wrong, "--before")


def test_statuses_are_read_in_any_case():
    assert read_statuses(["failed", "TIMED_OUT"]) == (Status.FAILED, Status.TIMED_OUT)
    assert read_statuses(None) == ()
    with pytest.raises(CommandError, match=r"'DONE' is not .*COMPLETED") as caught:
        read_statuses(["done"])
    assert caught.value.exit_code is Exit.USAGE
