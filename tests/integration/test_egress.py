"""What a venue counts per address: whatever several processes do, no window sees more, and nearly all of it is used."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from cancelq_worker.egress import Egress, Reservation, Shares, Ticket
from cancelq_worker.egress_stock import LEAST, LONGEST_CALL_US, STOCK, UNIT_LIVES_NS, URGENT_STOCK
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.trips import command, connect
from cancelq_worker.venues.port import Bucket
from ops.chaos.world import until
from tests.servers import KINDS

pytestmark = pytest.mark.one_server

WINDOW_US = 500_000
UNITS = 40
RUN_S = 3.0
SLOTS = 4


async def calls(egress: Egress, rng: random.Random, until: float, arrived: list[int]) -> None:
    """One connection's calls, as fast as units allow; each arrives somewhere between its start and its end."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        reserved = egress.reserve()
        if not reserved.covers(("ip",)):
            egress.release(reserved)
            await asyncio.sleep(0.002)
            continue
        if rng.random() < 0.1:  # nothing to send after all
            egress.release(reserved)
            continue
        ticket = egress.use(reserved, ("ip",))
        if rng.random() < 0.05:  # too late to send
            egress.unuse(ticket)
            continue
        await asyncio.sleep(rng.uniform(0.001, 0.01))
        arrived.append(time.monotonic_ns() // 1000)
        await asyncio.sleep(rng.uniform(0.001, 0.02))
        egress.ended(ticket, time.monotonic_ns(), answered=rng.random() < 0.99)


async def keep_ready(*egresses: Egress) -> None:
    """Processes without anything to send look after their stocks all the same, more often than an engine does."""
    while True:
        for egress in egresses:
            egress.keep_ready()
        await asyncio.sleep(0.05)


async def test_no_window_sees_more_than_the_limit_and_most_of_it_is_used(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    buckets = (Bucket("ip", UNITS, WINDOW_US), Bucket("other", 1000, WINDOW_US))
    fleet = [Egress(client, "here", buckets) for _ in range(3)]
    rng, arrived = random.Random(5), list[int]()
    try:
        await asyncio.gather(*(egress.fill() for egress in fleet))
        until = asyncio.get_running_loop().time() + RUN_S
        await asyncio.gather(*(calls(egress, rng, until, arrived) for egress in fleet for _ in range(SLOTS)))
        await asyncio.gather(*(egress.fill() for egress in fleet))
    finally:
        await client.aclose()
    arrived.sort()
    spans = [later - earlier for earlier, later in zip(arrived, arrived[UNITS:], strict=False)]
    assert min(spans) >= WINDOW_US
    best = UNITS * RUN_S * 1_000_000 / WINDOW_US
    assert len(arrived) >= 0.7 * best


async def test_a_hold_closes_the_address_for_every_process(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    one, other = (Egress(client, "here", (Bucket("ip", UNITS, WINDOW_US),)) for _ in range(2))
    try:
        await one.fill()
        await other.fill()
        await one.hold(60_000, "banned")
        assert not one.reserve().covers(("ip",))
        await other.fill()
        while other.reserve().covers(("ip",)):  # what it holds already may still be used
            pass
        await other.fill()
        assert not other.reserve().covers(("ip",))
        assert other.held_ms > 50_000
    finally:
        await client.aclose()


async def test_a_process_with_units_left_soon_hears_that_another_was_refused(redis_url: str) -> None:
    """Whoever goes on with what it holds calls into a ban, and most venues make it longer then."""
    client = connect(redis_url, max_connections=16)
    buckets = (Bucket("ip", 6_000, 60_000_000), Bucket("other", 6_000, 60_000_000))
    one, other = (Egress(client, "here", buckets) for _ in range(2))
    try:
        under_way = await used(other, 2 * STOCK, ("ip", "other"))  # so that its stock is as large as can be
        await other.fill()
        await one.hold(60_000, "banned")
        taken: list[Ticket] = []
        while (reserved := other.reserve()).covers(("ip", "other")):
            taken.append(other.use(reserved, ("ip", "other")))
            await asyncio.sleep(0.02)
        assert other.held_ms > 50_000
        assert len(taken) < STOCK // 4, "most of what it held was left"
        assert not other.reserve().units, "of no bucket"
        assert all(other.is_closed(ticket) for ticket in (*under_way, *taken))
    finally:
        await client.aclose()


def one_answer_is_late(
    monkeypatch: pytest.MonkeyPatch, hear: asyncio.Event | None = None
) -> tuple[asyncio.Event, asyncio.Event]:
    """Set once Redis has answered its first question; to be set for that to arrive. `hear`: to be set for Redis
    to hear that the address is closed."""
    run, answered, go_on = SCRIPTS.run_durably, asyncio.Event(), asyncio.Event()

    async def late(*args: Any) -> Any:
        if hear and args[3][4]:  # a hold
            await hear.wait()
        reply = await run(*args)
        if not answered.is_set():
            answered.set()
            await go_on.wait()
        return reply

    monkeypatch.setattr(SCRIPTS, "run_durably", late)
    return answered, go_on


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told yet"])
async def test_an_answer_from_before_a_refusal_does_not_open_the_address(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    client, hear = connect(redis_url, max_connections=16), asyncio.Event()
    one = Egress(client, "here", (Bucket("ip", 6_000, 60_000_000),))
    try:
        answered, go_on = one_answer_is_late(monkeypatch, hear)
        telling: asyncio.Task[None] | None = None
        if told:  # the question was asked before the refusal
            filling = asyncio.ensure_future(one.fill())
            await answered.wait()
        one.close(60_000)
        telling = asyncio.ensure_future(one.hold(60_000, "banned"))
        await asyncio.sleep(0)
        if told:
            hear.set()
            await telling
        else:  # after it, and Redis has not heard of it
            filling = asyncio.ensure_future(one.fill())
            await answered.wait()
        go_on.set()
        await filling
        assert one.held_ms > 50_000
        assert not one.reserve().units
        hear.set()
        await telling
        await one.fill()
        assert one.held_ms > 50_000
    finally:
        await client.aclose()


async def test_a_shorter_refusal_that_comes_later_does_not_shorten_a_hold(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    one, other = (Egress(client, "here", (Bucket("ip", UNITS, WINDOW_US),)) for _ in range(2))
    try:
        await one.hold(60_000, "banned")
        for process in (one, other):
            process.close(2_000)
            await process.hold(2_000, "too many requests")
            assert process.held_ms > 50_000
        await one.fill()
        assert one.held_ms > 50_000
        hold = await command(client, "HGET", "cancelq:{egress:here}:ip:note", "hold")
        assert hold.endswith(b" banned")
        await other.hold(90_000, "banned again")
        await one.fill()
        assert one.held_ms > 80_000
    finally:
        await client.aclose()


async def test_a_unit_that_nobody_reports_is_out_until_its_call_has_left_the_window(redis_url: str) -> None:
    client, window_us = connect(redis_url, max_connections=16), 60_000_000
    process = Egress(client, "here", (Bucket("ip", 600, window_us),))
    try:
        seconds, micros = await client.time()
        await process.fill()
        used_at_the_latest_us = seconds * 1_000_000 + micros + UNIT_LIVES_NS // 1000
        out, free_at_last_us = "cancelq:{egress:here}:ip", used_at_the_latest_us + LONGEST_CALL_US + window_us
        assert await client.zcard(out) > 0
        assert await client.zcount(out, "-inf", f"({free_at_last_us}") == 0
    finally:
        await client.aclose()


async def test_a_process_that_hardly_calls_holds_little(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    idle, busy = (Egress(client, "here", (Bucket("ip", 600, 5_000_000),)) for _ in range(2))
    try:
        for _ in range(6):
            await idle.fill()
        for _ in range(6):
            for _ in range(64):
                reserved = busy.reserve()
                if reserved.covers(("ip",)):
                    busy.ended(busy.use(reserved, ("ip",)), time.monotonic_ns(), answered=True)
            await busy.fill()
        assert len(idle._stocks["ip"]._fresh) <= 4
        assert len(busy._stocks["ip"]._fresh) >= 16
    finally:
        await client.aclose()


async def test_processes_without_calls_leave_a_scarce_address_to_those_that_have_some(redis_url: str) -> None:
    client, bucket = connect(redis_url, max_connections=32), Bucket("ip", 300, 60_000_000)
    *idle, busy = [Egress(client, "here", (bucket,), urgent_reserve=1) for _ in range(16)]
    tickets: list[Ticket] = []

    def held(egress: Egress) -> int:
        return len(egress._stocks["ip"]._fresh) + len(egress._stocks["ip"]._urgent)

    async def none_held() -> bool:
        return not any(map(held, idle))

    async def ready() -> bool:
        return all(held(egress) == LEAST + URGENT_STOCK for egress in idle[1:])

    await asyncio.gather(*(egress.fill() for egress in (*idle, busy)))
    keeping = asyncio.ensure_future(keep_ready(*idle))
    try:
        assert await ready(), "while there are enough"
        async with asyncio.timeout(20):
            while len(tickets) < 300 - 15 - URGENT_STOCK:  # a twentieth is kept for what is urgent
                await busy.fill()
                while not (reserved := busy.reserve()).only_urgent(("ip",)) and reserved.covers(("ip",)):
                    tickets.append(busy.use(reserved, ("ip",)))
                busy.release(reserved)
            assert await until(none_held, 10)
            # Who has a call all the same waits for the next unit, and no longer.
            came = asyncio.Event()
            reserved = idle[0].reserve(came.set)
            idle[0].wait(idle[0].lacking(reserved), came.set)
            busy.unuse(tickets.pop())
            await busy.leave()
            await came.wait()
            assert idle[0].reserve(came.set).covers(("ip",))
            for ticket in tickets:
                busy.unuse(ticket)
            await busy.leave()
            assert await until(ready, 10)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await client.aclose()


async def test_a_share_of_the_address_is_kept_for_what_is_urgent(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    fleet = [Egress(client, "here", (Bucket("ip", 100, 60_000_000),), urgent_reserve=1) for _ in range(2)]
    taken: dict[bool, int] = {False: 0, True: 0}
    try:
        for _ in range(200):
            for egress in fleet:
                await egress.fill()
                reserved = egress.reserve()
                if reserved.covers(("ip",)):
                    taken[reserved.only_urgent(("ip",))] += 1
                    egress.use(reserved, ("ip",))
        # A twentieth is kept, and of the rest each process may hold a few for a moment.
        assert 80 <= taken[False] <= 95
        assert taken[True] >= 1
        assert sum(taken.values()) <= 100
        assert not fleet[0].reserve().covers(("ip",))
    finally:
        await client.aclose()


async def test_a_bucket_too_small_for_stocks_is_asked_call_by_call(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    buckets = (Bucket("ip", 100, 1_000_000), Bucket("time", 5, 300_000, rare=True))
    fleet = [Egress(client, "here", buckets) for _ in range(3)]
    at: list[int] = []

    async def ask(egress: Egress) -> None:
        ticket = await egress.rarely(("time",))
        assert ticket is not None
        at.append(time.monotonic_ns() // 1000)
        await egress.rare_ended(ticket, time.monotonic_ns(), answered=True)

    try:
        assert fleet[0].reserve().units.keys() <= {"ip"}
        await asyncio.gather(*(ask(fleet[n % 3]) for n in range(12)))
        at.sort()
        assert all(b - a >= 300_000 for a, b in zip(at, at[5:], strict=False))
        ticket = await fleet[0].rarely(("time",))
        assert ticket is not None
        await fleet[0].rare_ended(ticket, None, answered=False)  # not made: the next one may have it
    finally:
        await client.aclose()


async def test_an_address_is_closed_for_longer_each_time_whichever_process_was_refused(redis_url: str) -> None:
    """Where the venue does not say for how long: whoever goes on calling once a second is banned in the end."""
    client = connect(redis_url, max_connections=16)
    one, other = (Egress(client, "here", (Bucket("ip", UNITS, WINDOW_US),)) for _ in range(2))
    note = "cancelq:{egress:here}:ip:note"

    async def goes_alone(process: Egress, *, refused: bool) -> int:
        """For how many ms the address is closed after it."""
        async with asyncio.timeout(10):
            while not (reserved := process.reserve()).covers(("ip",)):
                await process.fill()
        ticket = process.use(reserved, ("ip",))
        process.ended(ticket, time.monotonic_ns(), answered=not refused)
        if refused:
            process.close(1_000)
            await process.hold(1_000, "too many requests", ticket)
            await process.hold(1_000, "too many requests", ticket)  # of one that was under way
            await command(client, "HSET", note, "hold", "1 as if that was over")
        held_ms = process.held_ms
        await one.fill()
        await other.fill()
        return held_ms

    try:
        for process, refused, least_ms in (
            (one, True, 1_000), (other, True, 2_000), (one, True, 4_000), (other, False, 0), (one, True, 1_000)
        ):  # fmt: skip
            assert 0 <= least_ms - await goes_alone(process, refused=refused) < 500
        long_ago_ms = int(time.time() * 1000) - 400_000
        await command(client, "HSET", note, "streak", f"7 {long_ago_ms}")
        assert await goes_alone(other, refused=True) <= 1_000
    finally:
        await client.aclose()


async def test_a_call_that_goes_alone_is_not_waited_for_where_its_process_left(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    one, other = (Egress(client, "here", (Bucket("ip", UNITS, WINDOW_US),)) for _ in range(2))
    try:
        await one.hold(1, "banned")
        while await client.zcard("cancelq:{egress:here}:ip") == 0:
            await one.fill()
        await other.fill()
        assert not other.reserve().covers(("ip",))
        await one.leave()
        assert await client.zcard("cancelq:{egress:here}:ip") == 0
        await other.fill()
        assert other.reserve().covers(("ip",))
    finally:
        await client.aclose()


@pytest.mark.parametrize("idle", [1, 3])
async def test_the_call_that_goes_alone_is_left_to_whoever_has_one(redis_url: str, idle: int) -> None:
    client = connect(redis_url, max_connections=16)
    buckets = (Bucket("group", 2000, 10_000_000), Bucket("endpoint", 300, 10_000_000))
    rest = [Egress(client, "here", buckets, urgent_reserve=1) for _ in range(idle)]
    busy = Egress(client, "here", buckets, urgent_reserve=1)

    await asyncio.gather(*(egress.fill() for egress in (*rest, busy)))
    await busy.hold(200, "banned")
    keeping = asyncio.ensure_future(keep_ready(*rest))
    try:
        async with asyncio.timeout(10):
            while any(egress.held_ms for egress in rest) or not any(egress.look_again_us for egress in rest):
                await rest[0].fill()
            while not (reserved := busy.reserve()).covers(("group", "endpoint")):
                busy.release(reserved)
                await asyncio.sleep(busy.look_again_us / 1e6 or 0.005)
            busy.ended(busy.use(reserved, ("group", "endpoint")), time.monotonic_ns(), answered=True)
            while busy.look_again_us:
                await busy.fill()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await client.aclose()


async def test_that_the_address_is_closed_is_told_again_until_redis_has_heard_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, run, failed = connect(redis_url, max_connections=16), SCRIPTS.run_durably, 0

    async def broken_twice(*args: Any) -> Any:
        nonlocal failed
        if failed < 2:
            failed += 1
            raise RedisConnectionError("the connection broke")
        return await run(*args)

    one, other = (Egress(client, "here", (Bucket("ip", UNITS, WINDOW_US),)) for _ in range(2))
    try:
        await one.fill()
        monkeypatch.setattr(SCRIPTS, "run_durably", broken_twice)
        await one.hold(20_000, "banned")
        assert failed == 2
        assert not one.reserve().covers(("ip",))
        await other.fill()
        assert 15_000 < other.held_ms <= 20_000
    finally:
        await client.aclose()


async def test_time_that_no_process_vouches_for_frees_no_unit(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    buckets = (Bucket("ip", 6_000, 60_000_000),)
    key = "cancelq:{egress:here}:ip"
    try:
        for vouched_us, later_us in ((60_000_000, 0), (1_000_000, 4_000_000), (0, 5_000_000)):
            seconds, micros = await client.time()
            now_us = seconds * 1_000_000 + micros
            await client.delete(key)
            await client.zadd(key, {"soon": now_us + 100, "out": now_us + 30_000_000})
            await client.hset(f"{key}:note", "at", str(now_us - 5_000_000))
            process = Egress(client, "here", buckets, vouched_us=lambda: vouched_us)  # noqa: B023
            await process.fill()
            later = (await client.zscore(key, "out") or 0) - (now_us + 30_000_000 + later_us)
            assert 0 <= later < 2_000_000 * bool(later_us) + 1
            assert (await client.zscore(key, "soon") is not None) is bool(later_us)
            await process.fill()
            assert (await client.zscore(key, "out") or 0) < now_us + 37_000_000, "it comes for the first time once"
    finally:
        await client.aclose()


async def test_a_clock_that_was_set_back_delays_units_by_no_more_than_their_window(redis_url: str) -> None:
    client, out, hour_us = connect(redis_url, max_connections=16), "cancelq:{egress:here}:ip", 3_600_000_000
    process, note = Egress(client, "here", (Bucket("ip", UNITS, WINDOW_US),)), f"{out}:note"
    try:
        await process.fill()
        while (reserved := process.reserve()).covers(("ip",)):
            process.ended(process.use(reserved, ("ip",)), time.monotonic_ns(), answered=True)
            await process.fill()
        await process.hold(200, "banned")
        # As if all that had been written by a clock that was an hour ahead.
        for unit in await command(client, "ZRANGE", out, 0, -1):
            await command(client, "ZINCRBY", out, hour_us, unit)
        at, hold = await command(client, "HMGET", note, "at", "hold")
        later_ms = int(hold.split()[0]) + hour_us // 1000
        await command(client, "HSET", note, "at", int(at) + hour_us, "hold", f"{later_ms} banned")

        async def one_goes_on() -> bool:
            await process.fill()
            return process.reserve().covers(("ip",))

        assert await until(one_goes_on, 20)
    finally:
        await client.aclose()


async def test_units_are_free_later_by_as_much_as_the_clock_went_ahead(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    buckets = (Bucket("ip", 6_000, 60_000_000),)
    one, other = (Egress(client, "here", buckets) for _ in range(2))
    key = "cancelq:{egress:here}:ip"
    try:
        free_us = int(time.time()) * 1_000_000 + 30_000_000
        await client.zadd(key, {f"x{n}": free_us + n for n in range(2_500)})
        await one.fill()
        assert one.reserve().covers(("ip",))
        await one.ahead(300_000)
        for n in (0, 1, 999, 1_000, 1_001, 2_499):
            assert await client.zscore(key, f"x{n}") == free_us + n + 300_000
        await one.ahead(300_000)  # by how much since it began: nothing new
        assert await client.zscore(key, "x0") == free_us + 300_000
        assert not one.reserve().covers(("ip",)), "what it held may stand for one that is not free"
        begun_s = time.monotonic()
        await other.fill()
        assert not other.reserve().covers(("ip",))
        while not other.reserve().covers(("ip",)):
            await other.fill()
        assert time.monotonic() - begun_s > 0.2
        # One that was written by a clock that was set back since closes nothing.
        await client.hset(f"{key}:note", "ahead", str((int(time.time()) + 3_600) * 1_000_000))
        late = Egress(client, "here", buckets)
        await late.fill()
        assert late.reserve().covers(("ip",))
        assert not await client.hexists(f"{key}:note", "ahead")
    finally:
        await client.aclose()


async def test_units_that_were_asked_for_before_the_clock_went_ahead_are_not_used(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their answer was on its way when that was found: they may stand for units that are not free."""
    client = connect(redis_url, max_connections=16)
    one = Egress(client, "here", (Bucket("ip", 6_000, 60_000_000),))
    try:
        answered, go_on = one_answer_is_late(monkeypatch)
        filling = asyncio.ensure_future(one.fill())
        await answered.wait()
        await one.ahead(300_000)
        go_on.set()
        await filling
        assert not one.reserve().covers(("ip",))
    finally:
        await client.aclose()


async def test_however_far_the_clock_went_ahead_the_address_is_closed_for_a_window(redis_url: str) -> None:
    client, window_us = connect(redis_url, max_connections=16), 60_000_000
    one, other = (Egress(client, "here", (Bucket("ip", 6_000, window_us),)) for _ in range(2))
    try:
        await one.ahead(10 * window_us)
        await other.fill()
        assert not other.reserve().covers(("ip",))
    finally:
        await client.aclose()


async def test_that_the_clock_went_ahead_is_told_of_every_bucket_and_again_where_redis_did_not_hear_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: Any) -> Any:
        raise RedisConnectionError("the connection broke")

    client, window_us = connect(redis_url, max_connections=16), 60_000_000
    one = Egress(client, "here", (Bucket("ip", 6_000, window_us), Bucket("time", 5, window_us, rare=True)))
    try:
        with monkeypatch.context() as away:
            away.setattr(SCRIPTS, "run_durably", broken)
            await one.ahead(300_000)
        await one.ahead(300_000)
        for bucket in ("ip", "time"):
            assert await client.hexists(f"cancelq:{{egress:here}}:{bucket}:note", "ahead")
    finally:
        await client.aclose()


async def test_a_call_that_goes_alone_is_not_waited_for_where_its_process_is_gone(redis_url: str) -> None:
    client, key = connect(redis_url, max_connections=16), "cancelq:{egress:here}:ip"
    one = Egress(client, "here", (Bucket("ip", 6_000, 60_000_000),))
    try:
        now_us = int(time.time()) * 1_000_000
        await client.zadd(key, {"7": now_us + 60_000_000})
        await client.hset(f"{key}:note", mapping={"last": "7", "probe": f"7 {now_us - 1}"})
        await one.fill()
        assert one.reserve().covers(("ip",))
    finally:
        await client.aclose()


async def test_where_more_is_in_use_than_there_is_nobody_asks_without_a_pause_for_the_call_that_goes_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a ban for which the settings' limit was lowered."""
    client, run, asked = connect(redis_url, max_connections=16), SCRIPTS.run_durably, list[int]()
    before, lowered = (Egress(client, "here", (Bucket("ip", units, 60_000_000),)) for units in (1_000, 100))

    async def counted(*args: Any) -> Any:
        reply, unconfirmed = await run(*args)
        asked.append(reply[1])
        return reply, unconfirmed

    try:
        over(before, await used(before, 200))
        await before.hold(1, "banned")
        await lowered.fill()
        while lowered.held_ms:
            await lowered.fill()
        monkeypatch.setattr(SCRIPTS, "run_durably", counted)
        for _ in range(20):
            assert not lowered.reserve().covers(("ip",))
            await asyncio.sleep(0)
            if filling := lowered._stocks["ip"]._filling:
                await filling
        assert set(asked) <= {0}
        assert len(asked) < 10
    finally:
        await client.aclose()


async def used(egress: Egress, count: int, buckets: tuple[str, ...] = ("ip",)) -> list[Ticket]:
    """So many calls begin."""
    tickets: list[Ticket] = []
    while len(tickets) < count:
        await egress.fill()
        while len(tickets) < count and (reserved := egress.reserve()).covers(buckets):
            tickets.append(egress.use(reserved, buckets))
    return tickets


def over(egress: Egress, tickets: list[Ticket]) -> None:
    for ticket in tickets:
        egress.ended(ticket, time.monotonic_ns(), answered=True)


@pytest.mark.parametrize("all_is_lost", [False, True], ids=["last writes", "everything"])
async def test_a_server_that_lost_its_last_writes_hands_out_nothing_that_others_used(
    server_kind: str, tmp_path: Path, all_is_lost: bool
) -> None:
    """It comes back from a snapshot: whoever is there tells again what its window holds, and what is under way."""
    server = KINDS[server_kind](tmp_path, durable=False)
    server.start()
    client, out = connect(server.url, max_connections=16), "cancelq:{egress:here}:ip"
    one, other, idle = (Egress(client, "here", (Bucket("ip", 200, 30_000_000),)) for _ in range(3))
    try:
        await idle.fill()
        over(one, await used(one, 20))
        await one.fill()
        if not all_is_lost:
            await command(client, "SAVE")
        over(one, await used(one, 25))
        await one.fill()  # tells of them, so that it has nothing more to tell of its own accord
        under_way = await used(other, 30)
        server.kill9()
        server.start()

        async def nothing_for(egress: Egress) -> bool:
            await egress.fill()
            return not egress.reserve().covers(("ip",))

        assert await until(lambda: nothing_for(idle), 20), "as long as others may not have told what they used"
        await one.fill()
        await other.fill()
        assert await nothing_for(idle)
        await client.hset(f"{out}:note", "ahead", "1")  # its time is over
        taken = len(await used(idle, 100))
        assert await client.zcard(out) >= 20 + 25 + 30 + taken
        over(other, under_way)
        await other.fill()
        assert await client.zcard(out) >= 20 + 25 + 30 + taken
    finally:
        await client.aclose()
        server.stop()


async def test_a_server_whose_data_were_dropped_hands_out_nothing_that_others_used(redis_url: str) -> None:
    """It goes on as the same server: nobody's connection breaks."""
    client, out = connect(redis_url, max_connections=16), "cancelq:{egress:here}:ip"
    one, other, new = (Egress(client, "here", (Bucket("ip", 100, 30_000_000),)) for _ in range(3))
    try:
        await other.fill()
        over(one, await used(one, 40))
        await one.fill()
        under_way = await used(other, 30)
        await client.flushall()
        for egress in (one, other, new):
            await egress.fill()
            await egress.fill()
            assert not egress.reserve().covers(("ip",)), "as long as others may not have told what they used"
        assert await client.zcard(out) == 40 + len(under_way)
        await client.hset(f"{out}:note", "ahead", "1")  # its time is over
        await new.fill()
        assert new.reserve().covers(("ip",))
    finally:
        await client.aclose()


async def test_a_server_that_lost_a_ban_is_told_it_again(server_kind: str, tmp_path: Path) -> None:
    server = KINDS[server_kind](tmp_path, durable=False)
    server.start()
    client = connect(server.url, max_connections=16)
    buckets = (Bucket("ip", 6_000, 60_000_000), Bucket("other", 6_000, 60_000_000))
    told, heard, new = (Egress(client, "here", buckets) for _ in range(3))
    try:
        await heard.fill()
        await told.hold(600_000, "banned")
        await heard.fill()
        server.kill9()
        server.start()

        async def closed(egress: Egress) -> bool:
            await egress.fill()
            return egress.held_ms > 590_000

        assert await until(lambda: closed(heard), 20)
        await new.fill()
        assert new.held_ms > 590_000
        assert not new.reserve().units
    finally:
        await client.aclose()
        server.stop()


async def test_what_was_set_aside_when_the_address_was_closed_is_of_no_use_later(redis_url: str) -> None:
    """A round was under way with it, and came to no call."""
    client = connect(redis_url, max_connections=16)
    one = Egress(client, "here", (Bucket("ip", 6_000, 60_000_000),))
    try:
        await one.fill()
        reserved = one.reserve()
        assert reserved.covers(("ip",))
        one.close(60_000)
        one.release(reserved)
        assert not one.reserve().units
    finally:
        await client.aclose()


@pytest.mark.parametrize("ahead", [0, 5_000_000_000], ids=["over", "by a faster clock"])
async def test_a_leap_that_is_noticed_meanwhile_does_not_cut_the_wait_for_others_short(
    redis_url: str, ahead: int
) -> None:
    """A server took over whose clock is another, and which may have lost its last writes."""
    client, note = connect(redis_url, max_connections=16), "cancelq:{egress:here}:ip:note"
    one = Egress(client, "here", (Bucket("ip", 6_000, 60_000_000),))
    try:
        await one.fill()
        await client.hset(note, mapping={"server": "0" * 40, "ahead": str(int(time.time() * 1e6) + ahead)})
        await one.fill()
        await one.ahead(300)
        shut_us = int(await client.hget(note, "ahead") or 0) - int(time.time() * 1e6)
        assert 1_000_000 < shut_us <= 3_000_000
        await one.fill()
        assert not one.reserve().units
    finally:
        await client.aclose()


async def test_a_server_that_others_know_already_is_told_by_who_comes_later(redis_url: str) -> None:
    """A process that stood still while the server was replaced, and for a while after."""
    client, out = connect(redis_url, max_connections=16), "cancelq:{egress:here}:ip"
    late, fresh = (Egress(client, "here", (Bucket("ip", 200, 30_000_000),)) for _ in range(2))
    try:
        over(late, await used(late, 40))
        await late.fill()
        late._stocks["ip"]._server = b"0" * 40  # that was another one
        await client.delete(out, f"{out}:note")
        begun = await used(fresh, 50)
        await late.fill()
        assert await client.zcard(out) >= 90
        await fresh.fill()
        while (reserved := fresh.reserve()).covers(("ip",)):  # what it holds already may still be used
            begun.append(fresh.use(reserved, ("ip",)))
        await fresh.fill()
        assert not fresh.reserve().covers(("ip",)), "others may come later, too"
        assert await client.zcard(out) >= 40 + len(begun)
    finally:
        await client.aclose()


def test_routes_without_a_share_are_told_apart_from_those_for_urgent_calls() -> None:
    shares = Shares({"cancel": ("ip",), "look": ("ip", "group"), "time": ()})
    both = {"ip": (1, 0), "group": (1, 0)}
    for _ in range(2):
        assert shares.without(Reservation(both)) == ((), ())
        assert shares.without(Reservation(both, {"ip"})) == ((), ("cancel", "look"))
        assert shares.without(Reservation(both, {"group"})) == ((), ("look",))
        assert shares.without(Reservation({"ip": (2, 0)})) == (("look",), ())
        assert shares.without(Reservation({"group": (2, 0)}, {"group"})) == (("cancel", "look"), ("look",))
