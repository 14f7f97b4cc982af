"""Three venues at once: every scope, asynchronous cancels, races and faults, each outcome compared with the truth; and
what happens to one venue does not touch the others."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from cancelq.contract import Event, Lane, Status
from tests.integration.floor import Floor, floor, spelled

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(180)]

LANES = ("bitget:main", "bybit:main", "bingx:main")
PAIRS = ("BTC-USDT", "ETH-USDT", "SOL-USDT")
FAULTS = (
    "execute_and_drop", "drop", "reset", "half_body", "http_500_executed", "http_500", "html_200", "unknown_code",
    "missing_items", "wrong_ids", "repeat_items", "slow_ms", "http_429",
)  # fmt: skip
CANCELS = "cancel-order batch-cancel-order cancel-plan-order cancel cancel-batch cancelOrders"


@dataclass(frozen=True, slots=True)
class Asked:
    """One cancel of one order: `known` is False for an id that never existed."""

    lane: Lane
    order_id: str
    entry: dict[str, str]
    known: bool = True


def ask(desk: Floor, lane: Lane, rng: random.Random, nth: int) -> Asked:
    """A cancel of a new order of some kind, in some state, by one of its ids."""
    symbol = spelled(lane.venue, rng.choice(PAIRS))
    scope = rng.choices(("order", "tpsl", "stop"), (8, 1, 1))[0]
    state = rng.choices(("live", "partially_filled", "cancelled", "filled", "gone"), (12, 2, 1, 1, 1))[0]
    if scope != "order" and state in ("partially_filled", "filled"):
        state = "triggered"
    entry = {"scope": scope, "symbol": symbol, "priority": rng.choices(("normal", "urgent"), (9, 1))[0]}
    if state == "gone" and nth % 5 == 0:
        unknown = str(1_400_000_000_000_000_000 + nth)
        return Asked(lane, unknown, {**entry, "order_id": unknown}, known=False)
    state = "live" if state == "gone" else state
    client_id = f"c{nth}" if scope == "order" else ""
    order_id = desk.order(lane, scope, state, symbol=symbol, client_id=client_id)
    by_client = scope == "order" and rng.random() < 0.3
    named = {"client_order_id": client_id} if by_client else {"order_id": order_id}
    return Asked(lane, order_id, {**entry, **named})


def wrong(desk: Floor, asked: Asked, event: Event) -> str | None:
    """What is wrong with an outcome, None if it is the truth."""
    if not asked.known:
        return None if event.status is Status.not_found else f"unknown order told as {event.status}: {event.detail}"
    truth = desk.truth(asked.lane, asked.order_id)
    told = "triggered" if truth["state"] == "triggered" else truth["state"]
    if event.status.value != told:
        return f"{asked.lane} {asked.entry}: told {event.status}, the venue did {truth['state']}: {event.detail}"
    if event.final and event.sent_us and event.settled_us and event.settled_us < event.sent_us:
        return f"{asked.lane} {asked.entry}: settled before it was sent"
    return None


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("streams", [False, True], ids=["looks", "streams"])
async def test_every_outcome_is_the_truth(redis_url: str, seed: int, streams: bool) -> None:
    rng = random.Random(seed)
    mood = {
        "cancel_delay_ms": 150 * (seed % 2),
        "race_fill": 0.1,
        "race_partial": 0.1,
        "open_lag_ms": 200,
        "history_lag_ms": 200,
    }
    # The venue misbehaves often enough that five attempts of one order can all be hit: then `unresolved` is the truth.
    env = {"CANCELQ_LOOKUP_BUDGET_MS": "3000", "CANCELQ_MAX_ATTEMPTS": "12"}
    async with floor(redis_url, *LANES, workers=2, streams=streams, env=env) as desk:
        desk.simulator.configure({**mood, "stream_loss": 0.2})
        asked: dict[Lane, list[Asked]] = {}
        for lane in desk.lanes:
            many = {"bitget": 120, "bybit": 90, "bingx": 60}[lane.venue]
            asked[lane] = [ask(desk, lane, rng, n) for n in range(many)]
            for fault in FAULTS:
                desk.fault(lane, fault, endpoint=CANCELS, probability=0.15, count=4)
        results = await asyncio.gather(*(carry(desk, lane, asked[lane]) for lane in desk.lanes))
        complaints = [line for lines in results for line in lines]
        assert not complaints, "\n".join(complaints)
        assert [row for row in desk.simulator.rates() if row["refused"]] == []


async def carry(desk: Floor, lane: Lane, asked: list[Asked]) -> list[str]:
    """Asks for all of a lane's cancels; what is wrong with their outcomes."""
    ids = await desk.send_all(lane, [one.entry for one in asked])
    finals = await desk.finals(lane, ids, 90)
    return [line for id_, one in zip(ids, asked, strict=True) if (line := wrong(desk, one, finals[id_]))]


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
async def test_an_account_is_emptied_with_one_bulk_call_at_most(redis_url: str, venue: str) -> None:
    async with floor(redis_url, f"{venue}:main", cancel_delay_ms=100) as desk:
        (lane,) = desk.lanes
        orders = [desk.order(lane, symbol=spelled(venue, pair)) for pair in PAIRS for _ in range(40)]
        spared = [desk.order(lane, kind) for kind in ("tpsl", "stop")]
        event = await desk.final(lane, await desk.send(lane, scope="account", priority="urgent"))
        assert (event.status, event.open_orders) == (Status.cancelled, 0)
        assert Counter(desk.truth(lane, order)["state"] for order in orders) == {"cancelled": 120}
        assert {desk.truth(lane, order)["state"] for order in spared} == {"live"}
        bulk = [c for c in desk.calls(lane) if c["endpoint"].rpartition("/")[2] in ("cancel-all", "cancelOpenOrders")]
        assert len(bulk) <= 1
        everything = await desk.final(lane, await desk.send(lane, scope="account", kinds="order,tpsl,stop"))
        assert everything.status == Status.cancelled
        assert {desk.truth(lane, order)["state"] for order in spared} == {"cancelled"}
        assert desk.refused() == 0


@pytest.mark.parametrize("ahead_ms", [0, 3_600_000])
@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
async def test_only_what_is_meant_is_swept(redis_url: str, venue: str, ahead_ms: int) -> None:
    """Also at a venue whose clock is an hour ahead: `older_than_ms` is the desk's time, orders carry the venue's."""
    async with floor(redis_url, f"{venue}:main", clock_offset_ms=ahead_ms) as desk:
        (lane,) = desk.lanes
        now_ms, symbol = time.time_ns() // 1_000_000, spelled(venue)
        there_ms = now_ms + ahead_ms
        old = [desk.order(lane, client_id=f"mm{n}", created_ms=there_ms - 60_000) for n in range(25)]
        young = [desk.order(lane, client_id=f"mm{n}", created_ms=there_ms - 5_000) for n in range(100, 105)]
        other = [desk.order(lane, client_id=f"hand{n}", created_ms=there_ms - 60_000) for n in range(5)]
        entry = {"scope": "symbol", "symbol": symbol, "client_prefix": "mm", "older_than_ms": str(now_ms - 30_000)}
        event = await desk.final(lane, await desk.send(lane, **entry))
        assert event.status == Status.cancelled
        assert {desk.truth(lane, order)["state"] for order in old} == {"cancelled"}
        assert {desk.truth(lane, order)["state"] for order in (*young, *other)} == {"live"}
        assert not [
            c for c in desk.calls(lane) if c["endpoint"].rpartition("/")[2] in ("cancel-all", "cancelOpenOrders")
        ]


async def latencies_us(desk: Floor, lanes: list[Lane], rounds: int) -> list[int]:
    """From queued to the venue's answer, of lone cancels on quiet lanes."""
    found = []
    for _ in range(rounds):
        for lane in lanes:
            order = desk.order(lane)
            event = await desk.final(lane, await desk.send(lane, symbol=spelled(lane.venue), order_id=order))
            assert event.answered_us
            assert event.queued_us
            found.append(event.answered_us - event.queued_us)
    return found


async def test_a_venue_that_hangs_does_not_slow_the_others(redis_url: str) -> None:
    """Its calls hang for 20 s each; the others' 99th percentile stays within twice what it is without, measured in
    turns in the same run."""
    async with floor(redis_url, *LANES) as desk:
        bitget, bybit, bingx = desk.lanes
        await latencies_us(desk, [bybit, bingx], 3)  # connections are warm from here on
        samples: dict[bool, list[int]] = {False: [], True: []}
        stuck: list[str] = []
        for hangs in (False, True, False, True):
            desk.simulator.core.faults.clear()
            if hangs:
                called = len(desk.calls(bitget))
                desk.fault(bitget, "hang", count=None, delay_ms=20_000)
                orders = [desk.order(bitget) for _ in range(60)]
                stuck += await desk.send_all(bitget, [{"symbol": "BTCUSDT", "order_id": order} for order in orders])
                await desk.until(lambda: len(desk.calls(bitget)) >= called + 2)  # noqa: B023 (awaited in this turn)
            samples[hangs] += await latencies_us(desk, [bybit, bingx], 16)
        desk.simulator.core.faults.clear()
        finals = await desk.finals(bitget, stuck, 60)
        assert {event.status for event in finals.values()} == {Status.cancelled}
        p99 = {hangs: statistics.quantiles(sample, n=100)[98] for hangs, sample in samples.items()}
        assert p99[True] <= 2 * max(p99[False], 50_000), f"p99 in us: {p99}"


async def test_a_refused_key_holds_its_lane_and_no_other(redis_url: str) -> None:
    async with floor(redis_url, *LANES) as desk:
        bitget, bybit, bingx = desk.lanes
        desk.fault(bybit, "code:10003", count=None)
        held = await desk.send(bybit, symbol="BTCUSDT", order_id=desk.order(bybit))
        await desk.until(lambda: desk.held(bybit, "auth"))
        for lane in (bitget, bingx):
            order = desk.order(lane)
            event = await desk.final(lane, await desk.send(lane, symbol=spelled(lane.venue), order_id=order))
            assert event.status == Status.cancelled
        assert await desk.admitted(bybit, held)
        desk.simulator.core.faults.clear()
        await desk.resume(bybit)
        assert (await desk.final(bybit, held)).status == Status.cancelled


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
async def test_a_refused_bulk_call_is_not_made_again(redis_url: str, venue: str) -> None:
    """Orders placed after the intent are left alone, however long the refusal lasts."""
    async with floor(redis_url, f"{venue}:main") as desk:
        (lane,) = desk.lanes
        old = [desk.order(lane) for _ in range(12)]
        bulk = "cancel-symbol-order cancel-all cancelOpenOrders"
        desk.fault(lane, "http_429", endpoint=bulk, count=1)
        id_ = await desk.send(lane, scope="symbol", symbol=spelled(venue))

        def made() -> int:
            return sum(str(call["endpoint"]).rpartition("/")[2] in bulk.split() for call in desk.calls(lane))

        await desk.until(lambda: made() == 1)
        new = desk.order(lane, created_ms=time.time_ns() // 1_000_000)
        event = await desk.final(lane, id_)
        assert (event.status, event.open_orders) == (Status.cancelled, 0)
        assert {desk.truth(lane, order)["state"] for order in old} == {"cancelled"}
        assert desk.truth(lane, new)["state"] == "live"
        assert made() == 1
