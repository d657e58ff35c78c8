"""The steps of a migration: each a short piece of work on one or both databases, safe to repeat.

They are plain functions in threads. All that write wait when they are cancelled, so that a run never ends while one
of its chunks is still being loaded.
"""

from __future__ import annotations

from jivsd import Retry, StepContext, step

from .content import content_of, shown
from .errors import MigrationError
from .model import (
    Chunk,
    Claim,
    Claimant,
    Compared,
    Copied,
    Hashed,
    Job,
    Key,
    Measured,
    Pair,
    Part,
    References,
    Right,
    Survey,
    Table,
)
from .request import SQLITE, Endpoint, Request, endpoint_of
from .survey import refuse_pair, survey
from .systems import source_of, target_of
from .verification import reference_problems, schema_differences

RETRY = Retry(attempts=3, first="2s", factor=2, limit="10s", give_up_on=(MigrationError,))
_compared_rows = 5_000
_first = ("type", "function", "sequence", "table")
"""Kinds of what is made before the rows are loaded, and after the indexes are there."""
_last = ("reference", "view", "trigger")


@step(retry=RETRY)
def inspect(request: Request) -> Survey:
    """Read both catalogues and plan; from here on databases have absolute paths."""
    try:
        source, target = _settled(endpoint_of(request.source)), _settled(endpoint_of(request.target))
    except ValueError as error:
        raise MigrationError(str(error)) from None
    refuse_pair(request, source, target)
    held = source_of(source, target).catalogue()
    if source.same_as(target):
        raise MigrationError(f"source and target are the same database, {source.shown}")
    return survey(request, source, target, held, target_of(target).examine())


def _settled(endpoint: Endpoint) -> Endpoint:
    return Endpoint(SQLITE, f"{SQLITE}:///{endpoint.path}") if endpoint.system == SQLITE else endpoint


@step(retry=RETRY)
def measure(source: Endpoint, table: Table, ranges: int, chunk_rows: int) -> Measured:
    return source_of(source).measure(table, ranges, chunk_rows)


@step(retry=RETRY, cancel="wait")
def claim(ctx: StepContext, job: Job, parts: list[Part]) -> Claim:
    """Make the target this run's: its tables and its fence, or the fence of the run before."""
    held = source_of(job.source, job.target).catalogue()
    names = list(dict.fromkeys(part.table for part in parts))
    tables = [it for it in held.definitions_for(names) if it.kind in _first] if job.full else []
    claimant = Claimant(ctx.run_id, ctx.idempotency_key, ctx.fence)
    return target_of(job.target).claim(job, claimant, parts, tables, held.settings)


@step(retry=RETRY, cancel="wait")
def copy_chunk(ctx: StepContext, job: Job, epoch: int, chunk: Chunk) -> Copied:
    """Load one chunk, exactly once however often this is repeated."""
    rows = source_of(job.source, job.target).read(chunk.table, chunk.after, chunk.until, chunk.rows)
    return target_of(job.target).load(job, Right(epoch, ctx.fence), chunk, rows)


@step(retry=RETRY, cancel="wait")
def build_index(ctx: StepContext, job: Job, epoch: int, name: str) -> None:
    """Make one index of the source in the target, after its table was loaded."""
    held = source_of(job.source, job.target).catalogue()
    wanted = [it for it in held.definitions if it.kind == "index" and it.name == name]
    target_of(job.target).build(Right(epoch, ctx.fence), wanted)


@step(retry=RETRY, cancel="wait")
def complete_schema(ctx: StepContext, job: Job, epoch: int, tables: list[str]) -> list[tuple[str, str]]:
    """Make views and triggers and set the sequences.

    Returns:
        Kind and name of what was left out, because it needs tables that are not migrated.
    """
    held = source_of(job.source, job.target).catalogue()
    target, right = target_of(job.target), Right(epoch, ctx.fence)
    left_out: list[tuple[str, str]] = []
    if job.full:
        definitions = [it for it in held.definitions_for(tables) if it.kind in _last]
        if job.whole:
            target.build(right, definitions)
        else:
            left_out = target.build_working(right, definitions)
    target.set_sequences(job, right, {name: held.sequences[name] for name in tables if name in held.sequences})
    return left_out


@step(retry=RETRY)
def hash_source(job: Job, table: Table, after: Key | None) -> Hashed:
    """The content of a stretch of the source's rows."""
    return source_of(job.source, job.target).content(table, after)


@step(retry=RETRY)
def hash_target(job: Job, table: Table, after: Key | None) -> Hashed:
    """The content of a stretch of the target's rows."""
    return target_of(job.target).content(table, after)


@step(retry=RETRY)
def compare_rows(job: Job, pair: Pair, after: Key | None) -> Compared:
    """The content of a stretch of the source's rows, and of the rows with the same primary keys in the target."""
    rows = source_of(job.source, job.target).read(pair.source, after, None, _compared_rows)
    width = len(pair.source.columns)
    found, content = target_of(job.target).content_of_keys(pair.target, rows)
    return Compared(
        rows=len(rows.values),
        bytes=rows.bytes,
        sum=shown(content_of(row[:width] for row in rows.values)),
        found=found,
        found_sum=shown(content),
        after=rows.after,
        done=rows.done,
    )


@step(retry=RETRY)
def check_schema(survey: Survey, left_out: list[tuple[str, str]]) -> list[str]:
    """How the target's schema and sequences differ from the source's."""
    held, made = source_of(survey.job.source, survey.job.target).catalogue(), target_of(survey.job.target).catalogue()
    return schema_differences(survey, held, made, left_out)


@step(retry=RETRY)
def check_references(job: Job, table: str) -> References:
    """Whether all that the table's rows refer to is in the target, as far as it was in the source."""
    target = target_of(job.target).broken_references(table)
    source = source_of(job.source, job.target).broken_references(table) if target is None or target else {}
    return References(*reference_problems(table, source, target))


@step(retry=RETRY, cancel="wait")
def finish(ctx: StepContext, job: Job, epoch: int) -> None:
    """Give the target the source's settings and remove the fence."""
    held = source_of(job.source, job.target).catalogue()
    target_of(job.target).finish(job, Right(epoch, ctx.fence), held.settings, held.analysed)
