"""Keys as JSON: a watermark must come back as exactly the value that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Key


class RawText:
    """A text whose bytes are not valid UTF-8, moved as they are."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def encode_key(values: list[Any]) -> Key:
    """Integers and texts stand for themselves; other values are objects that name their kind."""
    return [_encode(value) for value in values]


def _encode(value: Any) -> Any:
    match value:
        case float():
            return {"real": value.hex()}
        case bytes():
            return {"blob": value.hex()}
        case RawText():
            return {"text": value.data.hex()}
        case _:
            return value


def decode_key(key: Key) -> list[Any]:
    """What `encode_key` was given."""
    return [_decode(value) for value in key]


def _decode(value: Any) -> Any:
    match value:
        case {"real": str(text)}:
            return float.fromhex(text)
        case {"blob": str(text)}:
            return bytes.fromhex(text)
        case {"text": str(text)}:
            return RawText(bytes.fromhex(text))
        case _:
            return value
