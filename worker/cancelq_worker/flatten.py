"""The kill switch: empties an account, or a pair of it, and rests on what the results say.

It asks through the inbox and reads the results, so it needs Redis and one worker, and no key. Several may run at once:
each has intents of its own.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio as aioredis

from cancelq.contract import Event, Lane, Refused, Status, read_entry
from cancelq.errors import EventError
from cancelq_worker.operate import UnknownLane, operator_event
from cancelq_worker.settings import Account
from cancelq_worker.snapshot import Snapshots, workers_alive
from cancelq_worker.state import State
from cancelq_worker.trips import command, home, read_entries
from cancelq_worker.venues.port import Unfit
from cancelq_worker.venues.registry import KINDS, open_venue
from cancelq_worker.venues.sweeping import ORDER, cancelled_by_id

SERVED_MS = 22_000  # a lane that is served moves its clock every ten seconds at least
STARTING_POLLS, STARTING_POLL_S = 10, 0.1
BLOCK_MS = 150
PAGE = 500
ROUNDS_MOST = 20
LATER_US = 250_000  # an outcome that came so much later still rests on a first look before the other's last


class NotServed(Exception):
    """No worker serves the lane now: nothing was asked for."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(f"no live worker serves {lane}: nothing would be cancelled, so nothing was queued")
        self.lane = lane


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall be empty: an account, or a `symbol` of it; only client ids that begin with `client_prefix`; with
    `orders_only` TP/SL and stop orders stay."""

    lane: Lane
    symbol: str | None = None
    client_prefix: str | None = None
    orders_only: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of which kinds of order: of each intent of a round, as few as the venue's calls allow."""
        return (ORDER,) if self.orders_only else KINDS[self.lane.venue].flatten

    def intents(self, run: str, nth: int, of_kinds: Iterable[str]) -> list[dict[str, str]]:
        """The inbox entries of one round."""
        asked = {
            # An empty name is asked for as it is, and refused: it must not empty the whole account.
            "scope": "account" if self.symbol is None else "symbol",
            **({} if self.symbol is None else {"symbol": self.symbol}),
            **({} if self.client_prefix is None else {"client_prefix": self.client_prefix}),
            "priority": "urgent",
            "reason": "kill",
        }
        return [{"id": f"{run}-{nth}-{k.replace(',', '-')}", "kinds": k, **asked} for k in of_kinds]

    def fault(self) -> str | None:
        """Why every intent of it would be rejected, by the contract or by the venue's rules, with the field and the
        remedy; None if nothing is known against it. Asks nobody."""
        venue = open_venue(self.lane.venue, Account())
        for fields in self.intents("kill", 1, self.kinds):
            read = read_entry("0-1", [text.encode() for pair in fields.items() for text in pair])
            judged = read if isinstance(read, Refused) else venue.admit(read.fields)
            if isinstance(judged, Refused | Unfit):
                return judged.detail
        return None

    def __str__(self) -> str:
        what = f"{self.lane} {self.symbol}" if self.symbol else str(self.lane)
        prefix = f", client ids beginning with {self.client_prefix}" if self.client_prefix else ""
        return f"{what}{prefix}{', normal orders only' if self.orders_only else ''}"


@dataclass(slots=True)
class Pair:
    """What is known of one pair: orders that are gone after cancels by id, and orders seen open at the last look."""

    cancelled: int = 0
    still_open: int = 0


@dataclass(slots=True)
class Report:
    """What a kill came to, or what is known so far. `still_open`: None until the open orders were read once;
    `bulk_calls`: calls that cancel all there is and do not say how many that was; `empty`: the venue shows nothing
    open."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    still_open: int | None = None
    bulk_calls: int = 0
    rounds: int = 0
    empty: bool = False
    problems: list[str] = field(default_factory=list)
    took_ms: int = 0

    @property
    def cancelled(self) -> int:
        return sum(pair.cancelled for pair in self.pairs.values())


class Flattening:
    """One run of the kill switch. `report` is true at any moment, also after an error. The client is one that
    `trips.connect` made."""

    def __init__(self, redis: aioredis.Redis, wish: Wish, actor: str, act: str = "kill") -> None:
        self._redis = redis
        self._wish = wish
        self._actor = actor
        self._act = act
        self._run = f"{act}-{secrets.token_hex(5)}"
        self._asked: dict[str, str] = {}  # of this round: intent → kinds
        self._ended: dict[str, Event] = {}
        self._named: dict[str, Mapping[str, int]] = {}  # by intent: cancels by id, pair by pair
        self._open: dict[str, Mapping[str, int] | None] = {}  # of this round, by intent: seen open
        self.report = Report()

    async def run(
        self,
        tell: Callable[[Report], None] = lambda _: None,
        *,
        within_s: float = 120.0,
        stop: asyncio.Event | None = None,
    ) -> Report:
        """Asks, follows, and asks again for what was placed meanwhile, until nothing is open, or `stop` is set. `tell`
        is called several times a second. Raises UnknownLane, NotServed, RedisError."""
        await self._require_served()
        begun_s = time.monotonic()
        after = await self._last_result()
        kinds = self._wish.kinds
        while kinds and self.report.rounds < ROUNDS_MOST:
            pending = await self._ask(kinds)
            while pending:
                left_s = within_s - (time.monotonic() - begun_s)
                if left_s <= 0:
                    self.report.problems.append(f"given up after {within_s:.0f} s; the workers go on")
                    return self.report
                if stop and stop.is_set():
                    return self.report
                after = await self._follow(after, pending)
                await self._look_at(pending)
                self.report.took_ms = int((time.monotonic() - begun_s) * 1000)
                tell(self.report)
            kinds = self._next_kinds()
        return self.report

    async def _require_served(self) -> None:
        """Some worker lives, and the lane's clock moves. A worker that is just starting is given a moment."""
        lane = self._wish.lane
        for nth in range(STARTING_POLLS):
            # Without counting what waits in the inbox, which may be long.
            found = await Snapshots(self._redis, count_most=0).lanes([lane], await workers_alive(self._redis))
            if lane not in found:
                raise UnknownLane(lane)
            seen = found[lane]
            if seen.untouched_ms is not None and seen.untouched_ms <= SERVED_MS and seen.workers:
                break
            if nth == STARTING_POLLS - 1:
                raise NotServed(lane)
            await asyncio.sleep(STARTING_POLL_S)
        for scope, reason, detail in seen.holds:
            if scope == "*" and reason != "paused":
                self.report.problems.append(f"the lane is closed: {reason}: {detail}")

    async def _last_result(self) -> str:
        newest = await command(self._redis, "XREVRANGE", self._wish.lane.results, "+", "-", "COUNT", 1)
        return str(newest[0][0].decode()) if newest else "0-0"

    async def _ask(self, kinds: Iterable[str]) -> set[str]:
        """Queues a round's intents, the first together with the operator's event."""
        self.report.rounds += 1
        intents = self._wish.intents(self._run, self.report.rounds, kinds)
        event: dict[Any, Any] = {}
        if self.report.rounds == 1:
            now = await home(self._redis, self._wish.lane.inbox).time()
            detail = f"everything open is cancelled: {self._wish}"
            event = operator_event(self._wish.lane, self._act, self._actor, detail, now)
        async with self._redis.pipeline(transaction=True) as pipe:
            for fields in intents:
                pipe.xadd(self._wish.lane.inbox, cast("dict[Any, Any]", fields))
            if event:
                pipe.xadd(self._wish.lane.results, event)
            await pipe.execute()
        self._asked = {fields["id"]: fields["kinds"] for fields in intents}
        self._open = dict.fromkeys(self._asked)
        return set(self._asked)

    async def _follow(self, after: str, pending: set[str]) -> str:
        """Reads on in the results; what ended is pending no more."""
        stream = self._wish.lane.results
        reply = await command(self._redis, "XREAD", "COUNT", PAGE, "BLOCK", BLOCK_MS, "STREAMS", stream, after)
        for entry_id, flat in read_entries(reply).get(stream, []):
            after, fields = entry_id, dict(zip(flat[::2], flat[1::2], strict=True))
            if fields.get(b"id", b"").decode(errors="replace") in pending:
                self._heard(after, fields, pending)
        return after

    def _heard(self, entry_id: str, fields: Mapping[bytes, bytes], pending: set[str]) -> None:
        try:
            event = Event.read(entry_id, fields)
        except EventError as error:
            self.report.problems.append(str(error))
            return
        if event.final:
            pending.discard(event.id)
            self._ended[event.id] = event
            named, still = read_pairs(event.extras.get("pairs", ""))
            self._learn(event.id, named, {} if event.status is Status.cancelled else still)

    async def _look_at(self, pending: set[str]) -> None:
        """How far the sweeps are, by the notes that they keep."""
        ids = sorted(pending)
        if not ids:
            return
        for id_, line in zip(ids, await cast("Any", self._redis.hmget(self._wish.lane.key("state"), ids)), strict=True):
            notes = State.parse(line).notes if line else {}
            # What the last whole pass over the lists saw, or what this one has seen so far.
            still = notes.get("still", notes.get("sweep", {}).get("pairs"))
            if still is not None:
                self._learn(id_, cancelled_by_id(notes, still), still)

    def _learn(self, id_: str, named: Mapping[str, int], still: Mapping[str, int]) -> None:
        self._named[id_], self._open[id_] = named, still
        pairs: dict[str, Pair] = {}
        for counts in self._named.values():
            for name, count in counts.items():
                pairs.setdefault(name, Pair()).cancelled += count
        for seen in self._open.values():
            for name, count in (seen or {}).items():
                pairs.setdefault(name, Pair()).still_open += count
        self.report.pairs = dict(sorted(pairs.items()))
        if all(seen is not None for seen in self._open.values()):
            self.report.still_open = sum(pair.still_open for pair in pairs.values())

    def _next_kinds(self) -> tuple[str, ...]:
        """What a round came to; the kinds that another is to ask for, none if that is not worth it."""
        ended = [event for id_, event in self._ended.items() if id_ in self._open]
        self.report.bulk_calls += sum(1 for e in ended if e.attempt and not e.extras.get("pairs"))
        failed = [event for event in ended if event.status is not Status.cancelled]
        newer = sum(int(event.extras.get("newer_orders", 0)) for event in ended)
        known = [event.open_orders for event in failed if event.open_orders is not None]
        self.report.still_open = newer + sum(known) if len(known) == len(failed) else None
        if not failed and not newer:
            if not may_have_fired(self._asked, self._ended):
                self.report.empty = True
                return ()
            self.report.problems.append("an order with a trigger may have fired meanwhile: normal orders once more")
            return (ORDER,)
        for event in failed:
            self.report.problems.append(f"{event.id}: {event.status.value}: {event.detail}")
        if newer:
            self.report.problems.append(f"{newer} orders were placed meanwhile: once more")
        return self._wish.kinds if all(event.status is Status.unresolved for event in failed) else ()


def may_have_fired(asked: Mapping[str, str], ended: Mapping[str, Event]) -> bool:
    """Whether after a round (the kinds that each intent asked for, and how it ended) a normal order may stand where one
    with a trigger was: fired after the normal orders were read last, and before the others were. It cannot if there was
    none with a trigger at the first look for them, and if that was before the normal orders were read last: each kind's
    last look is a second after its first."""
    normal: list[Event] = []
    triggers: list[Event] = []
    for id_, kinds in asked.items():
        (normal if ORDER in kinds.split(",") else triggers).append(ended[id_])
    if any(event.attempt or event.extras.get("pairs") for event in triggers):
        return True
    read_us = min(event.settled_us or 0 for event in normal)
    return any((event.settled_us or 0) > read_us + LATER_US for event in triggers)


def read_pairs(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """The field `pairs` of a sweep's event: cancels by id, and orders still open, pair by pair."""
    named: dict[str, int] = {}
    still: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, counts = part.partition("=")
        cancelled, _, left = counts.partition("/")
        if cancelled.isdigit() and left.isdigit():
            named[name], still[name] = int(cancelled), int(left)
    return named, still
