"""Many lanes in one process: whoever cannot go on makes no trips to Redis meanwhile, and asks for nothing too early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import redis.asyncio as aioredis

from cancelq.contract import Status
from cancelq_worker.egress import ROUND_US, Egress, Reservation, Ticket
from cancelq_worker.lane import LaneServer
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import LanePlan, Round, RoundRequest, Scanned
from cancelq_worker.rounds import IN_A_ROW, Rounds
from cancelq_worker.trips import command, connect
from cancelq_worker.venues.port import Bucket
from ops.chaos.world import until
from tests.integration.rig import LANE
from tests.integration.test_send_by import Hand, hand, served

pytestmark = pytest.mark.one_server

EGRESS = "here"  # the address that lanes leave by
TURNS = 50  # trips of others: time enough for a lane to make a round


class Counted(RedisLedger):
    """How many rounds were made, and how many calls were asked for in each."""

    def __init__(self, client: aioredis.Redis, plan: LanePlan) -> None:
        super().__init__(client, plan)
        self.asked: list[int] = []

    @property
    def rounds(self) -> int:
        return len(self.asked)

    async def round(self, wanted: RoundRequest) -> Round:
        self.asked.append(len(wanted.takes))
        return await super().round(wanted)


def counted(one: Hand) -> tuple[Counted, LaneServer]:
    """A lane whose rounds are counted."""
    ledger = Counted(one.inbox.client, one.parts.plan)
    return ledger, LaneServer(replace(one.parts, ledger=ledger), suspended=lambda: False)


async def one_round_at_once(one: Hand) -> tuple[Hand, Counted, LaneServer]:
    """The same, of a process that makes one round at once; the lane is open."""
    one = replace(one, parts=replace(one.parts, rounds=Rounds(1)))
    ledger, lane = counted(one)
    await lane.open()
    return one, ledger, lane


async def turns(one: Hand) -> None:
    """Trips of others."""
    for _ in range(TURNS):
        await one.inbox.client.ping()


async def waits_for_its_round(one: Hand) -> None:
    """Until the one lane there is does."""

    async def waits() -> bool:
        return one.parts.rounds.waiting == 1

    assert await until(waits, 10)


async def test_a_lane_that_waits_for_its_round_has_asked_for_nothing_yet(redis_url: str) -> None:
    """What is granted must leave within half a second of that: the wait must not be part of it."""
    async with hand(redis_url) as given:
        one, ledger, lane = await one_round_at_once(given)
        async with served(lane):
            async with one.parts.rounds.turn(lambda: False):
                id_ = await one.rig.send(symbol="BTCUSDT", order_id=one.rig.order())
                await waits_for_its_round(one)
                before = ledger.rounds
                await turns(one)
                assert ledger.rounds == before
            event = await one.rig.final(id_)
        assert (event.status, event.attempt) == (Status.cancelled, 1)


async def test_what_a_round_has_seen_asks_for_no_other_one(redis_url: str) -> None:
    """Whoever waits in turn is told of many things meanwhile: its round heeds them all."""
    async with hand(redis_url) as given:
        one, ledger, lane = await one_round_at_once(given)
        async with served(lane):
            await until_it_rests(one, ledger)
            before = ledger.rounds
            async with one.parts.rounds.turn(lambda: False):
                lane.look()
                await waits_for_its_round(one)
                lane.look()
            await turns(one)
            assert ledger.rounds == before + 1


async def test_a_lane_that_is_to_end_while_it_waits_for_its_round_ends_with_it(redis_url: str) -> None:
    """And not when it would have looked next."""
    async with hand(redis_url) as given:
        one, ledger, lane = await one_round_at_once(given)
        task = asyncio.ensure_future(lane.serve())
        await until_it_rests(one, ledger)
        async with one.parts.rounds.turn(lambda: False):
            lane.look()
            await waits_for_its_round(one)
            rested: list[bool] = []
            lane.on_rest = lambda: rested.append(True)
            lane.drain()
        await task
        assert rested == []


async def until_it_rests(one: Hand, ledger: Counted) -> None:
    """Until the one lane there is has made its first rounds."""

    async def rests() -> bool:
        before = ledger.rounds
        await turns(one)
        return 0 < before == ledger.rounds

    assert await until(rests, 10)


async def test_a_round_asks_for_no_more_calls_than_there_is_something_for(redis_url: str) -> None:
    """Each of the others would cost Redis as much as one that finds something."""
    async with hand(redis_url) as one:
        ledger, lane = counted(one)
        await lane.open()
        async with served(lane):
            ids = await one.rig.send_all([{"symbol": "BTCUSDT", "order_id": one.rig.order()} for _ in range(100)])
            await one.rig.finals(ids)
            assert max(ledger.asked) <= 2
            ids = await one.rig.send_all([{"symbol": "BTCUSDT", "order_id": one.rig.order()} for _ in range(240)])
            await one.rig.finals(ids)
            assert max(ledger.asked) > 2


async def test_rounds_that_stand_in_line_at_the_server_ask_for_one_call(redis_url: str) -> None:
    """Of forty rounds of four calls each, what was granted came too late to be sent."""
    async with hand(redis_url) as one:
        lane = counted(one)[1]
        await lane.open()
        await one.parts.egress.fill()
        await lane._round()

        def asked_for() -> int:
            lane._wait_us, lane._calls_left = 0, 9
            wanted, _, reserved = lane._ask()
            for units in reserved:
                one.parts.egress.release(units)
            return len(wanted.takes)

        assert asked_for() == 4
        lane._breath.round_took(1_000_000_000)
        assert asked_for() == 1
        await lane._round()
        assert asked_for() == 4, "this one was quick"


async def all_units(egress: Egress, bucket: str) -> list[Ticket]:
    """Every unit that an address has left."""
    tickets: list[Ticket] = []
    while True:
        await egress.fill()
        reserved = egress.reserve()
        if not reserved.covers((bucket,)):
            return tickets
        tickets.append(egress.use(reserved, (bucket,)))


async def test_a_lane_whose_address_has_no_unit_left_is_woken_once_there_is_one(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One asks for all lanes that wait; a thousand that each looked for a unit themselves would do nothing else."""
    few = '{"bitget-ip": 16}'
    async with hand(
        redis_url, CANCELQ_ACCOUNTS__BITGET__MAIN__LIMITS=few, CANCELQ_URGENT_RESERVE="0", CANCELQ_EGRESS=EGRESS
    ) as one:
        ledger, lane = counted(one)
        await lane.open()
        bucket = next(b for b in one.parts.venue.address_buckets if b.name == "bitget-ip")
        assert bucket.units == 16
        elsewhere = Egress(one.inbox.client, EGRESS, (bucket,))
        taken, asked = await all_units(elsewhere, "bitget-ip"), list[int]()
        assert len(taken) == 16
        stock = one.parts.egress._stocks["bitget-ip"]
        ask = stock._ask

        async def heard(wanted: int, *rest: object, **named: object) -> tuple[int, int, int]:
            asked.append(wanted)
            return await ask(wanted, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(stock, "_ask", heard)
        async with served(lane):
            id_ = await one.rig.send(symbol="BTCUSDT", order_id=one.rig.order())

            async def admitted() -> bool:
                return int(await command(one.rig.client, "HLEN", LANE.key("state"))) == 1

            async def asked_often() -> bool:
                return len(asked) >= before + 20

            assert await until(admitted, 10)
            before, rounds = len(asked), ledger.rounds
            assert await until(asked_often, 10)
            assert ledger.rounds <= rounds + 3
            assert one.cancels == 0
            monkeypatch.undo()
            for ticket in taken:
                elsewhere.unuse(ticket)
            await elsewhere.fill()
            event = await one.rig.final(id_)
        assert (event.status, event.attempt) == (Status.cancelled, 1)


async def test_an_urgent_cancel_waits_for_no_other_unit_than_the_first_that_it_may_use(redis_url: str) -> None:
    limits = {"CANCELQ_ACCOUNTS__BITGET__MAIN__LIMITS": '{"bitget-ip": 40}', "CANCELQ_EGRESS": EGRESS}
    async with hand(redis_url, CANCELQ_URGENT_RESERVE="1", **limits) as one:
        _, lane = counted(one)
        await lane.open()
        bucket = next(b for b in one.parts.venue.address_buckets if b.name == "bitget-ip")
        elsewhere, stock = Egress(one.inbox.client, EGRESS, (bucket,)), one.parts.egress._stocks["bitget-ip"]
        await one.parts.egress.leave()
        taken = await all_units(elsewhere, "bitget-ip")
        async with served(lane):

            async def waits() -> bool:
                return lane.look in stock._waiting

            bulk = await one.rig.send(symbol="BTCUSDT", order_id=one.rig.order())
            assert await until(waits, 10)
            assert lane.look not in stock._hurried
            urgent = await one.rig.send(symbol="BTCUSDT", order_id=one.rig.order(), priority="urgent")
            lane.look()

            async def hurries() -> bool:
                return lane.look in stock._hurried

            assert await until(hurries, 10)
            for ticket in taken[:2]:  # as many as are kept for what is urgent
                elsewhere.unuse(ticket)
            await elsewhere.leave()
            assert (await one.rig.final(urgent)).status == Status.cancelled
            assert await command(one.rig.client, "HEXISTS", LANE.key("state"), bulk)


async def test_a_lane_that_ends_keeps_no_unit_from_the_others(redis_url: str) -> None:
    async with hand(redis_url) as given:
        one, _, lane = await one_round_at_once(given)
        stock = one.parts.egress._stocks["bitget-ip"]
        async with one.parts.rounds.turn(lambda: False):
            task = asyncio.ensure_future(lane.serve())
            await waits_for_its_round(one)
            one.parts.egress.wait(("bitget-ip",), lane.look)
            assert lane.look in stock._woken
            task.cancel()
            await asyncio.wait({task})
        assert lane.look not in stock._woken
        assert one.parts.rounds.waiting == 0


async def test_after_the_address_was_closed_whoever_lacks_a_unit_looks_for_itself(redis_url: str) -> None:
    """One call of each bucket goes alone, and may need the units of two: they go round until somebody has both."""
    client = connect(redis_url, max_connections=4)
    fleet = [Egress(client, "here", (Bucket("ip", 16, 500_000),)) for _ in range(2)]

    async def looks(*, again_us: int) -> bool:
        await asyncio.gather(*(egress.fill() for egress in fleet))
        return all(egress.look_again_us == again_us for egress in fleet)

    try:
        assert await looks(again_us=0)
        while fleet[1].reserve().covers(("ip",)):
            pass
        await fleet[0].hold(200, "banned")
        assert ROUND_US < fleet[0].look_again_us <= 200_000
        assert await until(lambda: looks(again_us=ROUND_US), 5)
        units = [egress.reserve() for egress in fleet]
        for egress, reserved in zip(fleet, units, strict=True):
            if reserved.covers(("ip",)):
                egress.ended(egress.use(reserved, ("ip",)), time.monotonic_ns(), answered=True)
        assert await until(lambda: looks(again_us=0), 5)
    finally:
        await client.aclose()


def waiting(woken: list[str], name: str) -> Callable[[], None]:
    """A lane, as an address knows it."""
    return lambda: woken.append(name)


@pytest.fixture
async def spent(redis_url: str) -> AsyncIterator[tuple[Egress, list[Ticket]]]:
    """An address that has no unit left, and its units."""
    client = connect(redis_url, max_connections=4)
    egress = Egress(client, "here", (Bucket("ip", 16, 60_000_000),))
    try:
        yield egress, await all_units(egress, "ip")
        await egress.leave()
    finally:
        await client.aclose()


async def reported(egress: Egress) -> None:
    """Until Redis knows what became of the units. The exchange that may be under way began before."""
    await egress.fill()
    await egress.fill()


async def test_a_unit_wakes_one_lane_and_is_kept_for_it(spent: tuple[Egress, list[Ticket]]) -> None:
    (egress, tickets), woken = spent, list[str]()
    first, second, third = (waiting(woken, name) for name in ("first", "second", "third"))
    for lane in (first, second, third):
        assert egress.lacking(egress.reserve(lane)) == {"ip"}
        egress.wait(("ip",), lane)
    assert woken == []
    egress.unuse(tickets.pop())
    await reported(egress)
    assert woken == ["first"]
    assert not egress.reserve().covers(("ip",)), "it is another's"
    assert not egress.reserve(second).covers(("ip",)), "it is another's"
    egress.wait(("ip",), second)  # has looked once more in vain: it is still the next one
    reserved = egress.reserve(first)
    assert reserved.covers(("ip",))
    egress.release(reserved)
    assert woken == ["first", "second"], "what the first has no use for is the next one's"
    egress.wait(("ip",), third)
    egress.wait_no_more(second)
    assert woken == ["first", "second", "third"], "who has gone keeps nothing"
    assert egress.reserve(third).covers(("ip",))


async def test_a_unit_for_urgent_calls_wakes_whoever_has_one(redis_url: str) -> None:
    client, woken = connect(redis_url, max_connections=4), list[str]()
    buckets = (Bucket("ip", 40, 60_000_000), Bucket("other", 40, 60_000_000))
    elsewhere, here = Egress(client, "here", buckets), Egress(client, "here", buckets, urgent_reserve=1)
    bulk, urgent = waiting(woken, "bulk"), waiting(woken, "urgent")
    try:
        tickets = await all_units(elsewhere, "ip")
        await here.fill()
        for lane in (bulk, urgent):
            reserved = here.reserve(lane)
            assert here.lacking(reserved) == {"ip"}
            here.wait(("ip",), lane, reserved if lane is urgent else None)
            here.release(reserved)
        elsewhere.unuse(tickets.pop())
        await elsewhere.leave()
        await reported(here)
        assert woken == ["urgent"], "the other one could not use it"
        reserved = here.reserve(urgent)
        assert reserved.only_urgent(("ip",))
        here.wait(("ip",), bulk, reserved)
        assert woken == ["urgent"], "of this bucket it has one already"
        here.wait(("ip",), urgent, Reservation({}))
        here.release(reserved)
        assert woken == ["urgent", "urgent"], "what one call has no use for is another's"
    finally:
        await client.aclose()


async def test_a_call_that_no_round_makes_has_the_next_unit_or_none_in_time(spent: tuple[Egress, list[Ticket]]) -> None:
    """A guard's timer, a key of an order stream: hundreds of lanes that wait must not keep them from being made."""
    (egress, tickets), woken = spent, list[str]()
    assert not (await egress.reserve_soon(("ip",), 0.05)).covers(("ip",))
    egress.wait(("ip",), waiting(woken, "lane"))
    aside = asyncio.ensure_future(egress.reserve_soon(("ip",), 5.0))

    async def in_line() -> bool:
        return len(egress._stocks["ip"]._waiting) == 2

    assert await until(in_line, 10)
    egress.unuse(tickets.pop())
    await reported(egress)
    reserved = await aside
    assert reserved.covers(("ip",))
    assert woken == []
    egress.release(reserved)
    assert woken == ["lane"]


async def test_a_call_that_is_given_up_as_it_waits_keeps_no_unit(spent: tuple[Egress, list[Ticket]]) -> None:
    (egress, tickets), woken = spent, list[str]()
    aside = asyncio.ensure_future(egress.reserve_soon(("ip",), 5.0))
    stock = egress._stocks["ip"]

    async def in_line() -> bool:
        return len(stock._waiting) == 1

    assert await until(in_line, 10)
    aside.cancel()
    await asyncio.wait({aside})
    egress.wait(("ip",), waiting(woken, "lane"))
    egress.unuse(tickets.pop())
    await reported(egress)
    assert woken == ["lane"]


async def test_the_round_with_something_urgent_is_next_but_others_come_too() -> None:
    rounds, order = Rounds(1), list[str]()

    async def take(name: str, *, urgent: bool) -> None:
        async with rounds.turn(lambda: urgent):
            order.append(name)

    async with rounds.turn(lambda: False):
        many = [f"urgent {n}" for n in range(2 * IN_A_ROW)]
        tasks = [asyncio.ensure_future(take(name, urgent=False)) for name in ("one", "other", "last")]
        tasks += [asyncio.ensure_future(take(name, urgent=True)) for name in many]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == [*many[:IN_A_ROW], "one", *many[IN_A_ROW:], "other", "last"]
    assert rounds.waiting == 0


@pytest.mark.parametrize("given", [False, True], ids=["waiting", "given"])
async def test_a_lane_that_ends_as_it_waits_for_its_round_keeps_none(given: bool) -> None:
    """Also where the turn was its own already."""
    rounds = Rounds(1)

    async def take() -> None:
        async with rounds.turn(lambda: False):
            pass

    async with rounds.turn(lambda: False):
        gone, other = asyncio.ensure_future(take()), asyncio.ensure_future(take())
        await asyncio.sleep(0)
        if not given:
            gone.cancel()
    if given:
        gone.cancel()
    await asyncio.wait_for(other, 5)
    await asyncio.wait({gone})
    assert rounds.waiting == 0
    async with asyncio.timeout(5), rounds.turn(lambda: False):
        pass


async def test_a_lane_in_a_crowd_reads_little_at_once_and_looks_ahead_nevertheless(redis_url: str) -> None:
    """What it read stays in memory until the others have had their turn."""
    async with hand(redis_url) as one:
        one, _, lane = await one_round_at_once(one)
        rounds = one.parts.rounds
        async with one.inbox.client.pipeline(transaction=False) as pipe:
            for n in range(400):
                priority = "urgent" if n == 390 else "normal"
                pipe.xadd(LANE.inbox, {"symbol": "BTCUSDT", "order_id": str(n), "priority": priority})
            await pipe.execute()

        async def another() -> None:
            async with rounds.turn(lambda: False):
                pass

        async with rounds.turn(lambda: False):
            others = [asyncio.ensure_future(another()) for _ in range(99)]
            await asyncio.sleep(0)
            await lane._round()
            assert len(lane._entries) == 125
            await lane._round()
            assert lane._ahead.found
        await asyncio.gather(*others)
        lane._ahead.forget()
        await lane._round()
        assert len(lane._entries) == 150, "alone it reads what is left, up to a whole page"


async def test_what_is_urgent_makes_a_round_urgent(redis_url: str) -> None:
    """An entry that came in, one that was found ahead, and a call that came back."""
    async with hand(redis_url) as one:
        lane = counted(one)[1]
        await lane.open()
        assert not lane._hurries()
        await one.inbox.add(symbol="BTCUSDT", order_id=one.rig.order())
        page = await one.inbox.read()
        lane.deliver("0-0", page)
        assert not lane._hurries()
        await one.inbox.add(symbol="BTCUSDT", order_id=one.rig.order(), priority="urgent")
        urgent = (await one.inbox.read())[-1:]
        lane._entries = urgent
        assert lane._hurries()
        lane._entries = []
        lane._ahead.scanned(Scanned(urgent[0][0], urgent))
        assert lane._hurries()
        lane._ahead.forget()
        call = await one.call(order_id=one.rig.order(), priority="urgent")
        lane._outcomes.append(one.carrier.given_back(call))
        assert lane._hurries()
