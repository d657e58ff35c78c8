"""`-m soak` runs long campaigns; without it they are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("soak") and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="a long campaign: run it with -m soak"))
