"""The judges of a run: those that chaos has too, and what only a run on virtual time can tell."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cancelq.contract import Lane, Status
from cancelq_worker.lane_parts import SEND_BY_MS
from cancelq_worker.simulator.simulator import DEMO_UID
from ops.checks import Ask, Bounds, Broken, Case, Told, VenueSaid, judge, key_of
from tests.simulation.fleet import LEASE_MS
from tests.simulation.keyspace import Stream, id_text
from tests.simulation.loop import START_S
from tests.simulation.world import Plan, SimDesk, World

STRIKES = 3
#: A worker may have read an entry that was then lost with the tail, and admits it all the same.
OF_A_LOST_TAIL = ("attempts are on record", "bulk calls for", "duplicate events", "but a cancel named its order")
RESERVE = 1  # permits of a bucket that are kept for urgent intents, of at most a fifth
SETTLE_S = 2 * LEASE_MS / 1000 + 10  # promised: everything is settled that long after the last fault
LOADED_PER_S = 150  # and what a loaded run has waiting then takes its time: a third of what Bitget takes


@dataclass
class Outcome:
    """What a run came to."""

    plan: Plan
    broken: list[Broken]
    faults: Counter[str]
    intents: int
    statuses: Counter[str]
    calls: int
    unclear: int
    virtual_s: float
    steps: int
    settled_s: float
    fingerprint: str
    notes: list[str]
    used: float  # of the limit of the bucket that cancels used most, less the reserve; 0 where it was no backlog

    def __str__(self) -> str:
        lines = [f"seed {self.plan.seed}: {len(self.broken)} broken promises; {self.plan}"]
        return "\n".join([*lines, *dict.fromkeys(str(one)[:600] for one in self.broken[:20])])


def _used(world: World) -> float:
    """How much of what it may, less the urgent reserve, the busiest bucket of cancels took while it had the choice."""
    if not world.plan.backlog:
        return 0.0
    (desk,) = world.desks
    calls = [
        call for call in world.simulator.calls().entries if call["endpoint"].rpartition("/")[2] in desk.place.cancels
    ]
    if len(calls) < 2:
        return 0.0
    span_s = (calls[-1]["steady_us"] - calls[0]["steady_us"]) / 1e6
    shares = [0.0]
    for row in world.simulator.rates():
        if row["bucket"].rpartition("/")[2] in desk.place.cancels and row["limit"] and row["owner"] == DEMO_UID:
            windows = 1 + span_s * 1000 / row["window_ms"]
            shares.append(row["admitted"] / ((row["limit"] - min(RESERVE, row["limit"] // 5)) * windows))
    return max(shares)


def _meant(desk: SimDesk, told: Told) -> dict[str, Ask]:
    """What was meant, by what is left of the inbox: where the first entry of an id was lost with the tail, a repeat
    with other content has become the intent."""
    asks = dict(desk.asks)
    for entries in told.intents.values():
        ask, order = asks.get(key_of(entries[0])), entries[0].fields.get("order_id", "")
        if ask and order in ask.spared:
            asks[key_of(entries[0])] = Ask((order,))
    return asks


def judge_run(world: World, said: Sequence[dict[str, Any]]) -> list[Broken]:
    broken: list[Broken] = []
    world.tolds = {desk.lane: told_of(world, desk.lane) for desk in world.desks}
    for desk in world.desks:
        broken += [one for one in judge(_case(world, desk)) if not _excused(world, one)]
        broken += sent_late(world, world.tolds[desk.lane])
    broken += [*sent_without_store(world), *poisoned(world)]
    broken += [Broken("simulation", f"the store has no {name}") for name in sorted(world.server.store.unknown)]
    for row in said:
        if not _explained(row):
            broken.append(Broken("log", f"{row}"))
    for trouble in world.loop.troubles:
        broken.append(Broken("log", f"{trouble.get('message')}: {trouble.get('exception')!r}"))
    return broken


def sent_late(world: World, told: Told) -> Iterator[Broken]:
    """7: a call that has not left half a second after its permit was asked for is given back."""
    slack_us = SEND_BY_MS * 1000 + world.clocks_us + 50_000
    for event in told.events:
        if event.final and event.sent_us and event.taken_us and event.sent_us - event.taken_us > slack_us:
            yield Broken("7", f"{event.id}: taken at {event.taken_us}, sent {event.sent_us - event.taken_us} us later")


def sent_without_store(world: World) -> Iterator[Broken]:
    """8: what was granted before leaves within its time; after that nothing does while the store cannot be reached."""
    routes = {endpoint for desk in world.desks for endpoint in (*desk.place.cancels, *desk.place.looks)}
    for cut in world.cuts:
        for send in world.fleet.sends:
            if (
                (cut.worker is None or send.process is cut.worker)
                and cut.from_s + SEND_BY_MS / 1000 + 0.05 < send.at_s < cut.to_s
                and send.path.rpartition("/")[2] in routes
            ):
                yield Broken("8", f"{send.process.name} sent {send.path} at {send.at_s:.3f}, cut off from {cut}")


def poisoned(world: World) -> Iterator[Broken]:
    """13: an intent that ends workers ends after three of them, alone."""
    poison, killed = world.fleet.poison, sum(worker.poisoned for worker in world.workers)
    if not poison or world.lost_tail:
        return
    if killed > STRIKES:
        yield Broken("13", f"one intent ended {killed} workers")
    others = sum(world.faults[f"worker {what}"] for what in ("killed", "paused", "paused past its lease"))
    for desk in world.desks:
        for event in world.tolds[desk.lane].events:
            if event.id.startswith("poison-"):
                if event.final and killed >= STRIKES and event.status is not Status.unresolved:
                    yield Broken("13", f"{event.id} ended {killed} workers and is {event.status}")
            elif event.status is Status.unresolved and "workers ended" in (event.detail or "") and not others:
                yield Broken("13", f"{event.id} was harmed: {event.detail}")


def _excused(world: World, one: Broken) -> bool:
    """What a run's faults had to break: what was on record in a lost tail; what the end of a backlog cut off; how old
    orders are, where clocks were set by more than the second that the asked ages leave (nobody can tell of some of
    them, and looking again until the look-ups' time is over takes longer than settling may); how long poison lasts; a
    way that became shorter than the fleet had ever known it."""
    if world.plan.backlog:
        return "has no final event" in one.what or "attempts are on record" in one.what
    if world.lost_tail and any(word in one.what for word in OF_A_LOST_TAIL):
        return True
    if one.promise == "6" and one.what.partition(":")[0] in world.surprised:
        return True
    return (world.clocks_us > 900_000 and _by_age(world, one)) or (one.promise == "11" and "poison-" in one.what)


def _by_age(world: World, one: Broken) -> bool:
    """Whether it follows from taking an order for older or newer than it is."""
    if one.promise == "5":
        spared = (order for desk in world.desks for ask in desk.asks.values() for order in ask.spared)
        return any(f"order {order} was named" in one.what for order in spared)
    if one.promise == "11":
        return ": unresolved " in one.what
    return "its orders are open" in one.what or "was to be left alone" in one.what


def _explained(row: dict[str, Any]) -> bool:
    """Whether faults of the run explain an error that was logged."""
    error = str(row.get("error", ""))
    event = str(row.get("event", ""))
    if event.startswith(("settle refused", "take refused", "admission refused")):
        return any(word in error for word in ("LOADING", "OOM", "maxmemory", "NOSCRIPT"))
    return "exc_info" not in row


def told_of(world: World, lane: Lane) -> Told:
    """The lane's streams as they are now."""
    store = world.server.store

    def rows(stream: str) -> list[tuple[str, list[bytes]]]:
        found = store.get(stream.encode(), Stream)
        return [(id_text(at).decode(), flat) for at, flat in zip(found.ids, found.fields, strict=True)] if found else []

    return Told.read(rows(lane.inbox), rows(lane.results))


def _case(world: World, desk: SimDesk) -> Case:
    venue, simulator = desk.lane.venue, world.simulator
    venue_said = VenueSaid(
        orders=simulator.truth(venue=venue).entries,
        calls=[call for call in simulator.calls().entries if call["venue"] == venue],
        rates=[row for row in simulator.rates() if row["bucket"].startswith(f"{venue}/")],
        bulk=frozenset(desk.place.bulk),
    )
    settle_s = SETTLE_S + (world.waited / LOADED_PER_S if world.plan.load > 1.0 else 0.0)
    bounds = Bounds(settle_s=settle_s, clocks_us=world.clocks_us)
    # Poison goes on after healing, until it has ended its workers.
    healed_us = None if world.plan.backlog else max(world.healed_us, world.fleet.poisoned_us)
    told = world.tolds[desk.lane]
    asks = _meant(desk, told) if world.lost_tail else desk.asks
    return Case(desk.lane, told, asks, desk.acknowledged, venue_said, bounds, healed_us)


def outcome_of(world: World) -> Outcome:
    tolds = list(world.tolds.values())
    calls = world.simulator.calls().entries
    mark = hashlib.blake2b(digest_size=16)
    for desk in world.desks:
        for stream in (desk.lane.inbox, desk.lane.results):
            found = world.server.store.get(stream.encode(), Stream)
            for at, flat in zip(found.ids, found.fields, strict=True) if found else ():
                mark.update(id_text(at) + b"\0".join(flat))
    for call in calls:
        mark.update(f"{call['steady_us']} {call['endpoint']} {call['ids']} {call['code']}".encode())
    unclear = sum(max(1, len(call["ids"])) for call in calls if call["fault"])
    unclear += sum(worker.link.lost for worker in world.workers)
    healed_us = world.healed_us
    last_us = max((e.settled_us or 0 for told in tolds for e in told.events if e.final), default=0)
    virtual_s = world.loop.time() - START_S
    return Outcome(
        world.plan, world.broken, world.faults, sum(len(told.intents) for told in tolds),
        Counter(e.status.value for told in tolds for e in told.events), len(calls), unclear, virtual_s,
        world.loop.ran, (last_us - healed_us) / 1e6, mark.hexdigest(), world.notes, _used(world),
    )  # fmt: skip
