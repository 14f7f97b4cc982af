"""What leaves a worker, and what does not: calls that come too late, a worker that drains, a link that breaks."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx
import orjson
import pytest
import trustme
from redis.exceptions import ConnectionError as RedisConnectionError

from cancelq.contract import Status
from cancelq_worker.carrier import OWN_LASTS_NS, OWN_SAMPLES, Carrier
from cancelq_worker.clocks import RemoteClock, in_s, monotonic_ns
from cancelq_worker.egress import Ticket
from cancelq_worker.egress_stock import LONGEST_CALL_US
from cancelq_worker.gate import Gate
from cancelq_worker.http import Door, NotSent
from cancelq_worker.key_trial import KeyTrial
from cancelq_worker.lane import SLOTS, LaneServer
from cancelq_worker.lane_parts import SEND_BY_MS, Call, LaneParts
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import (
    Batch,
    End,
    KeyWord,
    Move,
    PermitUse,
    Round,
    RoundRequest,
    Settlement,
    Taken,
    TakeRequest,
)  # fmt: skip
from cancelq_worker.settings import Settings
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE
from cancelq_worker.trips import RawEntry, command
from cancelq_worker.venues.bitget.adapter import BAN_US
from cancelq_worker.venues.port import Bucket, Reply, Signed, Stage, Word
from cancelq_worker.venues.registry import open_venue
from cancelq_worker.wiring import Wiring
from ops.chaos.links import Link
from ops.chaos.world import until
from tests.integration.lone_ledger import Desk, lone_desk
from tests.integration.rig import LANE, Rig, desk
from tests.servers import RedisServer

pytestmark = pytest.mark.one_server


class Parts(Wiring):
    """The parts of one lane as a worker puts them together, without the worker."""

    def of_lane(self) -> LaneParts:
        account = self.settings.account(LANE)
        return self._parts(LANE, account, open_venue(LANE.venue, account), False)


@dataclass
class Hand:
    """Takes and carries single calls."""

    rig: Rig
    inbox: Desk
    parts: LaneParts
    gate: Gate
    carrier: Carrier

    async def call(self, *, asked_ms_ago: int = 0, fastest_us: int = 0, **fields: str) -> Call:
        """A call for one order, or what `fields` ask for, granted now; one asked for in the future has more time to
        leave."""
        return await self.call_for([fields or {"order_id": self.rig.order()}], asked_ms_ago, fastest_us)

    async def call_for(self, asked: Sequence[dict[str, str]], asked_ms_ago: int = 0, fastest_us: int = 0) -> Call:
        """One call for several intents."""
        added = [await self.inbox.add(symbol="BTCUSDT", **fields) for fields in asked]
        await self.inbox.admit([e for e in await self.inbox.read() if e[0] in added])
        batch = await self._granted(f"b-{added[0]}")
        route = next(r for r in self.parts.venue.routes if r.name == batch.route)
        await self.parts.egress.fill()
        ticket = self.parts.egress.use(self.parts.egress.reserve(), route.address)
        now_ns = monotonic_ns()
        batch = replace(batch, fastest_us=fastest_us)
        return Call.of(batch, route, ticket, now_ns - asked_ms_ago * 1_000_000, now_ns)

    async def _granted(self, batch_id: str) -> Batch:
        (taken,) = (await self.parts.ledger.round(RoundRequest(takes=[TakeRequest("cl", batch_id)]))).taken
        assert isinstance(taken, Taken)
        assert taken.batch
        return taken.batch

    async def know_clocks(self) -> None:
        """Reads Redis' clock and the venue's, as a lane does when it begins."""
        begun_ns = monotonic_ns()
        self.parts.redis_clock.learn(begun_ns, monotonic_ns(), await self.parts.ledger.arrive(0))
        await self.gate.know_venue_time()

    @property
    def cancels(self) -> int:
        """Calls to cancel that reached the venue."""
        return sum("cancel" in str(call["endpoint"]) for call in self.rig.simulator.calls().entries)


@asynccontextmanager
async def hand(redis_url: str, **env: str) -> AsyncIterator[Hand]:
    async with desk(redis_url, workers=0) as rig, lone_desk(redis_url) as inbox:
        wiring = Parts(Settings.load(None, rig.environment(**env)), "w1", lambda: False)
        parts = wiring.of_lane()

        aside: set[asyncio.Task[None]] = set()

        def spawn(job: Coroutine[object, object, None]) -> None:
            task: asyncio.Task[None] = asyncio.ensure_future(job)
            aside.add(task)
            task.add_done_callback(aside.discard)

        try:
            gate = Gate(parts, spawn)
            yield Hand(rig, inbox, parts, gate, Carrier(parts, gate))
        finally:
            await wiring.close()


@asynccontextmanager
async def served(lane: LaneServer) -> AsyncIterator[None]:
    """A lane that is open is served, and drained at the end."""
    task = asyncio.ensure_future(lane.serve())
    try:
        yield
    finally:
        lane.drain()
        await asyncio.wait_for(task, 15)


@asynccontextmanager
async def answering(status: int, body_of: Callable[[str], bytes]) -> AsyncIterator[str]:
    """A venue's address where each call gets that status and what is made of its head."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = body_of((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 %d So\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_call_past_its_send_by_time_is_given_back_and_not_sent(redis_url: str) -> None:
    async with hand(redis_url) as one:
        # From now on there is a connection to send it on.
        await one.carrier.carry(await one.call(asked_ms_ago=-30_000))
        assert one.cancels == 1
        outcome = await one.carrier.carry(await one.call(asked_ms_ago=SEND_BY_MS + 1))
        (move,) = outcome.settlement.works
        assert outcome.settlement.permit
        assert outcome.settlement.permit.how == "u"
        assert not outcome.settlement.sent
        assert isinstance(move, Move)
        assert (move.state.attempts, move.delay_us, move.event) == (0, None, None)
        assert outcome.settlement.holds == []
        assert one.cancels == 1


async def test_a_call_that_did_not_become_whole_is_no_attempt(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process stood still between its head and its body. The venue may have counted it, so its permit is out for
    longer; but that it executed it cannot be."""
    monkeypatch.setattr("cancelq_worker.http.BODY_BEHIND_NS", -60_000_000_000)
    async with hand(redis_url) as lane:
        outcome = await lane.carrier.carry(await lane.call())
        (move,) = outcome.settlement.works
        assert isinstance(move, Move)
        assert (move.state.attempts, move.state.stage, move.delay_us, move.event) == (0, Stage.CANCEL, None, None)
        assert outcome.settlement.permit
        assert outcome.settlement.permit.how == "n"
        assert not outcome.settlement.sent
        assert outcome.unsent, "this process is too slow for its takes"
        assert lane.cancels == 0


async def test_a_call_ends_well_before_its_lease(redis_url: str) -> None:
    """So that nobody looks for its orders while the venue may still be executing it."""
    async with hand(redis_url) as one:
        assert SEND_BY_MS + one.parts.total_s * 1000 + 2_000 <= one.parts.plan.lease_us / 1000


async def test_no_call_outlives_its_unit_of_the_address(redis_url: str) -> None:
    """However long a worker may hold what it took."""
    async with hand(redis_url, CANCELQ_LEASE_MS="60000") as one:
        assert one.parts.total_s * 1_000_000 <= LONGEST_CALL_US


async def test_a_venue_whose_certificate_nobody_vouches_for_gets_no_call(redis_url: str) -> None:
    heard = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(hear, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with desk(redis_url, workers=0) as rig:
        env = rig.environment(CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL=f"https://127.0.0.1:{port}")
        wiring = Parts(Settings.load(None, env), "w1", lambda: False)
        parts = wiring.of_lane()
        with pytest.raises(NotSent):
            await parts.cancel_door.call(Signed(parts.venue.probe_request(), {}), send_by_ns=in_s(5), total_s=5)
        assert not heard.is_set()
        await wiring.close()
    server.close()


@pytest.mark.parametrize("code", ["40017", "40009", "429", "99999"])
async def test_the_words_of_a_venue_that_quotes_the_request_are_left_out(redis_url: str, code: str) -> None:
    """Whatever the code: neither event nor hold repeats what the call was signed with."""

    async with (
        answering(400, lambda asked: orjson.dumps({"code": code, "msg": asked})) as base_url,
        hand(redis_url, CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL=base_url) as one,
    ):
        settlement = (await one.carrier.carry(await one.call(asked_ms_ago=-30_000))).settlement
        told = repr((settlement.works, settlement.holds))
        assert code in told
        assert DEMO_KEY not in told
        assert DEMO_PASSPHRASE not in told
        assert "ACCESS-SIGN" not in told


async def test_a_cancel_that_can_never_work_ends_no_other_intent_of_its_order(redis_url: str) -> None:
    """What becomes of the order is not known."""
    async with (
        answering(400, lambda asked: b'{"code":"40034","msg":"Parameter does not exist"}') as base_url,
        hand(redis_url, CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL=base_url) as one,
    ):
        outcome = await one.carrier.carry(await one.call(asked_ms_ago=-30_000))
        (end,) = outcome.settlement.works
        assert isinstance(end, End)
        assert end.event["status"] == "rejected"
        assert outcome.ended == {}


async def test_a_venue_out_of_reach_is_waited_for_longer_only_while_it_stays_so(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = monotonic_ns()
    async with hand(redis_url) as one:
        monkeypatch.setattr("cancelq_worker.gate.monotonic_ns", lambda: now_ns)
        waits_us = [hold.for_us for _ in range(2) for hold in one.gate.unreachable("refused")]
        now_ns += 10_000_000_000
        waits_us += [hold.for_us for hold in one.gate.unreachable("refused")]
        assert waits_us == [250_000, 500_000, 250_000]


async def test_a_process_that_is_short_of_connections_closes_no_lane(redis_url: str) -> None:
    async with hand(redis_url) as one:
        assert one.gate.unreachable("PoolTimeout") == []


async def test_a_bucket_is_closed_until_the_time_the_venue_tells(redis_url: str) -> None:
    async with hand(redis_url) as one:
        call = await one.call()
        open_at_ms = one.parts.venue_clock.now_us() // 1000 + 90_000
        said = Reply(Word.REFUSED, "100410", "closed", retry_at_ms=open_at_ms)
        (hold,) = one.gate.holds(call, [said])
        assert (hold.scope, hold.reason) == (call.route.bucket, "rate")
        assert 80_000_000 < hold.for_us <= 90_000_000
        never = Reply(Word.REFUSED, "100410", "closed", retry_at_ms=9_999_999_999_999)
        assert [hold.for_us for hold in one.gate.holds(call, [never])] == [86_400_000_000], "a day at most"


async def test_a_ban_closes_the_address_for_every_process(redis_url: str) -> None:
    async with (
        answering(403, lambda _: b"<html>forbidden</html>") as base_url,
        hand(redis_url, CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL=base_url) as one,
    ):
        settlement = (await one.carrier.carry(await one.call(asked_ms_ago=-30_000))).settlement
        assert [(hold.scope, hold.for_us) for hold in settlement.holds] == [("*", BAN_US)]

        async def others_hear_of_it() -> bool:
            keys = [key async for key in one.rig.client.scan_iter("cancelq:{egress:*}:bitget-ip:note")]
            return bool(keys) and await command(one.rig.client, "HGET", keys[0], "hold") is not None

        assert await until(others_hear_of_it, 10)
        assert not one.parts.egress.reserve().covers(("bitget-ip",)), "this process calls on"


@pytest.mark.parametrize("asked", ["time", "the order stream's key", "whether a key works"])
async def test_a_ban_that_a_call_of_no_route_hears_closes_the_address(redis_url: str, asked: str) -> None:
    """Also where that call is the one that goes alone after a hold: refused, it opens nothing."""
    async with (
        answering(403, lambda _: b"<html>forbidden</html>") as base_url,
        hand(redis_url, CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL=base_url) as one,
    ):
        egress = one.parts.egress
        asks: dict[str, Callable[[], Awaitable[object]]] = {
            "time": one.gate.read_venue_time,
            "the order stream's key": lambda: one.gate.call_aside(one.parts.venue.probe_request()),
            "whether a key works": KeyTrial(one.parts, one.gate).try_key,
        }
        await egress.hold(1, "banned before")
        while egress.held_ms or not egress.look_again_us:
            await egress.fill()
        await asks[asked]()
        assert egress.held_ms > 200_000, "by the venue's own table, for minutes"
        assert not egress.reserve().covers(("bitget-ip",))


class Refusing(RedisLedger):
    """Tells when it grants no permit."""

    refused = asyncio.Event()

    async def permit(self, bucket: Bucket, member: str) -> int | None:
        granted = await super().permit(bucket, member)
        if granted is None:
            self.refused.set()
        return granted


async def test_a_key_is_tried_with_a_permit_that_the_lane_counts(redis_url: str) -> None:
    """Before the lane was held looks may have spent the bucket, and once it is open others spend what is left."""
    async with hand(redis_url) as one:
        ledger, permits = Refusing(one.inbox.client, one.parts.plan), LANE.key("permits:unfilled-orders")
        bucket = next(bucket for bucket in one.parts.plan.buckets if bucket.name == "unfilled-orders")
        for n in range(bucket.units):
            assert await ledger.permit(bucket, f"look-{n}") == 0

        def tries() -> int:
            return sum(call["endpoint"] == "unfilled-orders" for call in one.rig.simulator.calls().entries)

        trial = asyncio.ensure_future(KeyTrial(replace(one.parts, ledger=ledger), one.gate).try_key())
        await asyncio.wait_for(ledger.refused.wait(), 10)
        assert tries() == 0
        await ledger.round(RoundRequest([Settlement(PermitUse(bucket, 1, "look-0", "u"), [])]))
        assert (await trial).what is KeyWord.WORKS
        assert tries() == 1
        assert await command(one.rig.client, "ZCARD", permits) == bucket.units, "the try is in use for its window"


async def test_a_key_is_tried_no_sooner_than_who_has_not_measured_the_way_may_send(redis_url: str) -> None:
    """Permits are free earlier by the others' shortest way, and this worker may be nearer."""
    async with hand(redis_url) as one:
        await command(one.rig.client, "HSET", LANE.key("rtt:unfilled-orders"), "fast", 300_000)
        begun_ns = time.monotonic_ns()
        assert (await KeyTrial(one.parts, one.gate).try_key()).what is KeyWord.WORKS
        assert time.monotonic_ns() - begun_ns >= 300_000_000


async def test_a_worker_that_drains_sends_nothing_of_what_it_took(redis_url: str) -> None:
    async with hand(redis_url) as one:
        one.carrier.draining = True
        outcome = await one.carrier.carry(await one.call())
        assert outcome.settlement.permit
        assert outcome.settlement.permit.how == "u"
        assert one.cancels == 0


async def test_what_was_taken_is_not_sent_from_an_address_that_was_closed_meanwhile(redis_url: str) -> None:
    """Another process was told a ban, after this one's permit was granted."""
    async with hand(redis_url) as one:
        call = await one.call()
        one.parts.egress.close(60_000)
        outcome = await one.carrier.carry(call)
        assert outcome.settlement.permit
        assert outcome.settlement.permit.how == "u"
        assert one.cancels == 0


async def test_a_worker_without_round_trips_of_its_own_waits_the_fleets_fastest(redis_url: str) -> None:
    async with hand(redis_url) as one:
        permit = None
        for n in range(OWN_SAMPLES + 1):
            call = await one.call(fastest_us=150_000, asked_ms_ago=-30_000)
            outcome = await one.carrier.carry(call)
            took_ms = (outcome.answered_ns - call.back_ns) / 1e6
            permit = outcome.settlement.permit
            assert permit
            assert permit.how == "a"
            assert took_ms >= 150 or n == OWN_SAMPLES
        assert permit
        assert permit.rtt_us < 150_000, "the wait is no part of the round trip"


async def test_a_worker_whose_round_trips_are_long_ago_waits_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fleet has forgotten them by then, and its fastest way may be a far worker's."""
    async with hand(redis_url) as one:

        async def took_ms() -> float:
            asked = {"order_id": one.rig.order(kind="plan"), "scope": "stop"}  # these have one route
            call = await one.call_for([asked], asked_ms_ago=-120_000, fastest_us=150_000)
            outcome = await one.carrier.carry(call)
            assert outcome.settlement.permit
            assert outcome.settlement.permit.how == "a"
            return (outcome.answered_ns - call.back_ns) / 1e6

        for _ in range(OWN_SAMPLES):
            await took_ms()
        assert await took_ms() < 150
        monkeypatch.setattr("cancelq_worker.carrier.monotonic_ns", lambda: monotonic_ns() + OWN_LASTS_NS)
        assert await took_ms() >= 150


async def test_who_waits_for_the_fleets_fastest_has_its_time_to_send_after_it(redis_url: str) -> None:
    async with hand(redis_url) as one:
        asked = {"order_id": one.rig.order(kind="plan"), "scope": "stop"}
        call = await one.call_for([asked], fastest_us=SEND_BY_MS * 1000 + 100_000)
        permit = (await one.carrier.carry(call)).settlement.permit
        assert permit
        assert permit.how == "a"


async def test_a_worker_that_begins_while_the_venue_is_slow_is_not_too_late_for_ever(redis_url: str) -> None:
    """The fleet's fastest was longer than a call may wait to be sent, and nobody is left who could find a shorter."""
    async with desk(redis_url, latency_after_ms=[700, 700]) as rig:
        asked = [{"symbol": "BTCUSDT", "order_id": rig.order(kind="plan"), "scope": "stop"} for _ in range(26)]
        await rig.finals(await rig.send_all(asked[1:]))
        await rig.stop()
        rig.start("w2")
        assert (await rig.final(await rig.send(**asked[0]), within_s=20)).status is Status.cancelled


async def test_a_drain_behind_a_long_queue_takes_nothing_new(redis_url: str) -> None:
    async with desk(redis_url, latency_after_ms=[300, 300]) as rig:
        orders = [rig.order() for _ in range(1500)]
        await rig.send_all([{"symbol": "BTCUSDT", "order_id": order} for order in orders])
        await rig.calls("cancel", 5)
        await rig.stop()  # in time, or it raises
        before = await rig.calls("cancel")
        named = {order for call in before for order in call["ids"]}
        assert 0 < len(named) < len(orders)
        taken = [line.split(b" ")[1] for line in (await command(rig.client, "HGETALL", LANE.key("state"))).values()]
        assert set(taken) == {b"0"}, "something is left in a worker's hands"


async def test_a_settlement_whose_round_failed_is_made_again(redis_url: str) -> None:
    """The link to Redis passes nothing while the venue's answer arrives, and then breaks: the answer is not lost."""
    link = Link(int(redis_url.rsplit(":", 1)[1].partition("/")[0]))
    await link.open()
    async with desk(redis_url, workers=0, latency_after_ms=[300, 300]) as rig:
        rig.start("w1", CANCELQ_REDIS_URL=f"redis://127.0.0.1:{link.port}/0")
        id_ = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        await rig.calls("cancel")
        link.blackhole = True
        lost = link.lost_bytes

        async def settlement_lost() -> bool:
            return link.lost_bytes >= lost + 600  # nothing else of an idle desk is as large as that

        assert await until(settlement_lost, 10)
        link.heal()
        link.reset()
        event = await rig.final(id_)
        assert event.status is Status.cancelled
        assert event.answered_us, "the answer to the cancel is not on record"
        assert [e.status for e in await rig.of(id_)] == [Status.accepted, Status.cancelled]
    await link.close()


async def test_a_settlement_that_redis_refuses_is_made_again(redis_server: RedisServer) -> None:
    """The server has too few replicas while the venue's answer arrives: the answer is not lost."""
    async with desk(redis_server.url, latency_after_ms=[300, 300]) as rig:
        id_ = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        (call,) = await rig.calls("cancel")
        await command(rig.client, "CONFIG", "SET", "min-replicas-to-write", "1")
        answered_ms = int(call["at_us"]) // 1000 + 300

        async def refused() -> bool:
            refusals: dict[str, dict[str, int]] = await rig.client.info("errorstats")
            known = refusals.get("errorstat_NOREPLICAS", {"count": 0})["count"]
            return time.time_ns() // 1_000_000 > answered_ms + 300 and known > 0

        assert await until(refused, 10)
        await command(rig.client, "CONFIG", "SET", "min-replicas-to-write", "0")
        event = await rig.final(id_)
        assert (event.status, event.attempt) == (Status.cancelled, 1)
        assert event.answered_us, "the answer to the cancel is not on record"
        assert [e.status for e in await rig.of(id_)] == [Status.accepted, Status.cancelled]


async def test_while_redis_cannot_be_reached_nothing_is_sent(redis_url: str) -> None:
    """What was granted before may still leave within its send-by time; then the venue hears nothing, cancels or looks,
    until Redis is back, and everything gets its outcome."""
    link = Link(int(redis_url.rsplit(":", 1)[1].partition("/")[0]))
    await link.open()
    async with desk(redis_url, workers=0) as rig:
        rig.start("w1", CANCELQ_REDIS_URL=f"redis://127.0.0.1:{link.port}/0")
        ids = await rig.send_all([{"symbol": "BTCUSDT", "order_id": rig.order()} for _ in range(1200)])
        await rig.calls("cancel", 3)
        down_us = time.time_ns() // 1000
        link.down = True
        link.reset()

        async def tried_often() -> bool:
            return link.turned_away >= 8 and time.time_ns() // 1000 - down_us > 2_000_000

        assert await until(tried_often, 20)
        up_us = time.time_ns() // 1000
        late = [
            call["endpoint"]
            for call in rig.simulator.calls().entries
            if down_us + SEND_BY_MS * 1000 + 300_000 < call["at_us"] < up_us
        ]
        assert late == []
        link.heal()
        finals = await rig.finals(ids)
        assert {event.status for event in finals.values()} == {Status.cancelled}
    await link.close()


async def test_the_times_of_a_call_are_by_redis_clock_and_not_by_the_venues(redis_url: str) -> None:
    ahead_us = 5_000_000
    async with hand(redis_url) as one:
        await one.know_clocks()
        call = await one.call(asked_ms_ago=-30_000)
        clock, now_ns = one.parts.venue_clock, monotonic_ns()
        clock.learn(now_ns, now_ns, clock.at_us(now_ns) + ahead_us)
        (move,) = (await one.carrier.carry(call)).settlement.works
        assert move.event
        sent_us, answered_us = int(move.event["sent_us"]), int(move.event["answered_us"])
        assert call.batch.taken_us <= sent_us <= answered_us
        assert answered_us < await one.parts.ledger.arrive(0) + ahead_us // 2


@pytest.mark.parametrize("may", [1, 0])
async def test_a_sweep_that_only_counts_names_no_order(redis_url: str, may: int) -> None:
    """Within the gap after its cancels."""
    async with hand(redis_url) as one:
        await one.know_clocks()
        order_id = one.rig.order(client_id="mm-1")
        call = await one.call(asked_ms_ago=-30_000, scope="symbol", client_prefix="mm-")
        call.batch.works[0].before.notes["may"] = may
        (move,) = (await one.carrier.carry(call)).settlement.works
        assert isinstance(move, Move)
        named = [row["id"] for row in move.state.notes["sweep"].get("todo", [])]
        assert named == [order_id] * may


@pytest.mark.parametrize("known", [True, False], ids=["clocks are known", "clocks were never read"])
async def test_an_order_that_may_be_newer_by_the_doubt_of_the_clocks_is_not_swept(redis_url: str, known: bool) -> None:
    async with hand(redis_url) as one:
        if known:
            await one.know_clocks()
        call = await one.call(asked_ms_ago=-30_000, scope="symbol", client_prefix="mm-")
        asked_ms = int(call.batch.works[0].record["queued_us"]) // 1000
        order_id = one.rig.order(client_id="mm-1", created_ms=asked_ms - 500)
        (move,) = (await one.carrier.carry(call)).settlement.works
        assert isinstance(move, Move)
        named = [row["id"] for row in move.state.notes["sweep"].get("todo", [])]
        assert named == [order_id] * known


@pytest.mark.parametrize("known", [True, False], ids=["the venue told its time", "it did not"])
async def test_until_the_venue_told_its_time_no_order_is_old_enough_to_be_swept(redis_url: str, known: bool) -> None:
    """Its own machine's clock may be off by hours."""
    async with hand(redis_url) as one:
        if known:
            await one.know_clocks()
        bound_ms = time.time_ns() // 1_000_000 - 60_000
        call = await one.call(asked_ms_ago=-30_000, scope="symbol", older_than_ms=str(bound_ms))
        older = one.rig.order(created_ms=bound_ms - 3_600_000)
        one.rig.order(created_ms=bound_ms)
        (move,) = (await one.carrier.carry(call)).settlement.works
        assert isinstance(move, Move)
        assert [row["id"] for row in move.state.notes["sweep"].get("todo", [])] == [older] * known


async def test_an_order_placed_within_the_clocks_doubt_of_a_sweep_is_left_alone(redis_url: str) -> None:
    """On either side: an order that is newer than the sweep is the strategy's next one."""
    async with hand(redis_url) as one:
        await one.know_clocks()
        venue_clock, now_ns = RemoteClock(1_000), monotonic_ns()
        venue_clock.learn(now_ns - 400_000_000, now_ns, time.time_ns() // 1000 - 200_000)
        assert 190_000 < venue_clock.uncertainty_us < 220_000
        call = await one.call(scope="symbol", client_prefix="mm")
        asked_ms = int(call.batch.works[0].record["queued_us"]) // 1000
        placed = {
            away_ms: one.rig.order(created_ms=asked_ms + away_ms, client_id=f"mm{away_ms}")
            for away_ms in (-60_000, -120, -5, 5, 120)
        }
        carrier = Carrier(replace(one.parts, venue_clock=venue_clock), one.gate)
        (move,) = (await carrier.carry(call)).settlement.works
        assert isinstance(move, Move)
        assert [row["id"] for row in move.state.notes["sweep"]["todo"]] == [placed[-60_000]]


async def test_a_sweep_that_finds_orders_within_the_clocks_doubt_has_the_venues_time_read_again(redis_url: str) -> None:
    """Known better, it tells how old they are."""
    jobs: list[Coroutine[object, object, None]] = []
    async with hand(redis_url) as one:
        await one.know_clocks()
        venue_clock, now_ns = RemoteClock(1_000), monotonic_ns()
        venue_clock.learn(now_ns - 20_000_000_000, now_ns, time.time_ns() // 1000 - 10_000_000)
        parts = replace(one.parts, venue_clock=venue_clock)
        carrier = Carrier(parts, Gate(parts, jobs.append))
        call = await one.call(scope="symbol", client_prefix="mm")
        asked_ms = int(call.batch.works[0].record["queued_us"]) // 1000
        placed = one.rig.order(created_ms=asked_ms - 9_000, client_id="mm1")
        swept = []
        for _ in range(2):
            (move,) = (await carrier.carry(replace(call, back_ns=monotonic_ns()))).settlement.works
            assert isinstance(move, Move)
            swept.append([row["id"] for row in move.state.notes["sweep"].get("todo", [])])
            for job in jobs:
                await job
            jobs.clear()
        assert swept == [[], [placed]]


@pytest.mark.parametrize("silent", [True, False])
async def test_a_call_without_an_answer_keeps_its_address_unit_as_such(
    redis_url: str, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The venue may count it later than an answer would have told."""

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ReadTimeout("no answer")

    heard: list[bool] = []
    async with hand(redis_url) as one:
        ended = one.parts.egress.ended

        def hear(ticket: Ticket, at_ns: int, *, answered: bool) -> None:
            heard.append(answered)
            ended(ticket, at_ns, answered=answered)

        monkeypatch.setattr(one.parts.egress, "ended", hear)
        door = Door(one.rig.base_url, verify=False, transport=lambda _: Silent()) if silent else one.parts.cancel_door
        await Carrier(replace(one.parts, cancel_door=door), one.gate).carry(await one.call())
        assert heard == [not silent]


async def test_a_connection_is_waited_for_no_longer_than_the_call_may_wait(redis_url: str) -> None:
    waited_s: list[float] = []

    class Unreachable(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            waited_s.append(request.extensions["timeout"]["connect"])
            raise httpx.ConnectTimeout("no connection")

    async with hand(redis_url) as one:
        door = Door(one.rig.base_url, verify=False, transport=lambda _: Unreachable())
        carrier = Carrier(replace(one.parts, cancel_door=door), one.gate)
        call = await one.call(asked_ms_ago=SEND_BY_MS - 200)
        outcome = await carrier.carry(call)
        assert outcome.unsent
        assert len(waited_s) == 1
        assert 0 < waited_s[0] <= 0.2


async def test_a_batch_that_is_refused_in_part_counts_as_refused(redis_url: str) -> None:
    """The margin is widened, and the bucket opened by one call alone."""
    orders: list[str] = []

    def answer(_: str) -> bytes:
        done = {"successList": [{"orderId": orders[0], "clientOid": ""}]}
        refused = {"orderId": orders[1], "clientOid": "", "errorMsg": "too many requests", "errorCode": "429"}
        return orjson.dumps({"code": "00000", "msg": "success", "data": {**done, "failureList": [refused]}})

    async with (
        answering(200, answer) as base_url,
        hand(redis_url, CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL=base_url) as one,
    ):
        orders += [one.rig.order() for _ in range(2)]
        call = await one.call_for([{"order_id": order} for order in orders], asked_ms_ago=-30_000)
        settlement = (await one.carrier.carry(call)).settlement
        assert settlement.permit
        assert settlement.permit.how == "r"
        assert settlement.sent, "one of them was: until the venue's second is over neither is named again"
        assert set(settlement.order_keys) == {f"order:i:{order}" for order in orders}
        done, refused = settlement.works
        assert isinstance(done, Move)
        assert isinstance(refused, Move)
        assert (done.state.attempts, refused.state.attempts) == (1, 0)


async def six_entries(one: Hand) -> tuple[list[str], list[RawEntry], LaneServer]:
    """Their ids, the page that holds them all, and an open lane that has read none of it."""
    ids = [await one.inbox.add(symbol="BTCUSDT", order_id=one.rig.order()) for _ in range(6)]
    page = await one.inbox.read()
    lane = LaneServer(one.parts, suspended=lambda: False)
    await lane.open()
    return ids, page, lane


async def none_is_lost(one: Hand, lane: LaneServer, ids: list[str]) -> None:
    """Served from here on, every one of them is cancelled."""
    async with served(lane):
        finals = await one.rig.finals(ids, within_s=15)
    assert {event.status for event in finals.values()} == {Status.cancelled}


async def test_entries_behind_the_page_that_another_worker_admitted_first_are_not_passed_by(redis_url: str) -> None:
    """This one had read a longer page."""
    async with hand(redis_url) as one:
        ids, page, lane = await six_entries(one)
        lane.deliver("0-0", page[:5])
        await one.inbox.admit(page[:2])
        await none_is_lost(one, lane, ids)


async def test_a_page_that_was_read_after_another_entry_is_not_taken(redis_url: str) -> None:
    """The lane stands elsewhere by now: what lies between would be passed by."""
    async with hand(redis_url) as one:
        ids, page, lane = await six_entries(one)
        lane.deliver(page[2][0], page[3:])
        await none_is_lost(one, lane, ids)


async def test_what_was_admitted_ahead_is_forgotten_once_the_cursor_has_passed_it(redis_url: str) -> None:
    """Only so many may be ahead at a time."""
    async with hand(redis_url) as one:
        ids, page, lane = await six_entries(one)
        await one.inbox.overtake(page[2:4])
        lane._ahead.overtaken = {entry_id for entry_id, _ in page[2:4]}
        async with served(lane):
            await one.rig.finals(ids, within_s=15)
        assert lane._ahead.overtaken == set()


async def test_what_was_admitted_ahead_is_not_passed_by_where_the_server_lost_it(redis_url: str) -> None:
    """A server that took over before it had heard of it knows the entries, and nothing else of them."""
    async with hand(redis_url) as one:
        ids, page, lane = await six_entries(one)
        lane._ahead.overtaken = {entry_id for entry_id, _ in page[2:4]}
        await none_is_lost(one, lane, ids)


async def test_entries_before_a_page_are_not_passed_by_where_the_server_lost_what_it_had_last(redis_url: str) -> None:
    """The second watcher asks for the cursor before it admits its page. It stands where it was before that loss."""
    async with hand(redis_url) as one:
        ids, page, lane = await six_entries(one)
        await one.inbox.admit(page[:2])
        lane.cursor, lane.head_start.us = page[3][0], 1_000
        lane.deliver(lane.cursor, page[4:])
        await lane._let_first_go()
        await none_is_lost(one, lane, ids)


async def test_a_page_that_was_read_while_redis_was_away_is_dropped(redis_url: str) -> None:
    """The server that is back may have lost what lay before it."""

    class Away(RedisLedger):
        """Cut off once; while it is asked anew where the lane stands, the watcher delivers a page of before."""

        cut = True

        async def round(self, wanted: RoundRequest) -> Round:
            if self.cut:
                raise RedisConnectionError("away")
            return await super().round(wanted)

        async def open(self) -> str:
            if lanes:
                lanes[0].deliver(lanes[0].cursor, page[4:])
                self.cut = False
            return await super().open()

    async with hand(redis_url) as one:
        ids, page, _ = await six_entries(one)
        lanes: list[LaneServer] = []
        lane = LaneServer(replace(one.parts, ledger=Away(one.inbox.client, one.parts.plan)), suspended=lambda: False)
        await lane.open()
        lane.cursor = page[3][0]
        lanes.append(lane)
        await none_is_lost(one, lane, ids)


async def test_what_is_granted_as_the_servers_clock_goes_ahead_is_given_back(redis_url: str) -> None:
    """Its permit may have become free by that step alone."""
    step_us, granted = 200_000, list[str]()

    class Stepping(RedisLedger):
        """Of a server whose clock goes ahead before the first grant."""

        async def round(self, wanted: RoundRequest) -> Round:
            reply = await super().round(wanted)
            taken = [one for one in reply.taken if isinstance(one, Taken)]
            granted.extend(one.batch.id for one in taken if one.batch)
            if granted:
                reply.taken = [replace(one, wall_us=one.wall_us + step_us) for one in taken]
            return reply

    async with hand(redis_url) as one:
        ledger = Stepping(one.inbox.client, one.parts.plan)
        lane = LaneServer(replace(one.parts, ledger=ledger), suspended=lambda: False)
        await lane.open()
        async with served(lane):
            event = await one.rig.final(await one.rig.send(symbol="BTCUSDT", order_id=one.rig.order()))
        assert (event.status, event.attempt) == (Status.cancelled, 1)
        assert event.batch_id in granted[1:], "the first grant was sent"
        assert one.cancels == 1
        assert lane._free == dict.fromkeys(Stage, SLOTS), "what was given back holds no connection"


async def test_lanes_that_begin_together_wait_once_for_a_venue_that_does_not_tell_its_time(redis_url: str) -> None:
    async with hand(redis_url) as one:
        one.rig.fault("hang", endpoint="time", count=None)
        await asyncio.gather(*(one.gate.know_venue_time() for _ in range(4)))
        assert len(await one.rig.calls("time")) == 1
        one.rig.simulator.core.faults.clear()
        await one.gate.know_venue_time()
        assert one.parts.venue_clock.known
