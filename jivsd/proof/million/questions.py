"""What is asked: what each page of the dashboard asks, and every list with all that it can be filtered by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from jivsd.admin.dashboard import assets
from jivsd.admin.wire import API
from jivsd.proof.million.asking import Question
from jivsd.proof.past import CUSTOMERS, REGIONS, WORKFLOWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jivsd.proof.million.asking import Asker

FAR: Final = timedelta(days=3650)


class Facts:
    """What is in the database that can be asked for: found by asking."""

    def __init__(self, asker: Asker, span: timedelta) -> None:
        self.now = datetime.now(UTC)
        self.span = span
        self.middle = self.now - span / 2
        half = {"created_before": self.at(-span / 2)}
        some = self._runs(asker, limit=500, **half)
        self.deep: str = some["next"]
        """A cursor in the middle."""
        runs = some["items"]
        self.ended = next(run for run in runs if run["status"] == "COMPLETED")
        self.failed = next(run for run in runs if run["status"] == "FAILED")
        self.child = next(run for run in runs if run.get("parent"))
        self.correlated = next(run for run in runs if run.get("correlation_id"))
        self.waiting = self._runs(asker, workflow="waiting", limit=1)["items"][0]
        self.stuck = self._runs(asker, workflow="stuck", limit=1)["items"][0]
        self.incident = asker.json(f"{API}/incidents?limit=1")["items"][0]
        self.lock = asker.json(f"{API}/locks?limit=1")["items"][0]["key"]
        self.published = asker.json(f"{API}/outbox?limit=1")["items"][0]["number"]

    def at(self, ago: timedelta) -> str:
        """A time before (or after) now, as text."""
        return (self.now + ago).isoformat()

    @staticmethod
    def _runs(asker: Asker, **where: Any) -> Any:
        return asker.json(f"{API}/runs?{urlencode(where)}")


def pages(facts: Facts) -> Iterator[Question]:
    """What the pages of the dashboard ask, when they are opened and every two seconds."""
    asked: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "overview": [
            ("/status", {}), ("/incidents/groups", {"limit": 8}), ("/nodes", {}), ("/statistics", {"since": "1h"}),
        ],
        "runs": [("/workflows", {}), ("/runs", {"limit": 50})],
        "run, ended": _run(facts.ended["run_id"]),
        "run, waiting": [*_run(facts.waiting["run_id"]), (f"/runs/{facts.waiting['run_id']}/why", {})],
        "run, held": [*_run(facts.stuck["run_id"]), (f"/runs/{facts.stuck['run_id']}/why", {})],
        "incidents": [
            ("/incidents/groups", {"state": "OPEN", "limit": 100}), ("/incidents", {"state": "OPEN", "limit": 50}),
        ],
        "incidents, resolved": [
            ("/incidents/groups", {"state": "RESOLVED", "limit": 100}),
            ("/incidents", {"state": "RESOLVED", "limit": 50}),
        ],
        "incidents, all": [
            ("/incidents/groups", {"state": "ALL", "limit": 100}), ("/incidents", {"state": "ALL", "limit": 50}),
        ],
        "incident": [(f"/incidents/{facts.incident['incident_id']}", {})],
        "migrations": [("/runs", {"workflow": "migration", "limit": 20})],
        "locks": [("/locks", {"limit": 50})],
        "nodes": [("/nodes", {})],
        "plugins": [("/plugins", {}), ("/workflows", {})],
    }  # fmt: skip
    for path in assets():
        if path != "/docs":
            yield Question(path, path, page="what all pages are made of")
    for page, requests in asked.items():
        for path, values in requests:
            yield Question(_named(path, values), _path(path, values), page=page)
    yield Question("/docs", "/docs", page="docs")
    yield Question("/openapi.json", "/openapi.json", page="docs")


def _run(run_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("/workflows", {}),
        (f"/runs/{run_id}", {}),
        ("/runs", {"parent": run_id, "limit": 20}),
        ("/incidents", {"run": run_id, "limit": 20}),
        (f"/runs/{run_id}/timeline", {"after": 0, "limit": 500}),
    ]


def lists(facts: Facts) -> Iterator[Question]:
    """Every list, by everything that it can be filtered by."""
    for what, where in (_alone(facts) | _together(facts) | _paged(facts)).items():
        yield Question(f"runs {what}", _path("/runs", {"limit": 50, **where}))
    for since in ("1h", "24h", "168h", facts.at(-FAR)):
        name = "ever" if since == facts.at(-FAR) else since
        yield Question(f"statistics since {name}", _path("/statistics", {"since": since}))
        one = f"/workflows/{WORKFLOWS[0]}/statistics"
        yield Question(f"statistics of a workflow since {name}", _path(one, {"since": since}))
    others: dict[str, tuple[str, dict[str, Any]]] = {
        "a run": (f"/runs/{facts.failed['run_id']}", {}),
        "a run by workflow id": (f"/runs/{facts.failed['workflow']}:{facts.failed['workflow_id']}", {}),
        "the newest run of a workflow": (f"/runs/{WORKFLOWS[0]}:@newest", {}),
        "result of a run": (f"/runs/{facts.ended['run_id']}/result", {}),
        "code of a run": (f"/runs/{facts.ended['run_id']}/code", {}),
        "timeline of a run": (f"/runs/{facts.failed['run_id']}/timeline", {}),
        "why a run waits": (f"/runs/{facts.waiting['run_id']}/why", {}),
        "incidents of a group": ("/incidents", {"state": "ALL", "fingerprint": facts.incident["fingerprint"]}),
        "incidents of a run": ("/incidents", {"state": "ALL", "run": facts.incident["run_id"]}),
        "a lock": ("/locks", {"key": facts.lock}),
        "outbox": ("/outbox", {"limit": 500}),
        "outbox by topic": ("/outbox", {"topic": f"{WORKFLOWS[0]}.ended"}),
        "outbox by a topic that is not there": ("/outbox", {"topic": "nobody's"}),
        "feed": ("/events", {"after": "oldest", "limit": 100}),
    }
    for what, (path, values) in others.items():
        yield Question(what, _path(path, values))
    for path in ("/metrics", "/health", "/health/live"):
        yield Question(path, path)
    for what, where in {"of a status": {"status": ["FAILED"]}, "by attribute": _region, "all open": {}}.items():
        act = {"action": "retry" if where else "pause", "filter": where, "dry_run": True, "limit": 100}
        yield Question(f"dry run of an action, {what}", f"{API}/runs/actions", act)


_region: Final[dict[str, Any]] = {"attributes": {"region": REGIONS[0]}}


def _alone(facts: Facts) -> dict[str, dict[str, Any]]:
    half, later = facts.at(-facts.span / 2), facts.at(-facts.span / 2 + timedelta(hours=1))
    return {
        "all": {},
        "by a page of 500": {"limit": 500},
        "by workflow": {"workflow": WORKFLOWS[2]},
        "by a workflow that is not there": {"workflow": "nobody's"},
        "by a frequent status": {"status": "COMPLETED"},
        "by status": {"status": "FAILED"},
        "by a rare status": {"status": "TIMED_OUT"},
        "by a status that no run has": {"status": "CONTINUED"},
        "by statuses": {"status": ["FAILED", "COMPENSATED"]},
        "open": {"open": "true"},
        "paused": {"paused": "true"},
        "not paused": {"paused": "false"},
        "by id": {"id": facts.failed["workflow_id"]},
        "by an id that is not there": {"id": "nobody's"},
        "by parent": {"parent": facts.child["parent"]},
        "by correlation id": {"correlation_id": facts.correlated["correlation_id"]},
        "created before": {"created_before": half},
        "created after": {"created_after": half},
        "created between": {"created_after": half, "created_before": later},
        "ended before": {"ended_before": half},
        "ended after": {"ended_after": half},
        "ended between": {"ended_after": half, "ended_before": later},
        "by a frequent attribute": {"attribute": f"region={REGIONS[0]}"},
        "by a rare attribute": {"attribute": "customer=c5"},
        "by an attribute that is not there": {"attribute": "colour=red"},
    }


def _together(facts: Facts) -> dict[str, dict[str, Any]]:
    half, later = facts.at(-facts.span / 2), facts.at(-facts.span / 2 + timedelta(hours=1))
    region, workflow = f"region={REGIONS[0]}", WORKFLOWS[1]
    return {
        "by workflow and status": {"workflow": workflow, "status": "FAILED"},
        "by workflow, open": {"workflow": "waiting", "open": "true"},
        "by workflow and statuses, ended before": {
            "workflow": workflow, "status": ["FAILED", "COMPENSATED"], "ended_before": half,
        },
        "by workflow, created and ended between": {
            "workflow": workflow, "created_after": half, "created_before": later, "ended_before": later,
        },
        "by status, ended long after it began": {"status": "COMPLETED", "created_before": half, "ended_after": later},
        "by parent and status": {"parent": facts.child["parent"], "status": "COMPLETED"},
        "by id and status": {"id": facts.failed["workflow_id"], "status": "FAILED"},
        "by correlation id and workflow": {
            "correlation_id": facts.correlated["correlation_id"], "workflow": facts.correlated["workflow"],
        },
        "by two attributes": {"attribute": [region, f"customer=c{CUSTOMERS // 2}"]},
        "by two attributes that no run has both of": {"attribute": [region, "customer=c5"]},
        "by attribute and a frequent status": {"attribute": region, "status": "COMPLETED"},
        "by attribute and status": {"attribute": region, "status": "FAILED"},
        "by attribute and a rare status": {"attribute": region, "status": "TIMED_OUT"},
        "by attribute, open": {"attribute": region, "open": "true"},
        "by attribute and workflow, ended before": {"attribute": region, "workflow": workflow, "ended_before": half},
        "by attribute and workflow, ended between": {
            "attribute": region, "workflow": workflow, "ended_after": half, "ended_before": later,
        },
        "by attribute, created between": {"attribute": region, "created_after": half, "created_before": later},
        "by attribute and a workflow without it": {"attribute": region, "workflow": "waiting"},
        "by workflow and a time before all": {"workflow": workflow, "created_before": facts.at(-FAR)},
        "paused, by workflow": {"paused": "true", "workflow": "waiting"},
        "not paused, open": {"paused": "false", "open": "true"},
        "not paused, by attribute": {"paused": "false", "attribute": region},
    }  # fmt: skip


def _paged(facts: Facts) -> dict[str, dict[str, Any]]:
    """Deep pages, 500,000 runs from the newest one."""
    deep = {"cursor": facts.deep}
    return {
        "all, deep": deep,
        "by workflow, deep": {**deep, "workflow": WORKFLOWS[2]},
        "by statuses, deep": {**deep, "status": ["FAILED", "COMPENSATED"]},
        "by a rare status, deep": {**deep, "status": "TIMED_OUT"},
        "by attribute, deep": {**deep, "attribute": f"region={REGIONS[0]}"},
        "not paused, deep": {**deep, "paused": "false"},
        "ended before, deep": {**deep, "ended_before": facts.at(timedelta())},
    }


def _path(path: str, values: dict[str, Any]) -> str:
    given = urlencode(values, doseq=True)
    return f"{API}{path}{'?' if given else ''}{given}"


def _named(path: str, values: dict[str, Any]) -> str:
    return f"{path} {' '.join(map(str, values.values()))}".strip()
