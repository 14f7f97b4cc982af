"""A dry run: everything but sending. Intents are read from the real inbox, batched, held to the limits and signed; then
the call is logged instead of made, and the intent ends in `…:dryrun` as if it had been acknowledged and confirmed.

Nothing of it is real, so nothing of it may touch what is. All its keys lie under `cancelq:{LANE}:dryrun:`, its workers
stand in a roster of their own, and what it counts per address is counted apart. Its cursor is its own too: it reads the
inbox beside the real workers and takes nothing away from them. It does not listen to order streams and keeps no guard.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import redis.asyncio as aioredis
import structlog

from cancelq.contract import Lane
from cancelq_worker.http import Door, Exchange, Pick
from cancelq_worker.lane_parts import LaneParts
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import LanePlan, NewIntent, NewOutcome, Settlement
from cancelq_worker.roster import ROSTER, workers_of
from cancelq_worker.trips import round_trip
from cancelq_worker.venues.port import SWEEPS, Answer, Reply, Request, Route, Signed, Stage, Target, Venue, Word

log = structlog.get_logger("cancelq.dryrun")

DRY_ROSTER: Final = "cancelq:dryrun:workers"
DRY_EGRESS: Final = "dryrun."
NOT_SENT: Final = "dry run: not sent"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A dry run is wanted. `from_start`: of the whole inbox, instead of what comes from now on."""

    from_start: bool


class DryRunLane(Lane):
    """A lane whose state is the dry run's own. Only the inbox is the real one."""

    __slots__ = ()

    def key(self, name: str) -> str:
        return Lane.key(self, f"dryrun:{name}")

    @property
    def inbox(self) -> str:
        return Lane.key(self, "inbox")

    @property
    def results(self) -> str:
        return Lane.key(self, "dryrun")


async def begin(client: aioredis.Redis, lanes: Sequence[Lane]) -> None:
    """Drops what an earlier dry run left of these lanes, unless another dry-run worker is at it; its stream of events
    is kept. Raises RedisError."""
    if await dry_workers_alive(client):
        return
    for lane in lanes:
        async for key in client.scan_iter(match=DryRunLane(lane.venue, lane.account).key("*"), count=1000):
            await client.unlink(key)
    if not await workers_of(client, ROSTER):
        log.warning("no real worker is alive: what is asked stays in the inboxes, and is carried out when one comes")


async def dry_workers_alive(client: aioredis.Redis) -> list[str]:
    """The dry-run workers with a fresh heartbeat. Raises RedisError."""
    return await workers_of(client, DRY_ROSTER)


def rehearsed(parts: LaneParts, client: aioredis.Redis, *, from_start: bool) -> LaneParts:
    """The parts of a lane, for a dry run of it."""
    lane = DryRunLane(parts.plan.lane.venue, parts.plan.lane.account)
    plan = replace(parts.plan, lane=lane)
    venue = cast("Venue", _Rehearsal(parts.venue, lane))
    door = _ShutDoor()
    return replace(
        parts,
        plan=plan,
        ledger=DryRunLedger(client, plan, from_start=from_start),
        venue=venue,
        judge=replace(parts.judge, venue=venue),
        cancel_door=door,
        look_door=door,
        ws_url=None,
    )


class _ShutDoor(Door):
    """Takes calls as the real one does, and makes none."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", verify=False)

    async def call(self, signed: Signed, *, send_by_ns: int, total_s: float, pick: Pick = Pick.LATEST) -> Exchange:
        now_ns = time.monotonic_ns()
        return Exchange(Answer(200, {}, b""), now_ns, now_ns)


class _Rehearsal:
    """A venue that answers everything well: cancels are acknowledged, looks find the order cancelled, lists are empty.
    All else is the real adapter's."""

    #: Its time is not asked for: this machine's clock signs.
    time_requests: tuple[Request, ...] = ()
    stream = None

    def __init__(self, venue: Venue, lane: Lane) -> None:
        self._venue = venue
        self._lane = str(lane)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    def told_limit(self, _: Answer) -> None:
        return None

    def decode(self, route: Route, targets: Sequence[Target], _: Answer) -> list[Reply]:
        log.info(
            NOT_SENT,
            lane=self._lane,
            endpoint=self._venue.endpoint(route.name),
            batch_size=len(targets),
            orders=[_named(target) for target in targets],
        )
        return [_well(route, target) for target in targets]


def _named(target: Target) -> str:
    return target.order_id or target.client_order_id or f"{target.scope} {target.symbol or '*'}"


def _well(route: Route, target: Target) -> Reply:
    order_id = target.order_id or ""
    if route.stage is Stage.CANCEL:
        return Reply(Word.ACKNOWLEDGED, order_id=order_id, text=NOT_SENT)
    if target.scope in SWEEPS:
        return Reply(Word.LISTED, text=NOT_SENT, notes={"sweep": {"open": 0, "todo": [], "newer": 0, "end": True}})
    return Reply(Word.CANCELLED, order_id=order_id, text=NOT_SENT)


class DryRunLedger(RedisLedger):
    """The ledger of a dry run: every event it writes says that nothing was sent."""

    def __init__(self, client: aioredis.Redis, plan: LanePlan, *, from_start: bool) -> None:
        super().__init__(client, plan)
        self._from_start = from_start
        self._lane = plan.lane

    async def open(self) -> str:
        """As of any lane; one that was not rehearsed yet begins behind the newest entry of the inbox."""
        cursor = await super().open()
        if cursor != "0-0" or self._from_start:
            return cursor
        (newest,) = await round_trip(self._client, [("XREVRANGE", self._lane.inbox, "+", "-", "COUNT", 1)])
        if isinstance(newest, Exception):
            raise newest
        await self._client.set(self._lane.key("cursor"), newest[0][0] if newest else "0-0", nx=True)
        return await self.cursor()

    def _settle(self, s: Settlement) -> tuple[Any, ...]:
        works = [replace(w, event=_marked(w.event)) if w.event else w for w in s.works]
        return super()._settle(replace(s, works=works))

    def _admit_items(
        self, where: tuple[str, str, str], items: Sequence[NewIntent | NewOutcome], entries: Sequence[str]
    ) -> tuple[Any, ...]:
        marked = [item if isinstance(item, NewIntent) else replace(item, event=_marked(item.event)) for item in items]
        return super()._admit_items(where, marked, entries)


def _marked(event: Mapping[str, str]) -> dict[str, str]:
    if event.get("evidence") == "local":
        return {**event, "detail": f"{NOT_SENT}; {event.get('detail', '')}"}
    how = f"{event['batch_size']} in a call of {event['endpoint']}" if "endpoint" in event else "seen in no call"
    return {**event, "evidence": "local", "detail": f"{NOT_SENT}; as if the venue had said so ({how})"}
