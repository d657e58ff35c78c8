"""What is taken out of a path and an error, and what is not."""

from __future__ import annotations

import pytest

from jivsd.fingerprints import fingerprint, without_keys, without_variables


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("copy", "copy"),
        ("load/tables[orders]/copy#2", "load/tables/copy"),
        ("orders[order-4711]/optional", "orders/optional"),
        ("do#2!undo", "do!undo"),
    ],
)
def test_keys_and_counts_are_taken_out_of_a_path(path, shown):
    assert without_keys(path) == shown


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("order 4711 of 12 failed after 1.5e-3 s", "order <n> of <n> failed after <n> s"),
        ("step-3 of item_7: -12,5", "step<n> of item_<n>: <n>"),
        ("can't open 'a b' or \"c\"", "can't open <value> or <value>"),
        ("no such file: /srv/x/y.json, nor ./z/w", "no such file: <path>, nor <path>"),
        ("run 0197b2c4-1111-7abc-8def-0123456789ab is gone", "run <id> is gone"),
        ("commit 3f9a1bc07d is missing at 0xdeadbeef", "commit <id> is missing at <n>"),
        ("GET https://shop.example/a?b=1 answered 503", "GET <url> answered <n>"),
        ("ann@example.org was told at 2026-01-02T03:04:05Z", "<mail> was told at <n><n><n>T<n>Z"),
        ("and/or is no path; a decade faded", "and/or is no path; a decade faded"),
    ],
)
def test_what_varies_is_taken_out_of_an_error(error, shown):
    assert without_variables(error) == shown


def test_a_fingerprint_is_of_kind_workflow_path_and_error():
    same = fingerprint("step", "order", "items[1]/ship", "parcel 5 is lost")
    assert same == fingerprint("step", "order", "items[2]/ship#3", "parcel 6 is lost")
    others = [
        ("compensation", "order", "items/ship", "parcel 5 is lost"),
        ("step", "return", "items/ship", "parcel 5 is lost"),
        ("step", "order", "items/pack", "parcel 5 is lost"),
        ("step", "order", "items/ship", "parcel 5 is late"),
        ("step", None, "items/ship", "parcel 5 is lost"),
    ]
    assert len({same, *(fingerprint(*other) for other in others)}) == 6


def test_a_long_error_costs_little():
    assert len(without_variables("'" * 100_000)) <= 7 * 250
