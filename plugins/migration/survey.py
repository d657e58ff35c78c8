"""The survey: from the catalogues of both databases and the request to what will be moved, or why it cannot be."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from .errors import refuse
from .model import Job, Pair, Survey, Table
from .planning import order, select
from .request import BULK, DATA_ONLY, POSTGRESQL, SQLITE, UPSERT

if TYPE_CHECKING:
    from .catalogue import Catalogue, TargetState
    from .request import Endpoint, Request


_fresh = {
    SQLITE: f"a new file, or type {DATA_ONLY} to fill tables that are there",
    POSTGRESQL: "a database or a schema with nothing in it",
}


def refuse_pair(request: Request, source: Endpoint, target: Endpoint) -> None:
    """Raises PlanRefused for what these two systems cannot do with each other."""
    if target.system == SQLITE and source.system != SQLITE:
        raise refuse(["from postgresql only a postgresql target can be loaded"])
    if target.system == SQLITE and request.load.strategy == BULK:
        raise refuse([f"strategy {BULK} is for a postgresql target"])
    if target.system == POSTGRESQL and request.type == DATA_ONLY:
        raise refuse([f"type {DATA_ONLY} is for sqlite targets; a postgresql target has to be empty"])


def survey(request: Request, source: Endpoint, target: Endpoint, held: Catalogue, state: TargetState) -> Survey:
    """Plan what can be planned without looking at rows.

    Raises:
        PlanRefused: with all problems at once.
    """
    chosen, problems = select(held.names, request.tables, request.exclude)
    problems += [f"{held.unsupported[name]}; leave it out with exclude" for name in chosen if name in held.unsupported]
    if held.fenced:
        problems.append(f"the source {source.shown} is itself the target of an unfinished migration")
    problems += state.problems
    tables = [held.tables[name] for name in chosen if name in held.tables]
    pairs, mismatches = _pairs(request, tables, state)
    problems += mismatches
    job = _job(request, source, target, pairs, whole=len(chosen) == len(held.names))
    taken_over = False
    if state.fence is not None:
        fingerprint, owner = state.fence
        taken_over = fingerprint == job.fingerprint
        if not taken_over:
            problems.append(f"the target {target.shown} holds an unfinished migration of other content, by run {owner}")
    elif job.full and state.catalogue is not None and state.catalogue.definitions:
        first = state.catalogue.definitions[0]
        problems.append(
            f"the target {target.shown} is not empty: it has {first.kind} {first.name!r}; give {_fresh[target.system]}"
        )
    if problems:
        raise refuse(problems)
    return _ordered(job, pairs, held, state, taken_over)


def _ordered(job: Job, pairs: list[Pair], held: Catalogue, state: TargetState, taken_over: bool) -> Survey:
    by_name = {pair.source.name: pair for pair in pairs}
    known = {name.casefold(): name for name in held.names}
    references = {
        name: [known.get(it.casefold(), it) for it in pair.source.refers_to] for name, pair in by_name.items()
    }
    sequence, deferred = order(references)
    warnings = [
        f"table {name!r} refers to {referenced!r}, which is not migrated"
        for name, targets in references.items()
        for referenced in targets
        if referenced not in by_name and job.full
    ]
    warnings += held.notes
    definitions = held.definitions_for(list(by_name)) if job.full else []
    return Survey(
        job=job,
        pairs=[by_name[name] for name in sequence],
        indexes=[it.name for it in definitions if it.kind == "index"],
        views=[it.name for it in definitions if it.kind == "view"],
        triggers=[it.name for it in definitions if it.kind == "trigger"],
        deferred=deferred,
        warnings=warnings,
        free_bytes=state.free_bytes,
        taken_over=taken_over,
    )


def _job(request: Request, source: Endpoint, target: Endpoint, pairs: list[Pair], *, whole: bool) -> Job:
    content = msgspec.json.encode([str(source), request.type, request.load.strategy == UPSERT, whole, pairs])
    return Job(
        source=source,
        target=target,
        full=request.type != DATA_ONLY,
        upsert=request.load.strategy == UPSERT,
        whole=whole,
        fingerprint=hashlib.blake2b(content, digest_size=16).hexdigest(),
    )


def _pairs(request: Request, tables: list[Table], state: TargetState) -> tuple[list[Pair], list[str]]:
    """The tables, each with its counterpart in the target if rows go into tables that exist."""
    if request.type != DATA_ONLY:
        return [Pair(table) for table in tables], []
    if state.catalogue is None:
        return [], ["the target has no database yet, and DATA_ONLY fills tables that are there"]
    pairs: list[Pair] = []
    problems: list[str] = []
    present = {name.casefold(): table for name, table in state.catalogue.tables.items()}
    for table in tables:
        existing = present.get(table.name.casefold())
        if existing is None:
            problems.append(f"the target has no table {table.name!r}, and DATA_ONLY fills tables that are there")
            continue
        required = state.catalogue.required[existing.name]
        mismatches = _mismatches(table, existing, required, upsert=request.load.strategy == UPSERT)
        problems += mismatches
        if not mismatches:
            spelled = {name.casefold(): name for name in existing.columns}
            columns = [spelled[name.casefold()] for name in table.columns]
            pairs.append(Pair(table, msgspec.structs.replace(existing, columns=columns)))
    return pairs, problems


def _mismatches(table: Table, existing: Table, required: list[str], *, upsert: bool) -> list[str]:
    given = {name.casefold() for name in table.columns}
    settable = {name.casefold() for name in existing.columns}
    problems = [
        f"table {table.name!r} of the target has no column {name!r} that a value could be stored in"
        for name in table.columns
        if name.casefold() not in settable
    ]
    problems += [
        f"column {name!r} of table {table.name!r} must have a value in the target, but the source has no such column"
        for name in required
        if name.casefold() not in given
    ]
    if upsert and not existing.primary:
        problems.append(f"strategy UPSERT needs a primary key, and table {table.name!r} of the target has none")
    elif upsert and not given.issuperset(name.casefold() for name in existing.primary):
        problems.append(f"strategy UPSERT needs the primary key of table {table.name!r} among the source's columns")
    return problems
