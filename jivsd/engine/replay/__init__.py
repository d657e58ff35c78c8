"""Replay: a run as a pure function of its journal. No trio, no I/O, no clock (DESIGN.md section 4).

Events go in, one a turn; commands to carry out and, at last, an outcome come out. Life and replay are the same
code: only where the events come from differs.
"""

from jivsd.engine.replay.machine import Machine
from jivsd.engine.replay.parts import LOCK, START, TIMEOUT, Block, ForeignYield, Open, Outcome, Phase
from jivsd.engine.replay.saga import UNDO

__all__ = ["LOCK", "START", "TIMEOUT", "UNDO", "Block", "ForeignYield", "Machine", "Open", "Outcome", "Phase"]
