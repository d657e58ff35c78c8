"""A source database to migrate: several tables with everything that tends to get lost, made from a seed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA: Final = """
CREATE TABLE region (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE);
CREATE TABLE employee (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    chief INTEGER REFERENCES employee (id)
);
CREATE TABLE customer (
    id INTEGER PRIMARY KEY,
    region INTEGER NOT NULL REFERENCES region (id),
    name TEXT NOT NULL,
    email TEXT,
    credit REAL NOT NULL DEFAULT 0.0,
    cared_for_by INTEGER REFERENCES employee (id)
);
CREATE TABLE product (
    code TEXT NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    price NUMERIC,
    picture BLOB
);
CREATE TABLE "order" (
    id INTEGER PRIMARY KEY,
    customer INTEGER NOT NULL REFERENCES customer (id),
    placed_at TEXT NOT NULL,
    remark TEXT
);
CREATE TABLE "order line" (
    "order" INTEGER NOT NULL REFERENCES "order" (id),
    number INTEGER NOT NULL,
    product TEXT NOT NULL REFERENCES product (code),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    price NUMERIC,
    total NUMERIC AS (quantity * price) VIRTUAL,
    PRIMARY KEY ("order", number)
) WITHOUT ROWID;
CREATE TABLE note (customer INTEGER, text TEXT, seal BLOB);
"""
_AFTERWARDS: Final = """
CREATE INDEX customer_region ON customer (region, name COLLATE NOCASE);
CREATE INDEX order_customer ON "order" (customer);
CREATE INDEX line_product ON "order line" (product) WHERE quantity > 1;
CREATE VIEW turnover AS
    SELECT customer, sum(total) AS total FROM "order" JOIN "order line" ON "order" = id GROUP BY customer;
CREATE TRIGGER no_empty_note BEFORE INSERT ON note WHEN new.text IS NULL AND new.seal IS NULL
BEGIN SELECT RAISE(ABORT, 'an empty note'); END;
"""
_SHARES: Final = {"employee": 0.001, "customer": 0.06, "product": 0.01, "order": 0.25, "note": 0.02}
"""Parts of all rows. Regions are few, and what is left to the wanted number are order lines."""
_REGIONS: Final = ("Nord", "Süd", "Østlandet", "Ελλάδα", "日本", "Ñuñoa", "Île-de-France", "Québec")
_WORDS: Final = (
    "Zwölf Boxkämpfer", "jagen", "Viktor", "quer über", "den großen", "Sylter Deich", "naïve café", "Ærøskøbing",
    "いろはにほへと", "שלום", "пример", "🚀", "e\u0301 = é", "O'Brien", '"quoted"', "a\nb", "tab\there", "100 %",
    "NULL", "",
)  # fmt: skip


def make(path: Path, rows: int, seed: int) -> int:
    """Make the database at `path` with about `rows` rows, never fewer; return how many there are."""
    random = Random(seed)
    count = {table: max(1, int(rows * share)) for table, share in _SHARES.items()}
    lines = rows - sum(count.values()) - len(_REGIONS)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")  # whoever loses power while it is made makes it again
        db.executescript(_SCHEMA)
        with db:
            db.executemany("INSERT INTO region VALUES (?, ?)", enumerate(_REGIONS, 1))
            for table, made in (
                ("employee", _employees(random, count["employee"])),
                ("customer", _customers(random, count["customer"], count["employee"])),
                ("product", _products(random, count["product"])),
                ('"order"', _orders(random, count["order"], count["customer"])),
                ('"order line" ("order", number, product, quantity, price)', _lines(random, lines, count)),
                ("note", _notes(random, count["note"], count["customer"])),
            ):
                _insert(db, table, made)
        db.executescript(_AFTERWARDS)
        (total,) = db.execute(
            "SELECT (SELECT count(*) FROM region) + (SELECT count(*) FROM employee) + (SELECT count(*) FROM customer)"
            ' + (SELECT count(*) FROM product) + (SELECT count(*) FROM "order") + (SELECT count(*) FROM "order line")'
            " + (SELECT count(*) FROM note)"
        ).fetchone()
    return total


def _insert(db: sqlite3.Connection, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
    first = next(rows)
    sql = f"INSERT INTO {table} VALUES ({', '.join('?' * len(first))})"
    db.execute(sql, first)
    db.executemany(sql, rows)


def _text(random: Random) -> str:
    return " ".join(random.choices(_WORDS, k=3))


def _employees(random: Random, count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(1, count + 1):
        yield number, _text(random), random.randint(1, number - 1) if number > 1 else None


def _customers(random: Random, count: int, employees: int) -> Iterator[tuple[Any, ...]]:
    for number in range(1, count + 1):
        email = f"customer{number}@example.org" if number % 7 else None
        keeper = random.randint(1, employees) if number % 5 else None
        yield number * 3, random.randint(1, len(_REGIONS)), _text(random), email, random.uniform(-1e6, 1e6), keeper


def _products(random: Random, count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        picture = random.randbytes(random.randint(0, 400)) if number % 3 else None
        yield _code(number), _text(random), random.choice((None, number, number / 8, 2**53 + 1)), picture


def _code(number: int) -> str:
    return f"P-{number:05d}-ß"


def _orders(random: Random, count: int, customers: int) -> Iterator[tuple[Any, ...]]:
    for number in range(1, count + 1):
        remark = None if number % 4 else _text(random)
        moment = f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}T00:00:00Z"
        yield number, random.randint(1, customers) * 3, moment, remark


def _lines(random: Random, count: int, counts: dict[str, int]) -> Iterator[tuple[Any, ...]]:
    orders, products = counts["order"], counts["product"]
    for line in range(count):
        price = random.choice((None, 1, 2.5, -0.125))
        yield line % orders + 1, line // orders + 1, _code(random.randrange(products)), line % 9 + 1, price


def _notes(random: Random, count: int, customers: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        seal = random.randbytes(16) if number % 2 else b""
        yield random.choice((None, random.randint(1, customers) * 3)), _text(random), seal
