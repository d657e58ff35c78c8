"""What a check says about a line of a plugin."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, order=True, kw_only=True, omit_defaults=True):
    """A place in a plugin that will not work, or not as one may think.

    `rule`: J01 to J11 (see `jivsd.registry.check.rules`), or "load" for a plugin that cannot be used at all, which
    then is an error.
    """

    file: str
    line: int = 0
    rule: str
    message: str
    advice: str = ""

    @property
    def is_error(self) -> bool:
        return self.rule == "load"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.rule}: {self.message}" + (f"; {self.advice}" if self.advice else "")
