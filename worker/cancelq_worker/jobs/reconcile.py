"""Comes back to `unresolved` intents: has a worker look once more what became of their orders, and cancels nothing.

A job has no key, so it leaves *looks back* in the lane (`lua/reconcile.lua`). Workers carry them as they carry every
look; what the venue states of the order's end becomes the `resolved` event of the old intent, and anything else is not
told at all: the next period asks again. Of a pair or an account the open lists are read once more: it is resolved when
nothing that was meant is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import orjson
from redis import Redis

from cancelq.contract import Lane
from cancelq_worker.jobs import unresolved
from cancelq_worker.jobs.unresolved import Unresolved
from cancelq_worker.scripts import script_source
from cancelq_worker.settings import Account
from cancelq_worker.state import LOOKS_BACK, NONE, State
from cancelq_worker.venues.port import SWEEPS, Plan, Stage, Target, Venue
from cancelq_worker.venues.registry import open_venue

# Looks back that one run leaves in a lane: they share the venue's look-ups with the cancels.
AT_ONCE = 100
SWEEPS_AT_ONCE = 10  # of which each reads all pages of the open lists


@dataclass(frozen=True, slots=True)
class Reconciled:
    """`unresolved`: how many are without a later truth; `asked`: how many of them are asked after now; `waiting`: how
    many still were being asked after."""

    unresolved: int
    asked: int
    waiting: int


def reconcile(redis: Redis, lane: Lane, *, since_ms: int, turn: int) -> Reconciled:
    """Has the orders looked for of what ended as `unresolved` after `since_ms`. `turn` picks whose turn it is where
    there are more than one run may ask after. Raises RedisError."""
    venue = open_venue(lane.venue, Account())
    found = unresolved.find(redis, lane, since_ms=since_ms)
    sweeps = [one for one in found if one.scope in SWEEPS]
    orders = [one for one in found if one.scope not in SWEEPS]
    args: list[Any] = []
    for one in [*_whose_turn(orders, turn, AT_ONCE), *_whose_turn(sweeps, turn, SWEEPS_AT_ONCE)]:
        args += _look_back(redis, lane, venue, one)
    if not args:
        return Reconciled(len(found), 0, 0)
    asked, waiting = _run(redis, lane, args)
    return Reconciled(len(found), asked, waiting)


def _whose_turn(found: list[Unresolved], turn: int, most: int) -> list[Unresolved]:
    first = turn * most % len(found) if len(found) > most else 0
    return (found[first:] + found[:first])[:most]


def _look_back(redis: Redis, lane: Lane, venue: Venue, one: Unresolved) -> list[Any]:
    """The words of one look back, as the script reads them; none if it cannot be made."""
    asked = unresolved.asked(redis, lane, one)
    plan = venue.admit(asked) if asked else None
    if asked is None or not isinstance(plan, Plan) or not (plan.orders or one.scope in SWEEPS):
        return []
    # `known`: a place that does not show the order proves nothing; only an end that the venue states is told. A sweep's
    # lists are counted, and nothing on them is cancelled.
    notes: dict[str, Any] = {**plan.notes, **({"may": 0, "nobulk": 1} if one.scope in SWEEPS else {"known": 1})}
    for name, key in (("order_id", "oid"), ("client_order_id", "cid")):
        if one.event.get(name) and name not in asked:
            notes[key] = one.event[name]
    target = Target(asked, notes)
    state = State(
        stage=Stage.LOOK,
        cancel_class=plan.cancel_class,
        look_class=venue.next_look(target).look_class,
        digest=NONE,
        orders=venue.order_keys(target),
        notes=notes,
    )
    record = {
        **{name: value for name, value in asked.items() if name != "expires_at_ms"},
        "queued_us": one.event["queued_us"],
        LOOKS_BACK: one.id,
    }
    # A blank or a comma would garble the lane's lists; a slash is in no producer's id, so that none can collide.
    head, tail = state.around_place()
    return [f"back/{one.id}", orjson.dumps(record), head, tail, state.queue, len(state.orders), *state.orders]


def _run(redis: Redis, lane: Lane, args: list[Any]) -> tuple[int, int]:
    reply = cast("Any", redis.register_script(script_source("reconcile"))(keys=[lane.key("clock")], args=args))
    return int(reply[0]), int(reply[1])
