"""The kill switch, at the simulated venues' doors and through the command line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from cancelq.contract import Status
from cancelq_worker.flatten import Flattening, NotServed, Report, Wish
from cancelq_worker.simulator.orders import State
from cancelq_worker.trips import connect
from tests.integration.rig import LANE, Rig, desk
from tests.servers import RedisServer

BASES = ("BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "LTC", "A1", "A2", "A3", "A4", "A5")
PAIRS = [f"{base}USDT" for base in BASES]


async def served(rig: Rig) -> None:
    """Until a worker moves the lane's clock."""
    await rig.ready()
    async with asyncio.timeout(20):
        while not await rig.client.exists(rig.lane.key("clock")):
            await rig.client.xread({rig.lane.key("nothing"): "$"}, block=20)


async def flatten(rig: Rig, wish: Wish | None = None, seen: list[str] | None = None) -> Report:
    await served(rig)
    client = connect(rig.redis_url)
    try:
        wish = wish or Wish(rig.lane)
        heard = [] if seen is None else seen
        return await Flattening(client, wish, "test").run(lambda r: heard.append(str(r.cancelled)))
    finally:
        await client.aclose()


def still_open(rig: Rig, orders: list[str]) -> list[str]:
    rows = rig.simulator.truth_of(orders, venue=rig.lane.venue).entries
    return [str(row["order_id"]) for row in rows if row["state"] in ("live", "partially_filled")]


async def test_a_thousand_orders_on_twelve_pairs_behind_a_long_queue(redis_url: str) -> None:
    net: dict[str, Any] = {
        "latency_before_ms": (2, 10),
        "latency_after_ms": (2, 10),
        "pairs": [f"{base}-USDT" for base in BASES],
    }
    async with desk(redis_url, workers=2, **net) as rig:
        orders = [rig.order(symbol=PAIRS[n % len(PAIRS)]) for n in range(1_000)]
        await rig.send_all([{"symbol": "BTCUSDT", "order_id": str(10**18 + n)} for n in range(20_000)])
        seen: list[str] = []
        report = await flatten(rig, seen=seen)
        assert still_open(rig, orders) == []
        assert (report.empty, report.still_open, report.rounds) == (True, 0, 1)
        assert {name: pair.still_open for name, pair in report.pairs.items()} == dict.fromkeys(PAIRS, 0)
        assert report.cancelled == 1_000
        assert len(set(seen)) > 3
        assert rig.refused() == 0
        # The venue's own log tells how long it took: 20 batches at ten a second.
        named = set(orders)
        at = [int(c["at_us"]) for c in rig.simulator.calls().entries if named & set(c["ids"]) and c["method"] == "POST"]
        assert len(at) <= 24


@pytest.mark.parametrize("venue", ["bybit", "bingx", "bitget"])
async def test_every_kind_of_order_goes_and_other_accounts_are_left_alone(redis_url: str, venue: str) -> None:
    async with desk(redis_url, venue=venue) as rig:
        kinds = ("order", "tpsl", "plan")
        orders = [rig.order(kind=k, symbol=rig.spelt(b, "USDT")) for k in kinds for b in ("BTC", "ETH") for _ in (1, 2)]
        report = await flatten(rig)
        assert still_open(rig, orders) == []
        assert report.empty
        acts = [e for e in await rig.events() if e.status is Status.operator]
        assert [(e.act, e.actor) for e in acts] == [("kill", "test")]


async def test_only_what_is_meant(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        mine, other = rig.order(client_id="mm1-7"), rig.order(client_id="mm2-7")
        stop, elsewhere = rig.order(kind="plan"), rig.order(symbol="ETHUSDT", client_id="mm1-8")
        wish = Wish(LANE, symbol="BTCUSDT", client_prefix="mm1", orders_only=True)
        report = await flatten(rig, wish)
        assert report.empty
        assert set(still_open(rig, [mine, other, stop, elsewhere])) == {other, stop, elsewhere}


async def test_what_is_placed_meanwhile_goes_in_another_round(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await served(rig)
        first = [rig.order() for _ in range(20)]
        later: list[str] = []

        def place(report: Report) -> None:
            if report.rounds == 1 and len(later) < 3:
                later.append(rig.order(created_ms=time.time_ns() // 1_000_000 + 50))

        client = connect(rig.redis_url)
        try:
            report = await Flattening(client, Wish(LANE), "test").run(place)
        finally:
            await client.aclose()
        assert report.empty
        assert report.rounds > 1
        assert still_open(rig, first + later) == []


async def test_an_order_that_fires_after_the_normal_ones_were_read_is_not_left(redis_url: str) -> None:
    """What it places stands in a list that was read before: by all that was read, nothing would be open."""
    async with desk(redis_url) as rig:
        await served(rig)
        first, stop = rig.order(), rig.order(kind="plan")
        rig.fault("http_500", endpoint="current-plan-order", count=5)
        placed: list[str] = []

        def fire(_: Report) -> None:
            if not placed and any(id_.endswith("-1-order") for id_ in run._ended):
                rig.simulator.move_order(stop, State.triggered)
                (row,) = rig.simulator.truth_of([stop]).entries
                placed.append(row["child_id"])

        client = connect(rig.redis_url)
        run = Flattening(client, Wish(LANE), "test")
        try:
            report = await run.run(fire)
        finally:
            await client.aclose()
        assert report.empty
        assert placed
        assert still_open(rig, [first, *placed]) == []


async def test_two_at_once_do_not_disturb_each_other(redis_url: str) -> None:
    async with desk(redis_url, workers=2) as rig:
        orders = [rig.order(symbol=PAIRS[n % 3]) for n in range(200)]
        reports = await asyncio.gather(flatten(rig), flatten(rig), flatten(rig, Wish(LANE, symbol="BTCUSDT")))
        assert all(report.empty for report in reports)
        assert still_open(rig, orders) == []


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
async def test_a_pair_the_venue_does_not_know_is_told_after_one_call_for_each_kind(redis_url: str, venue: str) -> None:
    """Equal errors lock endpoints at BingX: asking again and again would close the account's lists."""
    async with desk(redis_url, venue=venue) as rig:
        report = await flatten(rig, Wish(rig.lane, symbol=rig.spelt("NOSUCH", "USDT")))
        assert not report.empty
        assert all("rejected: " in problem and "refused by the venue" in problem for problem in report.problems)
        called = [str(call["endpoint"]) for call in rig.simulator.calls().entries]
        asked = [endpoint for endpoint in called if any(word in endpoint.lower() for word in ("cancel", "orders"))]
        assert 1 <= len(asked) <= 3, called


async def test_without_a_worker_it_says_so_and_queues_nothing(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await served(rig)
        await rig.stop()
        before = await rig.client.xlen(LANE.inbox)
        await rig.client.set(LANE.key("clock"), "1 1 - 0")  # as it stands when nobody has served for long
        with pytest.raises(NotServed):
            await flatten(rig)
        assert await rig.client.xlen(LANE.inbox) == before


async def test_a_moment_after_the_last_worker_left_it_queues_nothing_either(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await served(rig)
        await rig.stop()
        before = await rig.client.xlen(LANE.inbox)
        with pytest.raises(NotServed):
            await flatten(rig)
        assert await rig.client.xlen(LANE.inbox) == before


async def test_a_venue_that_is_down_leaves_it_unfinished_and_says_what_is_open(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await served(rig)
        orders = [rig.order() for _ in range(5)]
        rig.fault("http_500", endpoint="batch-cancel-order", count=None)
        rig.fault("http_500", endpoint="cancel-order", count=None)
        client = connect(rig.redis_url)
        try:
            report = await Flattening(client, Wish(LANE), "test").run(within_s=4)
        finally:
            await client.aclose()
        assert not report.empty
        assert report.still_open == 5
        assert report.problems
        assert len(still_open(rig, orders)) == 5


def command(env: Mapping[str, str], *args: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("cancelq"), "kill", *args],
        env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=stdin,
    )  # fmt: skip


async def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    return process.returncode, out, err


async def test_the_command_needs_no_key_and_ends_well_only_if_nothing_is_open(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        orders = [rig.order(symbol=PAIRS[n % 4]) for n in range(60)]
        await served(rig)
        env = {"CANCELQ_REDIS_URL": redis_url}
        code, _, err = await outcome(command(env, "bitget:main"))
        assert (code, "--yes" in err) == (2, True)
        assert len(still_open(rig, orders)) == 60
        code, out, err = await outcome(command(env, "bitget:main", "--yes"))
        assert code == 0, err
        assert "nothing is open on bitget:main: 60 orders" in out
        assert still_open(rig, orders) == []
        code, out, _ = await outcome(command(env, "bitget:main", "--yes", "--json"))
        told: dict[str, Any] = orjson.loads(out)
        assert (code, told["empty"], told["cancelled"], told["pairs"]) == (0, True, 0, {})
        code, _, err = await outcome(command(env, "bitget:nobody", "--yes"))
        assert (code, "bitget:nobody" in err) == (1, True)


@pytest.mark.parametrize(("option", "value"), [("symbol", "NOPE-X"), ("client_prefix", "a b")])
async def test_what_no_worker_could_do_is_refused_beforehand(redis_url: str, option: str, value: str) -> None:
    async with desk(redis_url) as rig:
        await served(rig)
        words = ("bitget:main", f"--{option.replace('_', '-')}", value, "--yes")
        code, _, err = await outcome(command({"CANCELQ_REDIS_URL": redis_url}, *words))
        assert (code, f"error: {option}: " in err) == (65, True), err
        assert await rig.client.xlen(rig.lane.inbox) == 0


async def test_a_no_on_the_terminal_cancels_nothing(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        order = rig.order()
        await served(rig)
        terminal, its_end = os.openpty()
        try:
            process = command({"CANCELQ_REDIS_URL": redis_url}, "bitget:main", stdin=its_end)
            os.write(terminal, b"n\n")
            code, _, err = await outcome(process)
        finally:
            os.close(terminal)
            os.close(its_end)
        assert (code, "not confirmed, nothing was asked for" in err) == (1, True), err
        assert still_open(rig, [order]) == [order]
        assert await rig.client.xlen(rig.lane.inbox) == 0


async def test_the_command_does_not_end_well_while_something_is_open(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        orders = [rig.order() for _ in range(3)]
        for endpoint in ("cancel-order", "batch-cancel-order", "cancel-symbol-order"):
            rig.fault("http_500", endpoint=endpoint, count=None)
        await served(rig)
        code, out, err = await outcome(
            command({"CANCELQ_REDIS_URL": redis_url}, "bitget:main", "--yes", "--orders-only", "--timeout", "3")
        )
        assert code == 1, (out, err)
        assert "nothing is open" not in out
        assert len(still_open(rig, orders)) == 3


async def test_interrupted_half_way_it_says_what_is_open(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        orders = [rig.order() for _ in range(8)]
        rig.fault("http_500", endpoint="batch-cancel-order", count=None)
        rig.fault("http_500", endpoint="cancel-order", count=None)
        await served(rig)
        process = command({"CANCELQ_REDIS_URL": redis_url}, "bitget:main", "--yes", "--orders-only")
        async with asyncio.timeout(20):
            while not [c for c in rig.simulator.calls().entries if str(c["endpoint"]).endswith("batch-cancel-order")]:
                await rig.client.xread({LANE.results: "$"}, block=50)
            await rig.client.xread({LANE.key("nothing"): "$"}, block=1_000)
        process.send_signal(signal.SIGINT)
        code, _, err = await outcome(process)
        assert (code, "8 are still open" in err) == (130, True)
        assert len(still_open(rig, orders)) == 8


async def test_redis_that_dies_half_way_is_told(redis_server: RedisServer) -> None:
    async with desk(redis_server.url) as rig:
        rig.order()
        rig.fault("http_500", endpoint="batch-cancel-order", count=None)
        rig.fault("http_500", endpoint="cancel-order", count=None)
        await served(rig)
        process = command({"CANCELQ_REDIS_URL": redis_server.url}, "bitget:main", "--yes", "--orders-only")
        await rig.calls("cancel-order")
        await asyncio.to_thread(redis_server.kill9)
        code, _, err = await outcome(process)
        assert (code, "NOT empty" in err) == (69, True)
        await asyncio.to_thread(redis_server.restart)


async def test_how_many_are_open_is_not_said_where_nobody_looked(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        report = await flatten(rig, Wish(LANE, symbol="NOSUCHUSDT"))
        assert not report.empty
        assert report.still_open is None


async def test_an_order_that_is_named_again_and_again_is_counted_once(redis_url: str) -> None:
    async with desk(redis_url, cancel_delay_ms=2_500) as rig:
        orders = [rig.order() for _ in range(3)]
        report = await flatten(rig)
        named = [id_ for c in rig.simulator.calls().entries if c["method"] == "POST" for id_ in c["ids"]]
        assert len(named) > len(orders), "they were named more than once"
        assert (report.empty, report.cancelled, still_open(rig, orders)) == (True, 3, [])
