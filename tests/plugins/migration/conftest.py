"""Fixtures of the migration plugin's tests."""

from __future__ import annotations

import pytest
from migration_cases import make_nasty


@pytest.fixture(scope="session")
def nasty(tmp_path_factory):
    """A source that tests must not change."""
    return make_nasty(tmp_path_factory.mktemp("nasty") / "source.db")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "target.db"
