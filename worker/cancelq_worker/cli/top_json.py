"""What `status` and `top` write for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cancelq_worker.cli import showing
from cancelq_worker.cli.top_rows import Row, Totals, View
from cancelq_worker.flow import FlowNumbers
from cancelq_worker.snapshot import AddressStatus, LaneStatus


def as_line(view: View) -> str:
    """One refresh as one line of JSON."""
    server, away = view.server, view.away
    return showing.dumps(
        {
            "at_us": server.now_us,
            "away": {"why": away[0], "since_s": round(away[1], 1)} if away else None,
            "server": {
                "name": server.name,
                "version": server.version,
                "memory": server.memory,
                "memory_most": server.memory_most,
                "round_trip_ms": round(server.round_trip_ms, 3),
                "workers": server.workers,
            },
            "rq_suspended": view.suspended,
            "dry_run_workers": list(view.rehearsing),
            "totals": _totals(view.totals),
            "lanes": [_row(row) for row in view.rows],
            "addresses": [address_object(address) for address in view.addresses],
        }
    )


def lane_object(state: LaneStatus, addresses: Sequence[AddressStatus] = ()) -> dict[str, Any]:
    """A lane's snapshot, with those of the limits per address that are its venue's."""
    return {
        "lane": str(state.lane),
        "healthy": healthy(state),
        "served": True,
        "paused": state.paused,
        "queued": state.queued,
        "oldest_age_ms": state.oldest_age_ms,
        "in_flight": state.in_flight,
        "confirming": state.confirming,
        "timed": state.timed,
        "not_admitted": state.not_admitted,
        "not_admitted_more": state.not_admitted_more,
        "inbox_age_ms": state.inbox_age_ms,
        "unattended": state.unattended,
        "inbox_length": state.inbox_length,
        "results_length": state.results_length,
        "holds": [{"scope": scope, "reason": reason, "until": until} for scope, reason, until in state.holds],
        "budget": {name: {"used": used, "limit": limit} for name, (used, limit) in state.budget.items()},
        "refusals": {name: {"count": r.count, "last_age_ms": r.age_ms} for name, r in state.refusals.items()},
        "addresses": [address_object(address) for address in addresses if address.venue == state.lane.venue],
        "workers": state.workers,
    }


def address_object(address: AddressStatus) -> dict[str, Any]:
    """A limit per address."""
    return {
        "egress": address.egress,
        "bucket": address.bucket,
        "used": address.used,
        "limit": address.limit,
        "held_ms": address.held_ms,
        "held_why": address.held_why or None,
    }


def healthy(state: LaneStatus) -> bool:
    """Served by a live worker, with a key the venue takes. A pause is somebody's will, not an illness."""
    return bool(state.workers) and not state.unattended and not state.key_refused


def unserved_object(lane: object) -> dict[str, Any]:
    """A configured lane that no worker has ever served."""
    return {"lane": str(lane), "healthy": False, "served": False}


def broken_object(lane: object, why: str) -> dict[str, Any]:
    """A lane that the server refuses to look at."""
    return {"lane": str(lane), "healthy": False, "broken": why}


def _row(row: Row) -> dict[str, Any]:
    if row.status:
        state = lane_object(row.status)
    else:
        state = broken_object(row.lane, row.broken) if row.broken else unserved_object(row.lane)
    state.pop("addresses", None)  # they stand beside the lanes
    told = [{"level": note.level.name, "what": note.word, "text": note.text} for note in row.notes]
    guard = row.guard.as_object() if row.guard else None
    return {**state, "state": row.word, "guard": guard, "notes": told, "waiting": row.queued, **_flow(row.flow)}


def _totals(totals: Totals) -> dict[str, Any]:
    return {
        "lanes": totals.lanes,
        "in_trouble": totals.troubled,
        "waiting": totals.queued,
        "waiting_more": totals.queued_more,
        "in_flight": totals.in_flight,
        "confirming": totals.confirming,
        **_flow(totals.flow),
    }


def _flow(flow: FlowNumbers) -> dict[str, Any]:
    def span(found: tuple[float, float] | None) -> dict[str, float] | None:
        return {"p50": round(found[0], 3), "p99": round(found[1], 3)} if found else None

    return {
        "per_s": {group: round(rate, 3) for group, rate in flow.per_s.items()},
        "outcomes": dict(flow.statuses),
        "sent_ms": span(flow.sent_ms),
        "settled_ms": span(flow.settled_ms),
        "sampled": flow.sampled,
        "unresolved": list(flow.unresolved[-10:]),
    }
