"""Lists of incidents: what has to be asked. For every store."""

from __future__ import annotations

from typing import Any

from jivsd.store.api import BadCursor


def those_of(sql: str, limit: int, *, cursor: str | None = None, **given: str | None) -> tuple[str, dict[str, Any]]:
    """SQL and its parameters for the incidents of which the columns have the given values; None: any.

    In `sql` the conditions take the place of the word "true".

    Raises:
        BadCursor: the cursor came with no page.
    """
    values: dict[str, Any] = {column: value for column, value in given.items() if value is not None}
    conditions = [f"{column} = :{column}" for column in values]
    if cursor is not None:
        conditions.append("number < :cursor")
        values["cursor"] = _number(cursor)
    return sql.replace("true", " AND ".join(conditions) or "true"), {**values, "limit": limit}


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise BadCursor(f"{cursor!r} is not a cursor: pass on the one that came with the page before")
    return int(cursor)
