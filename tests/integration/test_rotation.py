"""New accounts and keys while a worker runs: nothing is lost, nothing is sent twice, the other lanes do not pause."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from cancelq.contract import Lane, Status
from cancelq_worker import wiring
from cancelq_worker.engine import Engine
from cancelq_worker.health import Health
from cancelq_worker.lane import LaneServer
from cancelq_worker.rotation import FOR_LANES, restart_for, same_for_lanes, same_key
from cancelq_worker.settings import Settings
from cancelq_worker.simulator.orders import Account
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET
from cancelq_worker.trips import command
from tests.integration.rig import Rig, desk

pytestmark = pytest.mark.one_server

MAIN = "CANCELQ_ACCOUNTS__BITGET__MAIN__"
SECOND = "CANCELQ_ACCOUNTS__BYBIT__DESK__"


class Worker:
    """One worker that can be given new settings, as HUP does."""

    def __init__(self, env: Mapping[str, str], config: Path | None = None) -> None:
        self.settings = Settings.load(config, env)
        self.fresh: asyncio.Queue[Settings] = asyncio.Queue()
        self._stop = asyncio.Event()
        self._task = asyncio.ensure_future(
            wiring.serve(self.settings, worker_name="w", stop=self._stop, suspended=lambda: False, fresh=self.fresh)
        )

    def give(self, env: Mapping[str, str]) -> None:
        after = Settings.load(None, env)
        assert restart_for(self.settings, after) == []
        self.settings = after
        self.fresh.put_nowait(after)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.wait_for(self._task, 15)


def new_key(rig: Rig, key: str, *, venue: str = "bitget", uid: str = "") -> None:
    """A further key of the same user at the venue."""
    accounts = rig.simulator.core.accounts
    old = accounts[venue, DEMO_KEY]
    passphrase = DEMO_PASSPHRASE if venue == "bitget" else ""
    accounts[venue, key] = Account(venue, key, DEMO_SECRET, passphrase, uid or old.uid)


@pytest.mark.parametrize("stream_path", ["", "/v2/ws/private"])
async def test_a_new_key_under_load_loses_nothing_and_sends_nothing_twice(redis_url: str, stream_path: str) -> None:
    async with desk(
        redis_url, workers=0, stream_path=stream_path, latency_before_ms=(5, 40), latency_after_ms=(5, 40)
    ) as rig:
        worker = Worker(rig.environment())
        orders = [rig.order() for _ in range(1200)]
        ids = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order} for order in orders])
        for n in range(3):
            await rig.calls("batch-cancel-order", least=3 * (n + 1))
            new_key(rig, f"rotated-{n}")
            worker.give(rig.environment(**{f"{MAIN}API_KEY": f"rotated-{n}"}))
        finals = await rig.finals(ids, within_s=60)
        await worker.stop()
        assert {event.status for event in finals.values()} == {Status.cancelled}
        assert {event.attempt for event in finals.values()} == {1}, "no order was named in two calls"
        assert rig.refused() == 0


async def test_a_new_lane_is_served_and_an_old_one_ends_without_a_start(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig:
        worker = Worker(rig.environment())
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))).status is Status.cancelled
        desk_env = {f"{SECOND}BASE_URL": rig.base_url, f"{SECOND}API_KEY": DEMO_KEY, f"{SECOND}API_SECRET": DEMO_SECRET}
        worker.give(rig.environment(**desk_env))
        rig.lane = Lane("bybit", "desk")
        rig._at = "0-0"
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))).status is Status.cancelled
        worker.give({"CANCELQ_REDIS_URL": redis_url, **desk_env})
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))).status is Status.cancelled
        await worker.stop()


async def test_lanes_of_which_nothing_changed_go_on_without_a_pause(redis_url: str) -> None:
    """The lane server of an unchanged account is the same object before and after."""
    async with desk(redis_url, workers=0) as rig:
        other = {f"{SECOND}BASE_URL": rig.base_url, f"{SECOND}API_KEY": DEMO_KEY, f"{SECOND}API_SECRET": DEMO_SECRET}
        before = Settings.load(None, rig.environment(**other))
        built = wiring.Wiring(before, "w", lambda: False)
        engine = built.engine(Health(stop := asyncio.Event()))
        task = asyncio.ensure_future(engine.serve(stop))
        lanes = await watched(engine, rig.client, 2)
        new_key(rig, "rotated")
        built.change(Settings.load(None, rig.environment(**other, **{f"{MAIN}API_KEY": "rotated"})), engine)
        assert [str(lane) for lane in engine_lanes(engine)] == ["bybit:desk"], "only the changed one finishes"
        after = await watched(engine, rig.client, 2)
        assert after["bybit:desk"] is lanes["bybit:desk"]
        assert after["bitget:main"] is not lanes["bitget:main"]
        stop.set()
        await asyncio.wait_for(task, 15)
        await built.close()


async def test_limits_per_address_are_told_of_by_who_watches_a_lane_behind_them_first(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig:
        other = {f"{SECOND}BASE_URL": rig.base_url, f"{SECOND}API_KEY": DEMO_KEY, f"{SECOND}API_SECRET": DEMO_SECRET}
        built = wiring.Wiring(Settings.load(None, rig.environment(**other)), "w", lambda: False)
        engine = built.engine(Health(stop := asyncio.Event()))
        task = asyncio.ensure_future(engine.serve(stop))
        lanes = await watched(engine, rig.client, 2)
        bitget, bybit = lanes["bitget:main"], lanes["bybit:desk"]

        def venues(*seen: tuple[LaneServer, int]) -> set[str]:
            return {bucket.partition("-")[0] for _, bucket in built.addresses(seen)}

        assert venues((bitget, 0), (bybit, 0)) == {"bitget", "bybit"}
        assert venues((bitget, 0), (bybit, 1)) == {"bitget"}
        stop.set()
        await asyncio.wait_for(task, 15)
        assert venues((bitget, 0)) == set(), "a lane that is not served any more"
        await built.close()


async def test_the_answer_to_a_lane_that_was_taken_away_is_waited_for_at_the_end(redis_url: str) -> None:
    async with desk(redis_url, workers=0, latency_after_ms=(700, 700)) as rig:
        other = {f"{SECOND}BASE_URL": rig.base_url, f"{SECOND}API_KEY": DEMO_KEY, f"{SECOND}API_SECRET": DEMO_SECRET}
        built = wiring.Wiring(Settings.load(None, rig.environment()), "w", lambda: False)
        engine = built.engine(Health(stop := asyncio.Event()))
        task = asyncio.ensure_future(engine.serve(stop))
        intent = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        await rig.calls("cancel")
        built.change(Settings.load(None, {"CANCELQ_REDIS_URL": redis_url, **other}), engine)
        stop.set()
        await asyncio.wait_for(task, 15)
        assert [event.status for event in await rig.of(intent)] == [Status.accepted]
        await built.close()


async def test_a_lane_held_for_its_old_key_is_opened_by_the_new_one(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig:
        worker = Worker(rig.environment(**{f"{MAIN}API_KEY": "revoked"}))
        order = rig.order()
        intent = await rig.send(symbol="BTCUSDT", order_id=order)
        async with asyncio.timeout(10):
            while not await rig.client.hexists(rig.lane.key("hold"), "*|auth"):
                await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")
        worker.give(rig.environment())
        assert (await rig.final(intent)).status is Status.cancelled
        await worker.stop()


async def test_a_new_key_is_tried_though_other_settings_follow_before_the_lane_is_open() -> None:
    env = {f"{MAIN}API_KEY": "k", f"{MAIN}API_SECRET": "s", f"{MAIN}PASSPHRASE": "p"}
    made = wiring.Wiring(Settings.load(None, env), "w1", lambda: False)
    try:
        engine = made.engine(Health(asyncio.Event()))
        env[f"{MAIN}API_KEY"] = "other"
        for more in ({}, {"CANCELQ_LEASE_MS": "6000"}):
            made.change(Settings.load(None, {**env, **more}), engine)
            assert made._makers["bitget:main"]()._p.new_key
    finally:
        await made.close()


async def test_a_secret_in_a_file_is_read_again(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, workers=0) as rig:
        secrets = tmp_path / "secrets"
        secrets.mkdir()
        (secrets / f"{MAIN}api_key".lower()).touch(mode=0o600)
        (secrets / f"{MAIN}api_key".lower()).write_text("revoked\n")
        env = {k: v for k, v in rig.environment().items() if k != f"{MAIN}API_KEY"}
        env["CANCELQ_SECRETS_DIR"] = str(secrets)
        worker = Worker(env)
        (secrets / f"{MAIN}api_key".lower()).write_text(f"{DEMO_KEY}\n")
        worker.fresh.put_nowait(worker.settings.again())
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))).status is Status.cancelled
        await worker.stop()


def test_what_needs_a_start() -> None:
    before = Settings(redis_url="redis://127.0.0.1:1/0", egress="a")
    assert restart_for(before, before.model_copy(update={"lease_ms": 6000, "dedup_hours": 2})) == []
    assert restart_for(before, before.model_copy(update={"egress": "b"})) == ["egress"]
    assert restart_for(before, before.model_copy(update={"redis_url": "redis://127.0.0.1:2/0"})) == ["redis_url"]


def engine_lanes(engine: Engine) -> list[Lane]:
    return [server.lane for server, _ in engine.watched()]


async def watched(engine: Engine, client: aioredis.Redis, count: int) -> dict[str, LaneServer]:
    async with asyncio.timeout(10):
        while len(found := {str(server.lane): server for server, _ in engine.watched()}) < count:
            await command(client, "XREAD", "BLOCK", 10, "STREAMS", "none", "$")
    return dict(found)


@pytest.mark.parametrize("name", FOR_LANES)
def test_a_lane_is_opened_anew_for_each_setting_that_it_is_built_with(name: str) -> None:
    before = Settings(redis_url="redis://127.0.0.1:1/0")
    assert same_for_lanes(before, before.model_copy())
    assert not same_for_lanes(before, before.model_copy(update={name: getattr(before, name) + 1}))


@pytest.mark.parametrize("name", ["API_KEY", "API_SECRET", "PASSPHRASE", "ALLOW_WITHDRAW_KEY"])
def test_a_key_is_another_one_with_each_thing_that_may_have_been_put_right(name: str) -> None:
    env = {f"{MAIN}API_KEY": "k", f"{MAIN}API_SECRET": "s", f"{MAIN}PASSPHRASE": "p"}
    changed = {f"{MAIN}{name}": "true" if name == "ALLOW_WITHDRAW_KEY" else "other"}
    before, same, after = (
        Settings.load(None, some).accounts["bitget"]["main"] for some in (env, env, {**env, **changed})
    )
    assert same_key(before, same)
    assert not same_key(before, after)
