"""The page that Prometheus scrapes: this node's metrics, or those of all workers of this host."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import httpx
import trio
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from jivsd import logs
from jivsd.admin.exchange import Response, asked, parameters_of
from jivsd.admin.http import operation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jivsd.admin.http import Route
    from jivsd.engine.engine import Engine

METRICS: Final = "/metrics"
SIBLING_SECONDS: Final = 1.0
"""How long a sibling may take to answer."""
ALONE: Final = "alone"
"""The query parameter with which a worker asks another for its own metrics."""

_SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (.*)", re.ASCII)
_OWN_NODE: Final = re.compile(r'((?:[^",]|"(?:[^"\\]|\\.)*")*?)\bnode=(?=")')

log = logs.get("jivsd.admin")


class MetricsRoutes:
    """Answers /metrics.

    Prometheus scrapes one address of a host, and any worker may be the one that answers: it asks its siblings at their
    own sockets and tells the whole, each sample with the label `node`. Who does not answer in time is left out; then
    its `jivsd_worker_up` is 0 and it is counted.
    """

    def __init__(self, engine: Engine, siblings: Mapping[str, Path]) -> None:
        self._engine = engine
        self._siblings = siblings

    def routes(self) -> list[Route]:
        return [("GET", METRICS, self.metrics), ("GET", "/actuator/prometheus", self.metrics)]

    @operation(answers={200: None})
    async def metrics(self) -> Response:
        """What Prometheus scrapes: of this node, or of all workers of this host."""
        if not self._siblings or ALONE in parameters_of(asked().query_string):
            return _page(await self._engine.scrape())
        pages = {self._engine.node: ""}
        async with trio.open_nursery() as nursery:
            for node in self._siblings:
                nursery.start_soon(self._ask, node, pages)
        pages[self._engine.node] = (await self._engine.scrape()).decode()  # last: it counts who did not answer
        up = {node: node in pages for node in (self._engine.node, *self._siblings)}
        return _page(merged(pages, up).encode())

    async def _ask(self, node: str, pages: dict[str, str]) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(self._siblings[node]), verify=False)
        with trio.move_on_after(SIBLING_SECONDS):
            try:
                async with httpx.AsyncClient(transport=transport, base_url="http://jivsd") as client:
                    answer = await client.get(METRICS, params={ALONE: ""}, timeout=SIBLING_SECONDS)
                if answer.status_code == 200:
                    pages[node] = answer.text
            except httpx.HTTPError as error:
                log.debug("a worker does not tell its metrics", worker=node, why=str(error))
        if node not in pages:
            self._engine.metrics.workers_missed.labels(node).inc()


def merged(pages: Mapping[str, str], up: Mapping[str, bool]) -> str:
    """One page of several nodes' pages in Prometheus's text format; the samples of a family stand together.

    Args:
        pages: by node, what each has rendered. A label `node` of its own is called `exported_node`.
        up: of whom there is a page.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for node, page in pages.items():
        family = ""
        for line in page.splitlines():
            if line.startswith("# "):
                kind, family = line.split(" ", 3)[1:3]
                head = heads.setdefault(family, [])
                if not any(other.startswith(f"# {kind} ") for other in head):
                    head.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, node))
    lines = [line for family, head in heads.items() for line in (*head, *samples.get(family, ()))]
    lines += ["# HELP jivsd_worker_up 1 if the worker has told its metrics in time, else 0"]
    lines += ["# TYPE jivsd_worker_up gauge"]
    lines += [f'jivsd_worker_up{{node="{node}"}} {int(there)}' for node, there in up.items()]
    return "\n".join(lines) + "\n"


def _labelled(line: str, node: str) -> str:
    sample = _SAMPLE.fullmatch(line)
    if sample is None:
        return line
    name, labels, value = sample.groups()
    labels = _OWN_NODE.sub(r"\1exported_node=", labels or "")
    return f'{name}{{node="{node}"{"," if labels else ""}{labels}}} {value}'


def _page(text: bytes) -> Response:
    return Response(text, content_type=CONTENT_TYPE_LATEST)
