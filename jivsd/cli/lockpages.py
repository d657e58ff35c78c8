"""How locks look: the list of their queues, and the trees of who keeps whom waiting."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from jivsd.cli import look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.cli.output import Page
    from jivsd.cluster.circles import Circle
    from jivsd.store.lockbook import LockQueue, Place

NOTHING = "Nobody holds a lock."


def listing(queues: Sequence[LockQueue], circles: Sequence[Circle]) -> Page:
    """The table of `jivsd locks`."""
    if not queues:
        return [NOTHING]
    table = look.table("KEY", "FENCE", "", "FOR", "RUN", "STATUS", "NODE", "WORKFLOW", wraps=("WORKFLOW",))
    for queue in queues:
        for number, place in enumerate(queue.places):
            holds = number == 0
            key, fence = (queue.key, str(queue.fence)) if holds else ("", "")
            state = Text("holds", style="green") if holds else Text(f"waits {number}", style="yellow")
            name = f"{place.workflow}:{place.workflow_id}"
            status = Text(place.status, style=look.STYLES.get(place.status, ""))
            table.add_row(key, fence, state, look.brief(_time(place)), place.run_id, status, place.node, name)
        if (more := queue.waiting + 1 - len(queue.places)) > 0:
            table.add_row("", "", f"{more:,} more", "", "", "", "", "")
    return [table, *_circles(queues, circles)]


def graph(queues: Sequence[LockQueue], circles: Sequence[Circle]) -> Page:
    """Trees: a run, the keys that it holds, those who wait for them, and so forth."""
    if not queues:
        return [NOTHING]
    held: defaultdict[str, list[LockQueue]] = defaultdict(list)
    waits: set[str] = set()
    names: dict[str, Place] = {}
    for queue in queues:
        held[queue.places[0].run_id].append(queue)
        waits |= {place.run_id for place in queue.places[1:]}
        names |= {place.run_id: place for place in queue.places}
    drawn: set[str] = set()

    def draw(tree: Tree, run_id: str) -> None:
        if run_id in drawn:
            if held.get(run_id):
                tree.add(Text("… as above", style="dim"))
            return
        drawn.add(run_id)
        for queue in held.get(run_id, ()):
            branch = tree.add(Text(queue.key, style="bold"))
            for place in queue.places[1:]:
                draw(branch.add(_line(place)), place.run_id)
            if (more := queue.waiting + 1 - len(queue.places)) > 0:
                branch.add(f"{more:,} more")

    page: Page = []
    free = [run_id for run_id in held if run_id not in waits]
    for run_id in (*free, *held):
        if run_id not in drawn:
            tree = Tree(_line(names[run_id]))
            draw(tree, run_id)
            page.append(tree)
    return [*page, *_circles(queues, circles)]


def _line(place: Place) -> Text:
    line = Text.assemble((f"{place.workflow}:{place.workflow_id}", "bold"), f"  {place.run_id}  ")
    line.append(place.status, style=look.STYLES.get(place.status, ""))
    verb = "waits" if place.held_since is None else "holds"
    return line.append(f"  {verb} for {look.brief(_time(place))}", style="dim")


def _time(place: Place) -> int:
    return look.now() - (place.held_since or place.since)


def _circles(queues: Sequence[LockQueue], circles: Sequence[Circle]) -> Page:
    names = {place.run_id: f"{place.workflow}:{place.workflow_id}" for queue in queues for place in queue.places}
    page: Page = []
    for circle in circles:
        said = [f"{names.get(one.run_id, one.run_id)} → {one.key or 'its child'}" for one in circle.links]
        first = names.get(circle.links[0].run_id, circle.links[0].run_id)
        page.append(Text(f"Circle: {' → '.join([*said, first])}", style="bold red"))
    return page
