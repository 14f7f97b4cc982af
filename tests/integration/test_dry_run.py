"""A dry run beside real workers and alone: everything but sending, and nothing of it real."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from cancelq import Event
from cancelq.contract import Status
from cancelq_worker import cli, wiring
from cancelq_worker.dry_run import DryRunLane, dry_workers_alive
from cancelq_worker.settings import Settings
from cancelq_worker.trips import command
from tests.integration.rig import Rig, desk

pytestmark = pytest.mark.one_server


class Rehearsing:
    """A dry-run worker of a rig's lane."""

    def __init__(self, rig: Rig, *, from_start: bool = False) -> None:
        self.rig = rig
        self._stop = asyncio.Event()
        self._task = asyncio.ensure_future(
            wiring.serve(
                Settings.load(None, rig.environment()), worker_name="dry", stop=self._stop, suspended=lambda: False,
                dry_run=True, from_start=from_start,
            )
        )  # fmt: skip

    async def begun(self) -> None:
        lane = DryRunLane(self.rig.lane.venue, self.rig.lane.account)
        async with asyncio.timeout(10):
            while not await self.rig.client.exists(lane.key("cursor")):
                await command(self.rig.client, "XREAD", "BLOCK", 10, "STREAMS", self.rig.lane.inbox, "$")

    async def finals(self, ids: list[str]) -> dict[str, Event]:
        """The final events of these in the dry run's own stream."""
        stream, found = self.rig.lane.key("dryrun"), {}
        async with asyncio.timeout(30):
            while True:
                for entry_id, flat in await command(self.rig.client, "XRANGE", stream, "-", "+"):
                    event = Event.read(entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
                    if event.final and event.id in ids:
                        found[event.id] = event
                if len(found) == len(ids):
                    return found
                await command(self.rig.client, "XREAD", "BLOCK", 50, "STREAMS", stream, "$")

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.wait_for(self._task, 15)


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
async def test_alone_it_ends_every_intent_and_sends_nothing(redis_url: str, venue: str) -> None:
    async with desk(redis_url, venue=venue, workers=0) as rig:
        dry = Rehearsing(rig)
        await dry.begun()
        symbol = rig.spelt("BTC", "USDT")
        orders = [rig.order() for _ in range(30)]
        ids = await rig.send_all([{"symbol": symbol, "order_id": order} for order in orders])
        await dry.finals(ids)
        sweeps = ({"scope": "account", "kinds": "order,tpsl"}, {"scope": "symbol", "symbol": symbol})
        ids += await rig.send_all([*sweeps, {"symbol": symbol}])
        finals = await dry.finals(ids)
        await dry.stop()
        assert {finals[id_].status for id_ in ids[:-1]} == {Status.cancelled}
        assert finals[ids[-1]].status is Status.rejected
        assert all((event.detail or "").startswith("dry run: not sent") for event in finals.values())
        assert max(event.batch_size or 0 for event in finals.values()) > 1, "they were grouped into calls"
        assert list(rig.simulator.calls().entries) == []
        assert {rig.truth(order)["state"] for order in orders} == {"live"}
        assert await rig.client.xlen(rig.lane.results) == 0


async def test_beside_a_real_worker_it_takes_nothing_away(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        early = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        await rig.final(early)
        dry = Rehearsing(rig)
        await dry.begun()
        orders = [rig.order() for _ in range(100)]
        ids = await rig.send_all([{"id": f"x-{o}", "symbol": "BTCUSDT", "order_id": o} for o in orders])
        names = [f"x-{order}" for order in orders]
        real, rehearsed = await rig.finals(names), await dry.finals(names)
        await dry.stop()
        assert len(ids) == len(names)
        assert {event.attempt for event in real.values()} == {1}
        assert {event.evidence for event in rehearsed.values()} == {"local"}
        assert not await rig.client.exists(f"{rig.lane.key('dryrun')}:results")
        stream = await command(rig.client, "XRANGE", rig.lane.key("dryrun"), "-", "+")
        assert not [flat for _, flat in stream if early.encode() in flat], "it began at the inbox's end"


async def test_from_start_it_reads_what_was_there_and_a_later_one_begins_anew(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        done = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        await rig.final(done)
        for _ in range(2):
            dry = Rehearsing(rig, from_start=True)
            assert (await dry.finals([done]))[done].status is Status.cancelled
            await dry.stop()


async def test_it_is_not_taken_for_a_real_worker_and_status_says_so(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with desk(redis_url, workers=0) as rig:
        dry = Rehearsing(rig)
        await dry.begun()
        async with asyncio.timeout(10):
            while not await dry_workers_alive(rig.client):
                await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", rig.lane.inbox, "$")
        assert await rig.client.zcard("cancelq:workers") == 0
        env = {"CANCELQ_REDIS_URL": redis_url}
        capsys.readouterr()
        assert await asyncio.to_thread(cli.run, ["status"], env) == 1
        assert "DRY RUN by dry" in capsys.readouterr().err
        await asyncio.to_thread(cli.run, ["status", "--json"], env)
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["workers"], row["dry_run_workers"]) == ([], ["dry"])
        await dry.stop()


async def test_times_and_revocations_are_kept(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig:
        dry = Rehearsing(rig)
        await dry.begun()
        later = str(time.time_ns() // 1_000_000 + 60_000)
        timed = await rig.send(id="t-1", symbol="BTCUSDT", order_id=rig.order(), not_before_ms=later)
        withdraw = await rig.send(scope="revoke", target=timed)
        finals = await dry.finals([timed, withdraw])
        await dry.stop()
        assert {event.status for event in finals.values()} == {Status.revoked}
