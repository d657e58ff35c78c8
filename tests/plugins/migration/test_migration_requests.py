"""The input of a migration: what is accepted and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from migration_cases import url

import plugins.migration
from jivsd.authoring.errors import InvalidValue
from jivsd.registry.checkup import check_path
from plugins.migration import Migration
from plugins.migration.request import Endpoint, Request

SOURCE, TARGET = url("/data/old.db"), url("/data/new.db")


def decoded(**fields):
    data = msgspec.json.encode({"source": SOURCE, "target": TARGET, **fields})
    return Migration.signature.decode_input(data, strict=True)[0]


def test_all_but_source_and_target_has_defaults():
    request = decoded()
    assert request == Request(Endpoint(**SOURCE), Endpoint(**TARGET))
    assert (request.type, request.tables, request.exclude) == ("FULL_MIGRATION", None, [])
    assert (request.load.strategy, request.load.parallelism, request.load.chunk_rows) == ("BATCH", 4, 1000)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target": {"system": "postgresql", "url": "x"}}, "for postgresql it is postgresql://user@host/database"),
        (
            {"target": {"system": "oracle", "url": "x"}},
            "system is 'oracle'; this version can migrate: sqlite, postgresql",
        ),
        ({"source": "crm", "target": "crm"}, "source and target are the same database, crm"),
        ({"source": {"system": "sqlite", "url": "/data/x.db"}}, "for sqlite it is sqlite:////absolute/path"),
        ({"source": {"system": "sqlite", "url": "sqlite://x.db"}}, "for sqlite it is sqlite:////absolute/path"),
        ({"source": {"system": "sqlite", "url": "sqlite:///:memory:"}}, "names no file"),
        ({"source": {"system": "sqlite", "url": "sqlite:///"}}, "names no file"),
        ({"source": {"system": "sqlite"}}, "missing required field `url` - at `$.source`"),
        ({"target": SOURCE}, "source and target are the same database, /data/old.db"),
        ({"target": url("/data/../data/./old.db")}, "source and target are the same database, /data/old.db"),
        ({"type": "EVERYTHING"}, "type is 'EVERYTHING'; it is one of: FULL_MIGRATION, DATA_ONLY"),
        ({"tables": []}, "tables is an empty list; leave it out to migrate all tables"),
        ({"load": {"strategy": "BULK"}}, "strategy is 'BULK'; for sqlite it is one of: BATCH, PARALLEL, UPSERT"),
        ({"load": {"strategy": "UPSERT"}}, "strategy UPSERT is for tables that exist: use it with type DATA_ONLY"),
        ({"load": {"parallelism": 0}}, "Expected `int` >= 1 - at `$.load.parallelism`"),
        ({"load": {"parallelism": 21}}, "Expected `int` <= 20 - at `$.load.parallelism`"),
        ({"load": {"chunk_rows": 10_001}}, "Expected `int` <= 10000 - at `$.load.chunk_rows`"),
        ({"load": {"chunk_rows": "many"}}, "Expected `int`, got `str` - at `$.load.chunk_rows`"),
        ({"lode": {}}, "unknown field `lode`"),
        ({"name": "x" * 201}, "length <= 200"),
    ],
)
def test_refusals_say_what_would_be_right(fields, said):
    with pytest.raises(InvalidValue) as caught:
        decoded(**fields)
    assert said in str(caught.value)


def test_a_relative_url_means_one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Endpoint("sqlite", "sqlite:///x.db").path == str(tmp_path / "x.db")
    assert str(Endpoint("sqlite", "sqlite:///x.db")) == str(Endpoint("sqlite", f"sqlite:///{tmp_path}/y/../x.db"))


def test_the_lock_key_is_the_target_however_it_is_spelled():
    plain = Migration.lock_key_of((decoded(),))
    assert plain == "migration:sqlite:/data/new.db"
    assert Migration.lock_key_of((decoded(target=url("/data//x/../new.db")),)) == plain


def test_names_are_taken_literally():
    assert Endpoint("sqlite", "sqlite:////data/50%25 off?.db").path == "/data/50%25 off?.db"


def test_the_plugin_check_finds_nothing():
    assert check_path(Path(plugins.migration.__file__).parent) == []
