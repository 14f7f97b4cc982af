"""Sends `unresolved` intents again, as new intents that name the old one.

The new id follows from the old one, so a second redrive of the same intent asks for nothing; and what was redriven or
`resolved` since is left alone. An intent that was meant for a moment is sent without its times: who redrives means now.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import cast

from redis import Redis

from cancelq.contract import Lane, Refused, read_entry
from cancelq_worker.jobs import unresolved
from cancelq_worker.jobs.unresolved import Unresolved
from cancelq_worker.operate import UnknownLane, operator_event
from cancelq_worker.venues.port import SWEEPS

AT_ONCE = 500
_NOT_AGAIN = ("not_before_ms", "expires_at_ms", "origin")


@dataclass(slots=True)
class Redrive:
    """What is to be sent again, by old id, and what is left alone, with the reason."""

    lane: Lane
    again: dict[str, dict[str, str]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def plan(redis: Redis, lane: Lane, *, since_ms: int = 0, ids: Collection[str] = ()) -> Redrive:
    """What a redrive would send. Changes nothing. Raises UnknownLane, RedisError."""
    if not redis.exists(lane.inbox):
        raise UnknownLane(lane)
    out = Redrive(lane)
    found = unresolved.find(redis, lane, since_ms=since_ms, ids=ids)
    for one in found:
        fields = unresolved.asked(redis, lane, one)
        if fields is None:
            out.left[one.id] = "its inbox entry is gone, so nobody knows all that was asked; ask anew"
        elif redis.hexists(lane.key("state"), redriven_id(lane, one.id)):
            out.left[one.id] = "it was sent again already, and that is under way"
        else:
            _add(out, one, fields)
    out.left |= dict.fromkeys(set(ids) - {one.id for one in found}, "no unresolved intent, or dealt with since")
    return out


def send(redis: Redis, wanted: Redrive, actor: str) -> None:
    """Sends it, with the operator's event in the same transaction. Raises RedisError."""
    entries = list(wanted.again.values())
    for at in range(0, len(entries), AT_ONCE):
        _send(redis, wanted.lane, entries[at : at + AT_ONCE], actor)


def redriven_id(lane: Lane, id_: str) -> str:
    """The id under which an intent is sent again."""
    return f"redrive-{blake2b(f'{lane} {id_}'.encode(), digest_size=12).hexdigest()}"


def _send(redis: Redis, lane: Lane, entries: Sequence[dict[str, str]], actor: str) -> None:
    now = redis.time()
    some = ", ".join(entry["origin"] for entry in entries[:3]) + (", …" if len(entries) > 3 else "")
    with redis.pipeline(transaction=True) as pipe:
        for entry in entries:
            pipe.xadd(lane.inbox, cast("dict[str | bytes, str | bytes]", entry), nomkstream=True)  # type: ignore[arg-type]
        pipe.xadd(lane.results, operator_event(lane, "redrive", actor, f"{len(entries)} sent again: {some}", now))
        pipe.execute()


def _add(out: Redrive, one: Unresolved, asked: dict[str, str]) -> None:
    fields = {name: value for name, value in asked.items() if name not in _NOT_AGAIN}
    if one.scope in SWEEPS:
        # What was placed after the first intent was never meant by it.
        bound_ms = min(one.queued_ms, int(fields.get("older_than_ms", one.queued_ms)))
        fields["older_than_ms"] = str(bound_ms)
    elif order_id := one.event.get("order_id"):
        fields.setdefault("order_id", order_id)  # learnt from the venue, which forgets client ids sooner
    entry = {"id": redriven_id(out.lane, one.id), **fields, "origin": one.id}
    read = read_entry("0-1", [text.encode() for pair in entry.items() for text in pair])
    if isinstance(read, Refused):
        out.left[one.id] = f"it cannot be sent again: {read.detail}"
    else:
        out.again[one.id] = entry
