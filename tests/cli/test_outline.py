from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest

from jivsd.cli.outline import outline


class Part(msgspec.Struct):
    name: str
    inside: list[Part] = []


class Order(msgspec.Struct):
    due: UUID
    parts: list[Part]
    prices: dict[str, float] | None = None
    size: Literal["s", "m"] = "s"
    place: tuple[int, str] = (1, "a")
    more: Any = None


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (int, "integer"),
        (Any, "any JSON"),
        (
            Order,
            '{"due": uuid, "parts": [{"name": string, "inside"?: [Part]}], "prices"?: {…: number} | null,'
            ' "size"?: "m" | "s", "place"?: [integer, string], "more"?: any JSON}',
        ),
    ],
)
def test_what_a_workflow_takes_on_one_line(kind, wanted):
    assert outline(msgspec.json.schema(kind)) == wanted
