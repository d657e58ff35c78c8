"""Fields that nobody is to see: `password: Annotated[str, Secret]` in an input, a result, a signal or an update.

The journal holds the values, because a replay needs them; whatever people are shown has "***" in their place. What a
type says of its values is worked out once, as a mask. (The mark is a `msgspec.Meta`, so that it goes with any type.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from msgspec import inspect

from jivsd.masking import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterator

Secret: Final = msgspec.Meta(extra={"jivsd.secret": True}, extra_json_schema={"format": "password", "writeOnly": True})
"""Marks a value, of whatever type, that is masked wherever people could see it."""

SHORTEST: Final = 4
"""Characters that a secret text needs to be looked for in other texts: shorter ones stand in too many."""


class Mask:
    """Where in the JSON of a type there are secrets. Of a union, wherever one of its types has them."""

    __slots__ = ("fields", "items", "rest", "whole")

    def __init__(self) -> None:
        self.whole = False
        self.fields: dict[str, list[Mask]] = {}
        """Of an object, by name."""
        self.items: dict[int, list[Mask]] = {}
        """Of an array, by place."""
        self.rest: list[Mask] = []
        """Of all other members of an array or object."""

    def hide(self, value: Any) -> Any:
        """The same JSON value with its secrets masked."""
        return _hidden([self], value)

    def secrets(self, value: Any) -> set[str]:
        """The texts in a JSON value that are secret, or inside of what is."""
        found: set[str] = set()
        _collect([self], value, found)
        return found


def _of(masks: list[Mask], key: str | int) -> list[Mask]:
    found: list[Mask] = []
    for mask in masks:
        own = mask.fields.get(key) if isinstance(key, str) else mask.items.get(key)
        found += mask.rest if own is None else own
    return found


def _hidden(masks: list[Mask], value: Any) -> Any:
    if not masks or value is None:
        return value
    if any(mask.whole for mask in masks):
        return HIDDEN
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: _hidden(_of(masks, name), inner) for name, inner in members.items()}
    if isinstance(value, list):
        return [_hidden(_of(masks, place), inner) for place, inner in enumerate(cast("list[Any]", value))]
    return value


def _collect(masks: list[Mask], value: Any, found: set[str]) -> None:
    if any(mask.whole for mask in masks):
        found.update(_texts(value))
    elif masks and isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            _collect(_of(masks, name), inner, found)
    elif masks and isinstance(value, list):
        for place, inner in enumerate(cast("list[Any]", value)):
            _collect(_of(masks, place), inner, found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in cast("dict[str, Any]", value).values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _texts(inner)


@lru_cache(1024)
def mask_of(kind: Any) -> Mask | None:
    """Where the JSON of a type has secrets; None: nowhere."""
    try:
        info = inspect.type_info(kind)
    except TypeError:  # it has no JSON form; whoever declares it says so
        return None
    seen: dict[int, Mask] = {}
    mask = _mask(info, seen)
    return mask if any(one.whole for one in seen.values()) else None


def _mask(info: Any, seen: dict[int, Mask]) -> Mask:
    """The mask of a type, which may have itself inside."""
    if id(info) in seen:
        return seen[id(info)]
    mask = seen[id(info)] = Mask()
    match info:
        case inspect.Metadata(type=inner):
            if "jivsd.secret" in (cast("dict[str, Any] | None", info.extra) or ()):
                mask.whole = True
            else:
                seen[id(info)] = mask = _mask(inner, seen)
        case inspect.UnionType(types=types):
            _join(mask, [_mask(one, seen) for one in types])
        case inspect.StructType(fields=fields, array_like=True) | inspect.NamedTupleType(fields=fields):
            tagged = int(getattr(info, "tag", None) is not None)
            mask.items = {place + tagged: [_mask(field.type, seen)] for place, field in enumerate(fields)}
        case inspect.StructType() | inspect.TypedDictType() | inspect.DataclassType():
            mask.fields = {field.encode_name: [_mask(field.type, seen)] for field in info.fields}
        case inspect.DictType(value_type=inner):
            mask.rest = [_mask(inner, seen)]
        case inspect.TupleType(item_types=types):
            mask.items = {place: [_mask(one, seen)] for place, one in enumerate(types)}
        case inspect.CollectionType(item_type=inner):
            mask.rest = [_mask(inner, seen)]
        case _:
            pass
    return mask


def _join(mask: Mask, parts: list[Mask]) -> None:
    for part in parts:
        mask.whole = mask.whole or part.whole
        mask.rest += part.rest
        for name, masks in part.fields.items():
            mask.fields.setdefault(name, []).extend(masks)
        for place, masks in part.items.items():
            mask.items.setdefault(place, []).extend(masks)


class Veil:
    """Hides secret texts wherever they stand in others: in errors, in results that repeat them."""

    __slots__ = ("_texts",)

    def __init__(self, texts: set[str]) -> None:
        self._texts = sorted((text for text in texts if len(text) >= SHORTEST), key=len, reverse=True)

    def text(self, text: str) -> str:
        """A text without them."""
        for secret in self._texts:
            text = text.replace(secret, HIDDEN)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value without them, in its keys neither."""
        if not self._texts:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            return {self.text(name): self.value(inner) for name, inner in members.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in cast("list[Any]", value)]
        return value
