"""Two versions of a lane's data at once: the older worker leaves newer data alone, the newer one waits for its turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import ResponseError

from cancelq.contract import Status
from cancelq_worker.data_version import DATA_VERSION, is_newer
from cancelq_worker.roster import ROSTER
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.trips import command, connect
from tests.integration.observed_worker import PROGRAM, ObservedWorker, observed_worker
from tests.integration.rig import Rig, desk

NEWER = DATA_VERSION + 1
#: A worker of the next release, whose data are of the next version.
NEWER_PROGRAM = f"from cancelq_worker import data_version; data_version.DATA_VERSION = {NEWER}; {PROGRAM}"
LISTEN = ("--http", "127.0.0.1:0")
REFUSED_WITHIN_S = 2.0  # promised
NOISE_S = 2.0  # what a busy machine may add
OTHER = "bitget:other"

pytestmark = pytest.mark.one_server


def with_another_lane(rig: Rig) -> Mapping[str, str]:
    """The rig's lane, and one of another account that nobody knows at the venue."""
    own = {name: value for name, value in rig.environment().items() if "__MAIN__" in name}
    more = {name.replace("__MAIN__", "__OTHER__"): value for name, value in own.items()}
    return {**rig.environment(), **more, "CANCELQ_ACCOUNTS__BITGET__OTHER__API_KEY": "another"}


@asynccontextmanager
async def serving(rig: Rig, env: Mapping[str, str], program: str = PROGRAM) -> AsyncIterator[ObservedWorker]:
    """A worker that has opened every lane it may."""
    async with observed_worker(env, *LISTEN, program=program) as worker:
        await worker.listening()
        yield worker


async def until_ready(rig: Rig, worker: ObservedWorker, *, ready: bool) -> str:
    """What `/readyz` says, once it says that."""
    async with asyncio.timeout(20):
        while True:
            status, text = await worker.get("/readyz")
            if (status == 200) is ready:
                return text
            await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")


async def test_newer_data_are_refused_in_time_and_aloud_and_other_lanes_go_on(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig, serving(rig, with_another_lane(rig)) as worker:
        await rig.ready()
        await until_ready(rig, worker, ready=True)
        before = await dump(rig)
        begun_s = time.monotonic()
        await rig.client.set(rig.lane.key("version"), NEWER)
        why = await until_ready(rig, worker, ready=False)
        assert time.monotonic() - begun_s < REFUSED_WITHIN_S + NOISE_S
        assert f"lane not open: bitget:main, the lane's data are of version {NEWER}" in why
        assert "other" not in why
        assert (await worker.samples())["cancelq_refused_lanes", frozenset()] == 1
        await worker.expect('a lane is refused: run a newer worker.*"level": "error"')
        # A little patience: nothing of the lane may be touched from now on, whatever comes into its inbox.
        sent = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        other = f"cancelq:{{{OTHER}}}"
        await command(rig.client, "XADD", f"{other}:inbox", "*", "symbol", "no pair", "order_id", "1")
        await command(rig.client, "XREAD", "BLOCK", 20_000, "STREAMS", f"{other}:results", "0")
        after = await dump(rig)
        others = {"inbox", "version", "rights"}  # the last is a question's turn, and ends by itself
        assert {n: v for n, v in after.items() if n not in others} == {
            n: v for n, v in before.items() if n not in others
        }
        assert not await rig.of(sent)
        assert not [call for call in rig.simulator.calls().entries if call["method"] == "POST"]
        # Data that are older again, as after a restore: the lane is served again by itself.
        await rig.client.delete(rig.lane.key("version"))
        assert (await rig.final(sent)).status is Status.cancelled
        assert await until_ready(rig, worker, ready=True)
        assert await worker.end() == 0


async def dump(rig: Rig) -> dict[str, bytes]:
    """Everything the lane's scripts write, by key."""
    root = rig.lane.key("")
    keys = [key async for key in rig.client.scan_iter(match=f"{root}*")]
    return {key.decode().removeprefix(root): await rig.client.dump(key) or b"" for key in keys}


async def test_a_newer_worker_waits_for_the_older_ones_and_then_takes_over(redis_url: str) -> None:
    async with desk(redis_url, workers=0, latency_before_ms=(2, 8), latency_after_ms=(2, 8)) as rig:
        env = rig.environment()
        async with serving(rig, env) as older:
            await until_ready(rig, older, ready=True)
            async with serving(rig, env, NEWER_PROGRAM) as newer:
                await newer.expect("left to older workers")
                # It could serve, and is not needed yet: an orchestrator that waits for it may go on.
                await until_ready(rig, newer, ready=True)
                first = await rig.finals([await rig.send(symbol="BTCUSDT", order_id=rig.order()) for _ in range(5)])
                assert not await rig.client.exists(rig.lane.key("version"))
                orders = [rig.order() for _ in range(900)]
                ids = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order} for order in orders])
                await rig.final(ids[0])
                assert await older.end() == 0
                finals = await rig.finals(ids, within_s=60)
                assert await rig.client.get(rig.lane.key("version")) == str(NEWER).encode()
                assert {event.status for event in finals.values()} == {Status.cancelled}
                assert all(len(rig.truth(order)["cancels"]) == 1 for order in orders)
                workers = {event.worker for event in finals.values()}
                assert len(workers) == 2
                assert workers > {event.worker for event in first.values()}
                async with serving(rig, env) as late:
                    await until_ready(rig, late, ready=False)
                    assert await late.end() == 0
                assert await newer.end() == 0


async def test_no_script_of_a_lane_touches_newer_data(redis_url: str) -> None:
    client, clock = connect(redis_url), "cancelq:{bitget:main}:clock"
    try:
        assert await SCRIPTS.run(client, "version", [clock], [NEWER]) == NEWER
        assert await SCRIPTS.run(client, "version", [clock], [DATA_VERSION]) == NEWER, "a version never falls"
        touched = [name for name, source in SCRIPTS.source.items() if "--data" not in source and "local ROOT" in source]
        assert {"admit", "take", "settle", "claim", "trim", "guard"} < set(touched)
        for name in touched:
            if "local DATA_VERSION" not in SCRIPTS.source[name]:
                assert name in {"look", "stream"}, f"{name} does not look at the version"
                continue
            with pytest.raises(ResponseError) as refused:
                await SCRIPTS.run(client, name, [clock], [])
            assert is_newer(refused.value), name
        assert await client.keys("*") == [b"cancelq:{bitget:main}:version"]
    finally:
        await client.aclose()


def test_the_first_version_has_the_plain_roster() -> None:
    assert ROSTER == "cancelq:workers"
