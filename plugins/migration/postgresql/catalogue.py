"""The catalogue of one schema of a PostgreSQL database: its tables, and the SQL that makes what it holds."""

from __future__ import annotations

from typing import Any

from ..catalogue import Catalogue
from ..model import Definition, KeyColumn, Table
from .connect import literal, quoted

FENCE = "_jivsd_fence"
"""The table in a migration's target that says who may write and how far each table is; see `fence`."""
INTEGERS = ("smallint", "integer", "bigint")

_extension = (
    "NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = '{}'::regclass AND d.objid = {}.oid AND d.deptype = 'e')"
)
_tables = f"""
SELECT c.oid, c.relname AS name, c.relkind::text AS kind, c.relispartition AS part,
       EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid OR inhparent = c.oid) AS inherits,
       c.relrowsecurity AS secured, obj_description(c.oid, 'pg_class') AS comment
FROM pg_class AS c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'f') AND c.relname <> '{FENCE}'
    AND {_extension.format("pg_class", "c")}
ORDER BY c.relname
"""
_columns = """
SELECT a.attrelid AS oid, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       pg_get_expr(d.adbin, d.adrelid) AS expression, a.attidentity::text AS identity,
       a.attgenerated::text AS generated,
       (SELECT relname FROM pg_depend JOIN pg_class ON pg_class.oid = objid
        WHERE refobjid = a.attrelid AND refobjsubid = a.attnum AND deptype IN ('i', 'a') AND relkind = 'S'
        ORDER BY relname LIMIT 1) AS sequence,
       CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(l.collname) END AS collation
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum
"""
_constraints = """
SELECT c.conrelid AS oid, c.conname AS name, c.contype::text AS kind, pg_get_constraintdef(c.oid) AS sql,
       c.confrelid::regclass::text AS referenced, r.relname AS referenced_name
FROM pg_constraint AS c LEFT JOIN pg_class AS r ON r.oid = c.confrelid
WHERE c.conrelid = ANY ($1::oid[]) AND c.contype IN ('p', 'u', 'c', 'x', 'f') ORDER BY c.conname
"""
_indexes = """
SELECT i.indrelid AS oid, c.relname AS name, pg_get_indexdef(i.indexrelid, 0, true) AS sql
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY ($1::oid[]) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid
                                                   AND contype IN ('p', 'u', 'x'))
ORDER BY c.relname
"""
_keys = """
SELECT i.indrelid AS oid, i.indisprimary AS "primary",
       array_agg(a.attname::text ORDER BY k.place) AS names,
       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY k.place) AS types
FROM pg_index AS i
CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = ANY ($1::oid[]) AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
    AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
GROUP BY i.indexrelid, i.indrelid, i.indisprimary HAVING bool_and(a.attnotnull)
ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid
"""
_types = f"""
SELECT t.typname AS name, t.typtype::text AS kind,
       (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) AS labels,
       format_type(t.typbasetype, t.typtypmod) AS base, t.typnotnull AS required, t.typdefault AS expression,
       (SELECT array_agg(format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) ORDER BY conname)
        FROM pg_constraint WHERE contypid = t.oid AND contype = 'c') AS checks
FROM pg_type AS t
WHERE t.typnamespace = current_schema()::regnamespace AND t.typtype IN ('e', 'd')
    AND {_extension.format("pg_type", "t")}
ORDER BY t.typtype DESC, t.oid
"""
_routines = f"""
SELECT p.oid::regprocedure::text AS name,
       replace(pg_get_functiondef(p.oid), ' ' || quote_ident(current_schema()) || '.', ' ') AS sql
FROM pg_proc AS p
WHERE p.pronamespace = current_schema()::regnamespace AND p.prokind IN ('f', 'p')
    AND {_extension.format("pg_proc", "p")}
ORDER BY 1
"""
_sequences = """
SELECT c.relname AS name, s.seqtypid::regtype::text AS type, s.seqstart AS start, s.seqincrement AS increment,
       s.seqmin AS least, s.seqmax AS most, s.seqcache AS cache, s.seqcycle AS cycle,
       EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'i') AS identity
FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid
WHERE c.relnamespace = current_schema()::regnamespace ORDER BY 1
"""
_views = """
SELECT c.relname AS name, c.relkind::text AS kind, pg_get_viewdef(c.oid) AS sql FROM pg_class AS c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('v', 'm') ORDER BY c.oid
"""
_triggers = f"""
SELECT tgname AS name, relname AS home, pg_get_triggerdef(t.oid, true) AS sql FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = tgrelid
WHERE c.relnamespace = current_schema()::regnamespace AND NOT tgisinternal AND c.relname <> '{FENCE}' ORDER BY 2, 1
"""


async def read_catalogue(session: Any) -> Catalogue:
    """Read everything but the rows."""
    reader = _Reader(session)
    await reader.read()
    return Catalogue(
        tables=reader.tables,
        unsupported=reader.unsupported,
        required=reader.required,
        definitions=reader.definitions,
        settings=reader.positions,
        sequences={},
        analysed=True,
        fenced=await session.fetchval("SELECT to_regclass($1)", FENCE) is not None,
    )


class _Reader:
    def __init__(self, session: Any) -> None:
        self.tables: dict[str, Table] = {}
        self.unsupported: dict[str, str] = {}
        self.required: dict[str, list[str]] = {}
        self.definitions: list[Definition] = []
        self.positions: dict[str, int | str] = {}
        """Where sequences stand: the last value, and whether it has been given out."""
        self._session = session

    async def read(self) -> None:
        session = self._session
        for row in await session.fetch(_types):
            self._define("type", row["name"], "", _type(row))
        for row in await session.fetch(_routines):
            self._define("function", row["name"], "", row["sql"])
        for row in await session.fetch(_sequences):
            last, called = await session.fetchrow(f"SELECT last_value, is_called FROM {quoted(row['name'])}")
            self.positions[row["name"]] = f"{last},{str(called).lower()}"
            if not row["identity"]:
                self._define("sequence", row["name"], "", _sequence(row))
        await self._read_tables()
        for row in await session.fetch(_views):
            kind = "VIEW" if row["kind"] == "v" else "MATERIALIZED VIEW"
            self._define("view", row["name"], row["name"], f"CREATE {kind} {quoted(row['name'])} AS {row['sql']}")
        for row in await session.fetch(_triggers):
            self._define("trigger", f"{row['name']} of {row['home']}", row["home"], row["sql"])

    async def _read_tables(self) -> None:
        found = {row["oid"]: row for row in await self._session.fetch(_tables)}
        oids = list(found)
        columns = _grouped(await self._session.fetch(_columns, oids))
        keys = _grouped(await self._session.fetch(_keys, oids))
        constraints = _grouped(await self._session.fetch(_constraints, oids))
        indexes = _grouped(await self._session.fetch(_indexes, oids))
        for oid, row in found.items():
            name, own = row["name"], columns.get(oid, [])
            if (why := _objection(row, own)) is not None:
                self.unsupported[name] = f"table {name!r} {why}"
                continue
            refers_to = [it["referenced_name"] for it in constraints.get(oid, ()) if it["kind"] == "f"]
            self.tables[name] = _table(name, own, keys.get(oid, []), list(dict.fromkeys(refers_to)))
            self.required[name] = [it["name"] for it in own if it["required"] and _needs_value(it)]
            self._define("table", name, name, _create(name, own))
            for it in indexes.get(oid, ()):
                self._define("index", it["name"], name, it["sql"])
            for it in constraints.get(oid, ()):
                sql = f"ALTER TABLE {quoted(name)} ADD CONSTRAINT {quoted(it['name'])} {it['sql']}"
                kind = "reference" if it["kind"] == "f" else "index"
                self._define(kind, f"{it['name']} of {name}", name, sql)

    def _define(self, kind: str, name: str, table: str, sql: str) -> None:
        self.definitions.append(Definition(kind, name, table, sql))


def _grouped(rows: list[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row["oid"], []).append(row)
    return found


def _objection(row: Any, columns: list[Any]) -> str | None:
    """Why a table cannot be migrated."""
    if row["kind"] == "f":
        return "is a foreign table; these are not supported"
    if row["kind"] == "p" or row["part"] or row["inherits"]:
        return "is partitioned, or inherits; these are not supported"
    if row["secured"]:
        return "has row security, which may hide rows; these are not supported"
    if not any(not column["generated"] for column in columns):
        return "has no columns to migrate"
    return None


def _needs_value(column: Any) -> bool:
    return not (column["expression"] or column["identity"] or column["generated"])


def _table(name: str, columns: list[Any], keys: list[Any], refers_to: list[str]) -> Table:
    key = [KeyColumn("ctid", "tid")]  # where a row lies; nobody moves it while it is read
    if keys:
        pairs = zip(keys[0]["names"], keys[0]["types"], strict=True)
        key = [KeyColumn(part, None if kind in INTEGERS else kind) for part, kind in pairs]
    return Table(
        name=name,
        columns=[it["name"] for it in columns if not it["generated"]],
        key=key,
        primary=list(keys[0]["names"]) if keys and keys[0]["primary"] else [],
        refers_to=refers_to,
    )


def _create(table: str, columns: list[Any]) -> str:
    lines = [_column(it) for it in columns]
    owned = [
        f"ALTER SEQUENCE {quoted(it['sequence'])} OWNED BY {quoted(table)}.{quoted(it['name'])}"
        for it in columns
        if it["sequence"] and not it["identity"]
    ]
    return "; ".join([f"CREATE TABLE {quoted(table)} (\n    {(',' + chr(10) + '    ').join(lines)}\n)", *owned])


def _column(it: Any) -> str:
    words = [quoted(it["name"]), it["type"]]
    if it["collation"]:
        words.append(f"COLLATE {it['collation']}")
    if it["identity"]:
        how = "ALWAYS" if it["identity"] == "a" else "BY DEFAULT"
        words.append(f"GENERATED {how} AS IDENTITY (SEQUENCE NAME {quoted(it['sequence'])})")
    elif it["generated"]:
        words.append(f"GENERATED ALWAYS AS ({it['expression']}) {'STORED' if it['generated'] == 's' else 'VIRTUAL'}")
    elif it["expression"]:
        words.append(f"DEFAULT {it['expression']}")
    if it["required"]:
        words.append("NOT NULL")
    return " ".join(words)


def _type(row: Any) -> str:
    if row["kind"] == "e":
        return f"CREATE TYPE {quoted(row['name'])} AS ENUM ({', '.join(map(literal, row['labels'] or ()))})"
    words = [f"CREATE DOMAIN {quoted(row['name'])} AS {row['base']}"]
    if row["expression"]:
        words.append(f"DEFAULT {row['expression']}")
    if row["required"]:
        words.append("NOT NULL")
    return " ".join([*words, *(row["checks"] or ())])


def _sequence(row: Any) -> str:
    return (
        f"CREATE SEQUENCE {quoted(row['name'])} AS {row['type']} INCREMENT {row['increment']} MINVALUE {row['least']}"
        f" MAXVALUE {row['most']} START {row['start']} CACHE {row['cache']}{' CYCLE' if row['cycle'] else ''}"
    )
