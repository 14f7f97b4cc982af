"""The venue's budget: sized by its own word, held after a refusal for the whole fleet, opened by one call alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from cancelq.contract import Status
from cancelq_worker import operate
from cancelq_worker.egress import Egress, Ticket
from cancelq_worker.trips import command, connect
from cancelq_worker.venues.port import Bucket
from tests.integration.rig import Rig, desk

BATCH = "batch-cancel-order"
EGRESS = "test"


async def burst(rig: Rig, orders: int, **fields: str) -> list[str]:
    """Asks for the cancels of that many fresh orders at once."""
    symbol = rig.spelt("BTC", "USDT")
    return await rig.send_all([{"symbol": symbol, "order_id": rig.order(), **fields} for _ in range(orders)])


def worst(rig: Rig, bucket: str) -> int:
    """The most units of a bucket that arrived within one of its windows."""
    return max(int(row["worst_arrived"]) for row in rig.simulator.rates() if row["bucket"] == bucket)


async def test_after_a_refusal_one_call_goes_alone_and_then_all(redis_url: str) -> None:
    env = {"CANCELQ_URGENT_RESERVE": "0"}
    async with desk(redis_url, workers=3, env=env, latency_before_ms=(20, 20), latency_after_ms=(20, 20)) as rig:
        rig.fault("http_429", endpoint=BATCH, count=1)
        finals = await rig.finals(await burst(rig, 1500), within_s=60)
        assert {(e.status, e.attempt) for e in finals.values()} == {(Status.cancelled, 1)}
        calls = [c for c in rig.simulator.calls().entries if str(c["endpoint"]).endswith(BATCH)]
        refused = next(c for c in calls if c["fault"])
        # Others were granted before its answer, and may arrive as late as this process is slow.
        closed_us = min(e.settled_us or 0 for e in await rig.events() if e.status is Status.retrying)
        granted_us = {e.order_id: e.taken_us or 0 for e in finals.values()}
        after = [c for c in calls if c is not refused and granted_us[c["ids"][0]] > closed_us]
        first, second = sorted(int(c["at_us"]) for c in after)[:2]
        assert first - int(refused["at_us"]) >= 1_000_000
        assert second - first >= 40_000  # its answer takes that long
        assert worst(rig, f"bitget/{BATCH}") <= 10


async def test_a_permit_without_an_answer_is_out_for_a_second_longer_than_the_window(redis_url: str) -> None:
    """Nobody knows when the call arrived, only that its connection was closed."""
    async with desk(redis_url) as rig:
        await rig.ready()
        rig.fault("drop", endpoint="cancel-order", count=None)
        id_ = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        async with asyncio.timeout(10):
            while Status.retrying not in [event.status for event in await rig.of(id_)]:
                await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", rig.lane.results, "$")
        taken_us = int(await command(rig.client, "HGET", rig.lane.key("rtt:cancel-order"), "last"))
        permits = await rig.client.zrange(rig.lane.key("permits:cancel-order"), -1, -1)
        free_us = await rig.client.zscore(rig.lane.key("permits:cancel-order"), cast("bytes", permits[0]))
        assert free_us
        assert free_us >= taken_us + 2_000_000


def after_a_refusal(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the calls that were granted after one of them was refused: what that one named is next, so they name it
    again. What was granted before may arrive as late as this process is slow."""
    named: set[str] = set()
    found = []
    for call in calls:
        if named.intersection(call["ids"]):
            found.append(call)
        named.update(call["ids"])
    return found


async def test_a_probe_that_is_refused_leaves_the_bucket_closed(redis_url: str) -> None:
    async with desk(redis_url, workers=2) as rig:
        rig.fault("http_429", endpoint=BATCH, count=None)
        ids = await burst(rig, 1000)
        first = int((await rig.calls(BATCH))[0]["at_us"])
        while len(after_a_refusal(await rig.calls(BATCH))) < 2:
            await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.inbox, "$")
        rig.simulator.core.faults.clear()
        finals = await rig.finals(ids, within_s=60)
        assert {(e.status, e.attempt) for e in finals.values()} == {(Status.cancelled, 1)}
        probes = [int(c["at_us"]) for c in after_a_refusal(await rig.calls(BATCH)) if c["fault"]]
        assert len(probes) == 2
        assert probes[0] - first >= 1_000_000
        assert probes[1] - probes[0] >= 2_000_000


async def test_refusals_are_counted_for_the_operator_and_widen_the_margin(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        rig.fault("http_429", endpoint="cancel-plan-order", count=2)
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order(kind="plan"), scope="stop"))
        stats = await cast("Any", rig.client.hgetall(rig.lane.key("rtt:cancel-plan-order")))
        assert int(stats[b"refusals"]) == 2
        assert abs(int(stats[b"refused_ms"]) - time.time() * 1000) < 30_000
        assert int(stats[b"guard"]) == 8000
        assert b"probe" not in stats


async def test_what_of_a_sweeps_batch_goes_over_the_limit_closes_it_and_is_counted(redis_url: str) -> None:
    """The rest of the batch was taken; all the same somebody else uses the key, or the limit is a smaller one."""
    async with desk(redis_url, venue="bybit", limits={"bybit/cancel-batch": 6}) as rig:
        ids = [rig.order(client_id=f"mm-{n}") for n in range(20)]
        event = await rig.final(await rig.send(scope="account", client_prefix="mm-"))
        assert (event.status, event.open_orders) == (Status.cancelled, 0)
        assert {rig.truth(i)["state"] for i in ids} == {"cancelled"}
        stats = await cast("Any", rig.client.hgetall(rig.lane.key("rtt:cancel-batch")))
        assert int(stats[b"refusals"]) >= 1
        assert int(stats[b"guard"]) > 2000


async def test_a_sweep_keeps_to_a_limit_that_is_smaller_than_its_batches(redis_url: str) -> None:
    """The venue tells it with the first answer."""
    async with desk(redis_url, venue="bybit", limits={"bybit/cancel-batch": 6}) as rig:
        ids = [rig.order(client_id=f"mm-{n}") for n in range(60)]
        event = await rig.final(await rig.send(scope="account", client_prefix="mm-"), within_s=60)
        assert (event.status, event.open_orders) == (Status.cancelled, 0)
        assert {rig.truth(i)["state"] for i in ids} == {"cancelled"}
        sizes = [len(call["ids"]) for call in await rig.calls("cancel-batch")]
        assert max(sizes[1:]) <= 6


async def test_a_sweeps_batch_is_no_larger_than_the_worker_before_took_permits_for(redis_url: str) -> None:
    """The account's batches were made larger while a sweep waited for its next call."""
    size = "CANCELQ_ACCOUNTS__BYBIT__MAIN__BATCH_SIZE"
    async with desk(redis_url, venue="bybit", workers=0) as rig:
        rig.start("w1", **{size: "3"})
        ids = [rig.order(client_id=f"mm-{n}") for n in range(40)]
        sweep = await rig.send(scope="account", client_prefix="mm-")
        await rig.calls("cancel-batch")
        await rig.stop()
        before = len(await rig.calls("cancel-batch"))
        rig.start("w2", **{size: "10"})
        event = await rig.final(sweep)
        assert (event.status, event.open_orders) == (Status.cancelled, 0)
        assert {rig.truth(i)["state"] for i in ids} == {"cancelled"}
        assert len((await rig.calls("cancel-batch"))[before]["ids"]) == 3
        named = [order for call in await rig.calls("cancel") for order in call["ids"]]
        assert sorted(named) == sorted(ids), "an order is named twice, or in no call"


async def test_a_larger_limit_that_bybit_tells_is_used_and_never_exceeded(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit", workers=2, limits={"bybit/cancel-batch": 40, "bybit/cancel": 40}) as rig:
        finals = await rig.finals(await burst(rig, 400), within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert rig.refused() == 0
        assert 25 < worst(rig, "bybit/cancel-batch") <= 40
        (status,) = await operate.status(rig.client, [rig.lane])
        assert status.budget["cancel-batch"][1] == 40


@pytest.mark.parametrize(
    "when",
    [["told_us", "1", "told_wall", "now"], ["told_us", "4000000000000000", "told_wall", "1"], []],
    ids=["long ago", "long ago, and nobody was there meanwhile", "by a version that did not say when"],
)
async def test_a_larger_limit_that_was_told_long_ago_is_not_believed(redis_url: str, when: list[str]) -> None:
    """The account has lost it since, or the alias has another account's key."""
    when = [str(time.time_ns() // 1_000) if word == "now" else word for word in when]
    async with desk(redis_url, venue="bybit", workers=2, latency_before_ms=(20, 20), latency_after_ms=(20, 20)) as rig:
        await rig.ready()
        for bucket in ("cancel-batch", "cancel"):
            await command(rig.client, "HSET", rig.lane.key(f"rtt:{bucket}"), "units", "200", *when)
        finals = await rig.finals(await burst(rig, 100), within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert rig.refused() == 0
        assert worst(rig, "bybit/cancel-batch") <= 20


async def test_a_smaller_limit_that_bybit_tells_is_kept(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit", limits={"bybit/cancel": 5}) as rig:
        # One call teaches the size, the burst keeps to it.
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order(kind="plan"), scope="stop"))
        ids = [await rig.send(symbol="BTCUSDT", order_id=rig.order(kind="plan"), scope="stop") for _ in range(12)]
        finals = await rig.finals(ids, within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert rig.refused() == 0
        assert worst(rig, "bybit/cancel") in (4, 5)  # one is kept for what is urgent


async def test_a_limit_of_the_settings_is_never_exceeded_whatever_the_venue_tells(redis_url: str) -> None:
    env = {"CANCELQ_ACCOUNTS__BYBIT__MAIN__LIMITS": '{"cancel-batch": 10, "cancel": 5}'}
    async with desk(redis_url, venue="bybit", env=env) as rig:
        finals = await rig.finals(await burst(rig, 100), within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert worst(rig, "bybit/cancel-batch") <= 10
        assert worst(rig, "bybit/cancel") <= 5


async def test_a_limit_of_the_settings_is_kept_also_where_a_worker_without_it_has_noted_the_venues(
    redis_url: str,
) -> None:
    env = {"CANCELQ_ACCOUNTS__BYBIT__MAIN__LIMITS": '{"cancel-batch": 10, "cancel": 5}'}
    async with desk(redis_url, venue="bybit", env=env, latency_before_ms=(200, 200)) as rig:
        await rig.ready()
        for bucket in ("cancel-batch", "cancel"):
            await command(rig.client, "HSET", rig.lane.key(f"rtt:{bucket}"), "units", "20", "told_us", str(1 << 52))
        finals = await rig.finals(await burst(rig, 40), within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert worst(rig, "bybit/cancel-batch") <= 10
        assert worst(rig, "bybit/cancel") <= 5


async def test_after_a_ban_one_call_of_the_address_goes_alone(redis_url: str) -> None:
    client = connect(redis_url, max_connections=16)
    fleet = [Egress(client, "here", (Bucket("ip", 100, 1_000_000),)) for _ in range(3)]

    async def tickets() -> list[tuple[Egress, Ticket]]:
        found: list[tuple[Egress, Ticket]] = []
        for egress in fleet:
            await egress.fill()
            while (reserved := egress.reserve()).covers(("ip",)):
                found.append((egress, egress.use(reserved, ("ip",))))
            egress.release(reserved)
        return found

    async def alone() -> tuple[Egress, Ticket]:
        async with asyncio.timeout(5):
            while not (found := await tickets()):
                pass
        (one,) = found
        return one

    try:
        await fleet[0].hold(50, "banned")
        await tickets()  # what they held before the ban
        egress, ticket = await alone()
        assert not await tickets()
        egress.unuse(ticket)  # it was not made: another may try
        egress, ticket = await alone()
        egress.ended(ticket, time.monotonic_ns(), answered=False)  # refused, or no answer
        egress, ticket = await alone()
        egress.ended(ticket, time.monotonic_ns(), answered=True)
        await egress.fill()
        assert len(await tickets()) > 1
    finally:
        await client.aclose()


async def test_orders_of_a_pair_that_is_swept_are_confirmed_and_not_named_again(redis_url: str) -> None:
    async with desk(redis_url, workers=2) as rig:
        await rig.ready()
        await operate.pause(rig.client, rig.lane, "test")
        pair = [rig.order(client_id=f"c{n}" if n % 2 else "") for n in range(60)]
        others = [rig.order(symbol="ETHUSDT") for _ in range(5)]
        ids = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order_id} for order_id in pair])
        ids += await rig.send_all([{"symbol": "ETHUSDT", "order_id": order_id} for order_id in others])
        sweep = await rig.send(scope="symbol", symbol="BTCUSDT", priority="urgent")
        await rig.calls("cancel-symbol-order")
        await operate.resume(rig.client, rig.lane, "test")
        finals = await rig.finals([*ids, sweep])
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert {(finals[i].attempt, finals[i].evidence) for i in ids[: len(pair)]} == {(0, "query")}
        assert {finals[i].attempt for i in ids[len(pair) :]} == {1}
        named = {order_id for c in cancels_by_id(rig) for order_id in cast("list[str]", c["ids"])}
        assert named == set(others)


async def test_an_order_asked_for_after_the_sweep_or_more_urgently_is_cancelled_at_once(redis_url: str) -> None:
    async with desk(redis_url, symbol_cancel_delay_ms=3_000) as rig:
        sweep = await rig.send(scope="symbol", symbol="BTCUSDT")
        await rig.calls("cancel-symbol-order")
        later = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        urgent = await rig.send(symbol="BTCUSDT", order_id=rig.order(), priority="urgent")
        finals = await rig.finals([later, urgent, sweep])
        assert {finals[i].attempt for i in (later, urgent)} == {1}


async def test_what_a_sweep_did_not_cancel_is_cancelled_by_its_own_intent(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        await operate.pause(rig.client, rig.lane, "test")
        orders = [rig.order() for _ in range(8)]
        ids = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order_id} for order_id in orders])
        rig.fault("http_500", endpoint="cancel-symbol-order", count=None)
        sweep = await rig.send(scope="symbol", symbol="BTCUSDT", priority="urgent")
        await rig.calls("cancel-symbol-order")
        await operate.resume(rig.client, rig.lane, "test")
        finals = await rig.finals([*ids, sweep])
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert all(rig.truth(order_id)["state"] == "cancelled" for order_id in orders)


def cancels_by_id(rig: Rig) -> list[dict[str, Any]]:
    """Cancel calls that name orders."""
    return [c for c in rig.simulator.calls().entries if "cancel" in str(c["endpoint"]) and c["ids"]]


async def test_an_urgent_cancel_has_a_share_of_an_address_that_is_used_up(redis_url: str) -> None:
    env = {"CANCELQ_ACCOUNTS__BITGET__MAIN__LIMITS": '{"bitget-ip": 40}', "CANCELQ_EGRESS": EGRESS}
    async with desk(redis_url, env=env) as rig:
        ids = await burst(rig, 2_000)
        assert ids
        stream = rig.lane.key("nothing")
        while (await rig.client.zcard(f"cancelq:{{egress:{EGRESS}}}:bitget-ip")) < 36:
            await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", stream, "$")
        await command(rig.client, "XREAD", "BLOCK", 1_500, "STREAMS", stream, "$")  # nothing normal leaves any more
        urgent = await rig.send(symbol="BTCUSDT", order_id=rig.order(), priority="urgent")
        sent = await rig.final(urgent)
        assert sent.status is Status.cancelled
        assert sum(1 for e in await rig.events() if e.final) < len(ids)


@asynccontextmanager
async def far_away(base_url: str, one_way_s: float) -> AsyncIterator[str]:
    """The venue as it is seen from further away: every byte takes that much longer, there and back."""
    host, port = urlsplit(base_url).hostname, urlsplit(base_url).port
    tasks: set[asyncio.Task[None]] = set()

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop, on_the_way = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

        async def arrive() -> None:
            while True:
                due, data = await on_the_way.get()
                await asyncio.sleep(due - loop.time())
                if not data:
                    sink.close()
                    return
                sink.write(data)

        arriving = asyncio.ensure_future(arrive())
        with suppress(ConnectionError):
            while data := await source.read(65536):
                on_the_way.put_nowait((loop.time() + one_way_s, data))
        on_the_way.put_nowait((loop.time() + one_way_s, b""))
        await arriving

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(host, port)
        for ends in ((reader, to_writer), (to_reader, writer)):
            task = asyncio.ensure_future(carry(*ends))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()


async def test_a_near_and_a_far_worker_share_one_limit(redis_url: str) -> None:
    env = {"CANCELQ_URGENT_RESERVE": "0"}
    async with desk(redis_url, workers=0, env=env) as rig, far_away(rig.base_url, 0.03) as far:
        rig.start("near")
        rig.start("far", CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL=far)
        finals = await rig.finals(await burst(rig, 4_000), within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert {e.worker for e in finals.values()} == {"near", "far"}
        assert rig.refused() == 0
        assert worst(rig, f"bitget/{BATCH}") == 10


async def test_pause_and_resume_act_on_the_whole_fleet_at_once(redis_url: str) -> None:
    async with desk(redis_url, workers=3) as rig:
        ids = await burst(rig, 1_200)
        await rig.calls("cancel", 5)
        await operate.pause(rig.client, rig.lane, "test")
        paused_us = await _redis_us(rig)
        await command(rig.client, "XREAD", "BLOCK", 2_000, "STREAMS", rig.lane.key("nothing"), "$")  # two seconds
        resumed_us = await _redis_us(rig)
        await operate.resume(rig.client, rig.lane, "test")
        finals = await rig.finals(ids, within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        taken = [e.taken_us or 0 for e in finals.values()]
        assert min(taken) < paused_us
        assert max(taken) > resumed_us
        assert not [t for t in taken if paused_us < t < resumed_us]


async def _redis_us(rig: Rig) -> int:
    seconds, us = await rig.client.time()
    return int(seconds) * 1_000_000 + int(us)
