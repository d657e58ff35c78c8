"""Migrations: a whole database moved into another, resumable at every chunk.

    jivsd start migration --wait --input '{
        "source": {"system": "sqlite", "url": "sqlite:////data/old.sqlite"},
        "target": {"system": "sqlite", "url": "sqlite:////data/new.sqlite"}}'
    jivsd start migration --wait --input '{"source": "crm", "target": "new"}'     # [connections.crm], [connections.new]

`workflow` says what happens in which order, `steps` what each step does, `systems` what a database must be able to
do to take part; `request` is the input, `model` what crosses the journal.
"""

from .workflow import Migration

__all__ = ["Migration"]
