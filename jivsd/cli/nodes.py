"""Nodes: who has which shards."""

from typing import TYPE_CHECKING

from jivsd.cli.command import group, remote
from jivsd.cli.output import Answer

if TYPE_CHECKING:
    from jivsd.cli.output import Page
    from jivsd.client import Client
    from jivsd.store.sharing import NodeState

PANEL = "The daemon"

commands = group("")


@remote(commands, "nodes", "jivsd nodes", "jivsd nodes --json | jq '.items[] | {node, shards}'", panel=PANEL)
async def nodes(client: "Client") -> Answer:
    """Show the nodes that share the database, which shards each has, since when, and under which epochs."""
    from jivsd.admin.nodewire import NodePage, NodeView

    found = await client.nodes()
    return Answer(NodePage([NodeView.of(one) for one in found]), lambda: page(found))


def page(found: "list[NodeState]") -> "Page":
    """A row for each node."""
    from jivsd.cli import look

    columns = ("NODE", "SHARDS", "WHICH", "EPOCHS", "LAST CAME", "HELD BY", "JOINED", "VERSION")
    table = look.table(*columns, wraps=("WHICH",), numbers=("SHARDS",))
    for one in found:
        epochs = [epoch for _, epoch, _ in one.owned]
        came = look.ago(max(since for _, _, since in one.owned)) if one.owned else "-"
        table.add_row(
            *(one.node, str(len(one.owned)), spans([shard for shard, _, _ in one.owned]) or "-"),
            *(spans(sorted(set(epochs))) or "-", came, _state(one)),
            *((look.ago(one.member.joined_at), one.member.version) if one.member is not None else ("-", "-")),
        )
    return [table]


def _state(one: "NodeState") -> str:
    member = one.member
    if member is None:
        return "gone"
    if member.left < 0:
        return f"silent for {-member.left:.0f} s"
    return "leaving" if member.leaving else member.by or "joining"


def spans(numbers: list[int]) -> str:
    """Numbers in order, with the ends of each run of neighbours: `0-3, 7`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ", ".join("-".join(map(str, one)) for one in found)
