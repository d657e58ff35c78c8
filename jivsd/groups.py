"""Exceptions that come in groups."""

from __future__ import annotations

from typing import cast


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, and in the groups within it; of one that is no group: itself."""
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return [leaf for cause in inner for leaf in leaves(cause)]
    return [error]
