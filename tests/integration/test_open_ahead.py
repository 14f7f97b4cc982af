"""Connections to a venue are open before a cancel needs one, and shared by all lanes of its host."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from cancelq.contract import Lane
from cancelq_worker.engine import Engine
from cancelq_worker.gate import Gate
from cancelq_worker.health import Health
from cancelq_worker.http import Door, connection
from cancelq_worker.lane_parts import CANCELS_A_LANE, CANCELS_MOST, LOOKS_MOST
from cancelq_worker.settings import Settings
from cancelq_worker.simulator.simulator import DEMO_PASSPHRASE, DEMO_SECRET
from cancelq_worker.trips import command
from cancelq_worker.wiring import Wiring
from ops.chaos.world import until
from tests.integration.rig import Rig, desk
from tests.integration.test_rotation import new_key
from tests.integration.test_send_by import hand

pytestmark = pytest.mark.one_server

LANES = [Lane("bitget", "main"), *(Lane("bitget", f"desk{n}") for n in range(1, 4))]


class Counted(Wiring):
    """Tells how many connections its doors have made: for cancels, for looks."""

    @functools.cached_property
    def made(self) -> list[int]:
        return []

    def _door(self, base_url: str) -> Door:
        place = len(self.made)
        self.made.append(0)

        def counted(verify: ssl.SSLContext | bool) -> httpx.AsyncBaseTransport:
            self.made[place] += 1
            return connection(verify)

        return Door(base_url, verify=self._tls, transport=counted)

    @property
    def doors(self) -> tuple[Door, Door]:
        (host,) = self._hosts.values()
        return host.cancel_door, host.look_door


class Unreachable(httpx.AsyncBaseTransport):
    asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        raise httpx.ConnectError("nobody is there")


def environment(rig: Rig, lanes: list[Lane]) -> dict[str, str]:
    env = dict(rig.environment())
    for lane in lanes:
        account = f"CANCELQ_ACCOUNTS__BITGET__{lane.account.upper()}__"
        words = {"BASE_URL": rig.base_url, "API_SECRET": DEMO_SECRET, "PASSPHRASE": DEMO_PASSPHRASE, "WS_URL": ""}
        env |= {f"{account}{name}": value for name, value in words.items()}
        if lane != rig.lane:
            new_key(rig, f"key-of-{lane.account}")
            env[f"{account}API_KEY"] = f"key-of-{lane.account}"
    return env


@asynccontextmanager
async def running(rig: Rig, lanes: list[Lane]) -> AsyncIterator[tuple[Counted, Engine]]:
    stop = asyncio.Event()
    wiring = Counted(Settings.load(None, environment(rig, lanes)), "w1", lambda: False)
    engine = wiring.engine(Health(stop))
    task = asyncio.ensure_future(engine.serve(stop))
    try:
        yield wiring, engine
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)
        await wiring.close()


def open_ahead(wiring: Counted, cancels: int, looks: int) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        return bool(wiring._hosts) and [door.connections for door in wiring.doors] == [cancels, looks]

    return there


async def test_the_first_cancels_of_quiet_lanes_find_connections_that_are_open(redis_url: str) -> None:
    """Each in a lane that never made a call, all at the same moment."""
    async with desk(redis_url, workers=0) as rig, running(rig, LANES) as (wiring, _):
        cancels = CANCELS_A_LANE * len(LANES)
        assert await until(open_ahead(wiring, cancels, len(LANES)), 60)
        assert wiring.made == [cancels, len(LANES)]
        orders = [rig.order() for _ in LANES]
        for lane, order in zip(LANES, orders, strict=True):
            await command(rig.client, "XADD", lane.inbox, "*", "symbol", "BTCUSDT", "order_id", order)
        await rig.calls("cancel-order", least=len(LANES))
        assert {rig.truth(order)["state"] for order in orders} == {"cancelled"}
        assert wiring.made[0] == cancels


async def test_a_process_with_many_lanes_keeps_no_connection_for_each(redis_url: str) -> None:
    async with hand(redis_url) as one:
        kept = [most for _, most in one.parts.kept_open(1_000)]
        assert kept == [CANCELS_MOST, LOOKS_MOST]


async def test_a_host_that_no_lane_is_left_of_keeps_no_connection(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig, running(rig, LANES[:1]) as (wiring, engine):
        assert await until(open_ahead(wiring, CANCELS_A_LANE, 1), 30)
        wiring.change(Settings.load(None, {"CANCELQ_REDIS_URL": redis_url, **elsewhere(rig)}), engine)
        host = next(iter(wiring._hosts.values()))

        async def none_left() -> bool:
            return host.cancel_door.connections + host.look_door.connections == 0

        assert await until(none_left, 30)


def elsewhere(rig: Rig) -> dict[str, str]:
    """One account, at another venue of the simulator."""
    account = "CANCELQ_ACCOUNTS__BYBIT__MAIN__"
    return {f"{account}BASE_URL": rig.base_url, f"{account}API_KEY": "k" * 8, f"{account}API_SECRET": DEMO_SECRET}


async def test_a_venue_that_is_out_of_reach_is_asked_once(redis_url: str) -> None:
    """And not for each connection that is missing."""
    async with hand(redis_url) as one:
        line = Unreachable()
        door = Door(one.rig.base_url, verify=False, transport=lambda _: line)
        gate = Gate(replace(one.parts, cancel_door=door, look_door=door), lambda job: job.close())
        assert not await gate.keep_warm(3)
        assert line.asked == 1
        assert await one.gate.keep_warm(1)


async def test_a_venue_that_is_out_of_reach_is_left_alone_for_a_while(redis_url: str) -> None:
    line = Unreachable()

    class Alone(Wiring):
        def _door(self, base_url: str) -> Door:
            return Door(base_url, verify=False, transport=lambda _: line)

    async with desk(redis_url, workers=0) as rig:
        wiring = Alone(Settings.load(None, rig.environment()), "w1", lambda: False)
        wiring.engine(Health(asyncio.Event()))
        lane = wiring._makers[str(rig.lane)]()
        for _ in range(3):
            wiring._housekeeping([(lane, 1)])
            await asyncio.gather(*wiring._chores)
        assert line.asked == 1
        await wiring.close()


async def test_a_clock_that_no_connection_asks_for_is_read_anyway(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all connections are busy all the time none of them rests, and the venue's clock goes on."""
    async with hand(redis_url) as one:
        for _ in range(3):
            await asyncio.sleep(0)
            assert await one.gate.keep_warm(1)
        monkeypatch.setattr("cancelq_worker.gate.CLOCK_NS", -1)
        monkeypatch.setattr(Door, "care", lambda *_: None)
        before = len(await one.rig.calls("time"))
        one.parts.time_pace._times.clear()
        assert await one.gate.keep_warm(1)
        assert len(await one.rig.calls("time")) > before
