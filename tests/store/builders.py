"""Short ways to say what is to be written."""

from __future__ import annotations

import msgspec

from jivsd.records import Event, Kind, Message, Options, Run, Status, new_id, shard_of
from jivsd.store.api import Entry, NewRun, Post, RunChange, RunFilter

AT = 1_800_000_000_000_000


def new_run(workflow="nap", workflow_id=None, *, status=Status.RUNNING, run_id=None, at=AT, attributes=None, **options):
    """A run that could be started."""
    run_id = run_id or new_id()
    workflow_id = workflow_id or run_id
    return Run(
        run_id=run_id,
        workflow=workflow,
        workflow_id=workflow_id,
        code_hash="c0de",
        shard=shard_of(workflow_id),
        status=status,
        input=msgspec.Raw(b'{"seconds":1}'),
        created_at=at,
        options=Options(**options),
        attributes=attributes or {},
    )


def event(run, seq, payload=b'{"args_hash":"a","result":1}', **fields):
    """An event of a run."""
    return Event(run_id=run.run_id, seq=seq, kind=Kind.STEP_DONE, path=f"nap#{seq}", payload=payload, at=AT, **fields)


def started(run):
    """The first event of a run."""
    return Event(run.run_id, 1, Kind.STARTED, "", b'{"seed":"s"}', run.created_at)


def start(run, key=None, input_hash="i1"):
    """The entry that starts a run."""
    new = NewRun(run, idempotency_key=key, input_hash=input_hash)
    return Entry(run.run_id, run.shard, events=[started(run)], new=new)


def append(run, *seqs, **fields):
    """The entry that appends events."""
    return Entry(run.run_id, run.shard, events=[event(run, seq) for seq in seqs], **fields)


def end(run, seq, status=Status.COMPLETED, at=AT + 1, **fields):
    """The entry that ends a run."""
    return append(run, seq, change=RunChange(status=status, ended_at=at), ends=True, **fields)


def message(run, message_id, *, to_run=False, payload=b'{"by":"ann"}', kind=Kind.SIGNAL):
    """A message for a run, by its workflow id or by its run id."""
    return Message(
        workflow=run.workflow,
        workflow_id=run.workflow_id,
        message_id=message_id,
        kind=kind,
        path="approve",
        payload=payload,
        at=AT,
        by="ann",
        run_id=run.run_id if to_run else None,
    )


def post(run, message_id, **fields):
    """A message from outside."""
    return Post(message(run, message_id, **fields))


class Journal:
    """A store and the epoch under which it is written."""

    def __init__(self, store, epoch):
        self.store = store
        self.epoch = epoch

    async def write(self, *batch):
        """Commit a batch; return the verdicts."""
        for entry in batch:
            if isinstance(entry, Entry):
                entry.epoch = self.epoch
        return await self.store.commit(batch)

    async def one(self, entry):
        """Commit a batch of one; return its verdict."""
        (verdict,) = await self.write(entry)
        return verdict

    async def start(self, *args, **options):
        """Start a run and return it."""
        run = new_run(*args, **options)
        await self.write(start(run))
        return run

    async def seqs(self, run):
        """The seqs in a run's journal."""
        return [event.seq for event in await self.store.events(run.run_id)]

    async def prune(self, where, limit=1000):
        """Remove up to so many ended runs; return how many."""
        return await self.store.remove((await self.store.prunable(where, limit)).run_ids)


async def request(store, *requests, workflow="sale"):
    """Put requests (kind, workflow id, JSON) into an embedded journal, as they are copied there."""
    for number, (kind, workflow_id, payload) in enumerate(requests, 1):
        row = (number, new_id(), 1, shard_of(workflow_id), 0, "NEW", kind, workflow, workflow_id, "say", f"k{number}")
        await store._write(
            lambda db, row=(*row, "ann", payload, "{}"): db.execute(
                "INSERT INTO request (number, id, at, shard, tries, state, kind, workflow, workflow_id, name, key, by,"
                f" payload, options) VALUES ({', '.join('?' * 14)})",
                row,
            )
        )


async def marked(journal):
    """Runs of two workflows, marked alike: by their workflow."""
    return {name: (await journal.start(name, attributes={"tier": "gold"})).run_id for name in ("nap", "order")}


async def found_by_mark(journal):
    """By workflow, the runs of it that are found by what `marked` marks them with."""
    found = {}
    for name in ("nap", "order"):
        page = await journal.store.runs(RunFilter(workflow=name, attributes={"tier": "gold"}), 10)
        found[name] = {run.run_id for run in page.items}
    return found
