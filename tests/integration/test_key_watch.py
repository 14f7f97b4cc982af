"""Workers refuse a key that may withdraw, where the venue tells, and go on once it is mended or allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cancelq.contract import Status
from cancelq_worker import cli, key_watch, operate
from cancelq_worker.key_watch import KeyWatch
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import LanePlan
from cancelq_worker.simulator.orders import Right
from cancelq_worker.simulator.simulator import DEMO_KEY
from cancelq_worker.trips import command
from cancelq_worker.venues.port import Bucket
from tests.integration.rig import Rig, desk

pytestmark = pytest.mark.one_server


def give(rig: Rig, rights: Iterable[Right]) -> None:
    """The venue's key has these rights from now on."""
    account = rig.simulator.core.accounts[rig.lane.venue, DEMO_KEY]
    rig.simulator.add_account(replace(account, rights=frozenset(rights)))


async def held(rig: Rig) -> list[str]:
    """Why the lane is held for its key."""
    (status,) = await operate.status(rig.client, [rig.lane])
    return [why for scope, reason, why in status.holds if (scope, reason) == ("*", "auth")]


async def until_held(rig: Rig) -> str:
    await rig.ready()
    async with asyncio.timeout(10):
        while not (found := await held(rig)):
            await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", rig.lane.inbox, "$")
    return found[0]


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
async def test_a_key_that_may_withdraw_is_refused(redis_url: str, venue: str) -> None:
    async with desk(redis_url, venue=venue, workers=0) as rig:
        give(rig, [Right.trade, Right.withdraw])
        rig.start()
        why = await until_held(rig)
        assert "the key may withdraw" in why
        assert f"cancelq resume {venue}:main" in why
        assert await asyncio.to_thread(cli.run, ["status"], {"CANCELQ_REDIS_URL": redis_url}) == 1


async def test_resume_opens_the_lane_once_the_key_may_not_withdraw_any_more(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig:
        give(rig, [Right.trade, Right.withdraw])
        rig.start()
        await until_held(rig)
        waiting = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        await operate.resume(rig.client, rig.lane, "test")
        await rig.calls("info", least=2)
        assert await held(rig), "resume alone does not open it"
        give(rig, [Right.trade])
        await operate.resume(rig.client, rig.lane, "test")
        assert (await rig.final(waiting)).status is Status.cancelled
        assert rig.refused() == 0


async def test_while_the_lane_is_held_for_its_key_the_turn_to_ask_is_left_to_whoever_tries_the_key(
    redis_url: str,
) -> None:
    async with desk(redis_url, workers=0) as rig:
        plan = LanePlan(rig.lane, (), (Bucket("one", 1, 1),), 1, 1, urgent_reserve=0)
        ledger = RedisLedger(rig.client, plan)
        parts: Any = SimpleNamespace(ledger=ledger, plan=plan)
        asked: list[object] = []

        async def key_rights() -> None:
            asked.append("asked")

        gate: Any = SimpleNamespace(key_rights=key_rights)
        watch = KeyWatch(parts, gate, asked.append)
        await rig.client.hset(rig.lane.key("hold"), "*|auth", "-1|refused")
        await watch.ask()
        assert (asked, await ledger.may_ask_rights()) == ([], True)
        await rig.client.delete(rig.lane.key("rights"))
        await ledger.lift("auth")
        await watch.ask()
        assert (asked, await ledger.may_ask_rights()) == (["asked"], False)


async def test_a_key_that_may_withdraw_is_used_where_the_settings_allow_it(redis_url: str) -> None:
    allowed = {"CANCELQ_ACCOUNTS__BITGET__MAIN__ALLOW_WITHDRAW_KEY": "true"}
    async with desk(redis_url, workers=0, env=allowed) as rig:
        give(rig, [Right.trade, Right.withdraw])
        rig.start()
        done = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        assert done.status is Status.cancelled
        assert not [call for call in rig.simulator.calls().entries if call["endpoint"] == "info"]


async def test_several_workers_ask_in_turns_and_are_never_refused(redis_url: str) -> None:
    """Bitget answers once a second."""
    async with desk(redis_url, workers=3) as rig:
        done = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        assert done.status is Status.cancelled
        assert len(await rig.calls("info")) == 1
        assert rig.refused() == 0


async def test_a_right_to_withdraw_that_is_added_later_is_noticed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EVERY_S", "AGAIN_S", "AGAIN_MOST_S"):
        monkeypatch.setattr(key_watch, name, 0.1)
    async with desk(redis_url, venue="bybit", workers=0) as rig:
        give(rig, [Right.trade])
        rig.start()
        done = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        await rig.calls("query-api")
        assert (done.status, await held(rig)) == (Status.cancelled, [])
        give(rig, [Right.trade, Right.withdraw])
        await rig.client.delete(rig.lane.key("rights"))  # the fleet's next turn, which is seconds away
        assert "the key may withdraw" in await until_held(rig)
