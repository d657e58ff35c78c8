"""The workflow: its phases, one after the other, and what it knows about its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jivsd import Cancelled, Context, query, workflow

from .content import Content
from .errors import Fenced, Finished, MigrationError, NotEqual, PlanRefused, Unavailable, leaf, refuse
from .model import Chunk, Measured, Plan, PlannedTable, Summary, TableSummary
from .planning import estimated_seconds, too_little_space
from .progress import Meter, MigrationStatus, Phase, Progress
from .request import PARALLEL, Request
from .steps import (
    build_index,
    check_references,
    check_schema,
    claim,
    compare_rows,
    complete_schema,
    copy_chunk,
    finish,
    hash_source,
    hash_target,
    inspect,
    measure,
)

if TYPE_CHECKING:
    from jivsd import Step

    from .model import Claim, Hashed, Job, Key, Pair, Part, PartState, Survey, Table

__all__ = ["Fenced", "Finished", "Migration", "MigrationError", "NotEqual", "PlanRefused", "Unavailable"]
"""The errors too: a step's error is found again by its name among this module's."""


@workflow("migration", lock_key="migration:{target}")
class Migration:
    """Move an SQLite database into another: schema and rows, or rows only.

    Rows are loaded in chunks, each committed in the target together with the fence's watermark: exactly once,
    whatever is killed meanwhile. Indexes, views and triggers follow. Then everything is compared: row counts, a hash
    of each table's content, the schema, the sequences, the references. Two migrations into one target exclude each
    other. One that did not finish is gone on with by the next of the same source, target and tables.

    The query `progress` keeps to a convention for all workflows that have one: an object with `phase`, `done` and
    `total` (in this phase; `total` may be an estimate), `unit` (of both), `detail` (what it is at), `rate` (units a
    second) and `remaining_s` (seconds to the run's end, null while nobody can tell); more fields may follow. Whoever
    waits for such a run can draw a bar of it. The query `plan` tells what is to be moved, in which order.
    """

    def __init__(self) -> None:
        self.meter = Meter()
        self.survey: Survey | None = None
        self.warnings: list[str] = []
        self.differences: list[str] = []
        self.summaries: dict[str, TableSummary] = {}

    @query
    def progress(self) -> Progress:
        return self.meter.progress()

    @query
    def plan(self) -> Plan | None:
        if self.survey is None:
            return None
        rows, size = self.meter.total_rows, self.meter.total_bytes
        return Plan(
            tables=[PlannedTable(it.table, it.total) for it in self.meter.tables.values()],
            rows=rows,
            bytes=size,
            seconds=estimated_seconds(rows, size),
            deferred=self.survey.deferred,
            warnings=self.warnings,
        )

    async def run(self, ctx: Context, request: Request) -> Summary:
        began = ctx.now()
        self.meter.status = MigrationStatus.IN_PROGRESS
        try:
            await self._migrate(ctx, request)
        except Cancelled:
            self.meter.status = MigrationStatus.CANCELLED
            raise
        except Exception as error:
            with ctx.shield():
                self.meter.fail(ctx.now())
            raise leaf(error) from None
        self.meter.complete(ctx.now())
        return self._summary(request, (ctx.now() - began).total_seconds())

    async def _migrate(self, ctx: Context, request: Request) -> None:
        self.meter.begin(Phase.PLANNING, ctx.now())
        survey = self.survey = await ctx.step(inspect, request)
        self.warnings += survey.warnings
        self.meter.begin(Phase.EXTRACTION, ctx.now(), len(survey.pairs))
        parts = await self._measure(ctx, request, survey)
        self.meter.begin(Phase.TRANSFORMATION, ctx.now(), 1, "steps")
        claimed = await ctx.step(claim, survey.job, parts)
        self.meter.begin(Phase.VALIDATION, ctx.now())
        await self._load(ctx, request, survey, claimed)
        left_out = await self._complete(ctx, request, survey, claimed.epoch)
        self.meter.begin(Phase.VERIFICATION, ctx.now(), self.meter.rows * (1 if survey.job.upsert else 2), "rows")
        await self._verify(ctx, request, survey, left_out)
        self.meter.begin(Phase.CLEANUP, ctx.now(), 1, "steps")
        await ctx.step(finish, survey.job, claimed.epoch)

    async def _measure(self, ctx: Context, request: Request, survey: Survey) -> list[Part]:
        ranges = request.load.parallelism if request.load.strategy == PARALLEL else 1

        async def one(table: Table) -> Measured:
            measured = await ctx.step(measure, survey.job.source, table, ranges, request.load.chunk_rows)
            self.meter.advance(1, table.name, ctx.now())
            return measured

        async with ctx.nursery("measure", limit=request.load.parallelism) as tables:
            jobs = [tables[pair.source.name].start_soon(one, pair.source) for pair in survey.pairs]
        for pair, job in zip(survey.pairs, jobs, strict=True):
            self.meter.expect(pair.source.name, job.result.rows, job.result.bytes)
        problem = too_little_space(survey.free_bytes, self.meter.total_bytes)
        if problem is not None and not survey.taken_over:
            raise refuse([problem])
        return [part for job in jobs for part in job.result.parts]

    async def _load(self, ctx: Context, request: Request, survey: Survey, claimed: Claim) -> None:
        places = {pair.source.name: place for place, pair in enumerate(survey.pairs)}
        states = sorted(claimed.parts, key=lambda state: (places[state.part.table], state.part.number))
        for state in states:
            self.meter.restore(state.part.table, state.rows, state.bytes)
        self.meter.begin(Phase.LOADING, ctx.now(), self.meter.total_rows, "rows", done=self.meter.rows)
        async with ctx.nursery("load", limit=request.load.parallelism) as parts:
            for state in states:
                pair = survey.pairs[places[state.part.table]]
                load = parts[state.part.table].start_soon
                load(self._load_part, ctx, request, survey.job, pair, claimed.epoch, state)

    async def _load_part(
        self, ctx: Context, request: Request, job: Job, pair: Pair, epoch: int, state: PartState
    ) -> None:
        after, done, number = state.after, state.done, state.chunks
        while not done:
            number += 1
            chunk = Chunk(
                table=pair.source,
                part=state.part.number,
                number=number,
                rows=request.load.chunk_rows,
                after=after,
                until=state.part.until,
                conflict=pair.target.primary if job.upsert else [],
            )
            copied = await ctx.step(copy_chunk, job, epoch, chunk)
            self.meter.loaded(pair.source.name, copied.rows, copied.bytes, ctx.now())
            after, done = copied.after, copied.done

    async def _complete(self, ctx: Context, request: Request, survey: Survey, epoch: int) -> list[tuple[str, str]]:
        """Make what belongs to the tables, and return what was left out of it."""
        self.meter.advance(0, "indexes", ctx.now())
        async with ctx.nursery("indexes", limit=request.load.parallelism) as indexes:
            for name in survey.indexes:
                indexes[name].start_soon(build_index, survey.job, epoch, name)
        left_out = await ctx.step(complete_schema, survey.job, epoch, [pair.source.name for pair in survey.pairs])
        self.warnings += [f"{kind} {name!r} is left out: it needs what is not migrated" for kind, name in left_out]
        return left_out

    async def _verify(self, ctx: Context, request: Request, survey: Survey, left_out: list[tuple[str, str]]) -> None:
        async with ctx.nursery("verify", limit=request.load.parallelism) as tables:
            for pair in survey.pairs:
                tables[pair.source.name].start_soon(self._verify_table, ctx, survey.job, pair)
        self.differences += await ctx.step(check_schema, survey, left_out)
        if self.differences:
            text = "source and target are not equal: " + "; ".join(self.differences)
            raise NotEqual(text, differences=self.differences)

    async def _verify_table(self, ctx: Context, job: Job, pair: Pair) -> None:
        name = pair.source.name
        if job.upsert:
            source, target = await self._compare(ctx, job, pair)
        else:
            source = await self._hash(ctx, hash_source, job, pair.source)
            target = await self._hash(ctx, hash_target, job, pair.target)
        difference = source.difference(target)
        if difference is not None:
            self.differences.append(f"table {name!r} {difference}")
        self.summaries[name] = TableSummary(name, source.rows, source.bytes, source.sum, difference is None)
        references = await ctx.step(check_references, job, name)
        self.differences += references.differences
        self.warnings += references.warnings

    async def _hash(
        self, ctx: Context, side: Step[[Job, Table, Key | None], Hashed], job: Job, table: Table
    ) -> Content:
        content, after, done = Content(), None, False
        while not done:
            hashed = await ctx.step(side, job, table, after)
            content = content.with_more(hashed.rows, hashed.bytes, hashed.sum)
            self.meter.advance(hashed.rows, table.name, ctx.now())
            after, done = hashed.after, hashed.done
        return content

    async def _compare(self, ctx: Context, job: Job, pair: Pair) -> tuple[Content, Content]:
        source, target, after, done = Content(), Content(), None, False
        while not done:
            compared = await ctx.step(compare_rows, job, pair, after)
            source = source.with_more(compared.rows, compared.bytes, compared.sum)
            target = target.with_more(compared.found, compared.bytes, compared.found_sum)
            self.meter.advance(compared.rows, pair.source.name, ctx.now())
            after, done = compared.after, compared.done
        return source, target

    def _summary(self, request: Request, seconds: float) -> Summary:
        loading = sum(it.seconds for it in self.meter.finished if it.phase == Phase.LOADING)
        rows, size = self.meter.rows, self.meter.bytes
        return Summary(
            name=request.name,
            tables=[self.summaries[name] for name in self.meter.tables],
            rows=rows,
            bytes=size,
            seconds=round(seconds, 3),
            rows_per_s=round(rows / loading, 1) if loading else 0.0,
            bytes_per_s=round(size / loading, 1) if loading else 0.0,
            phases=self.meter.finished,
            warnings=self.warnings,
        )
