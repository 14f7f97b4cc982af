"""The dead man's switch, end to end: real servers, real workers, the simulated venues' own truth."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
import redis.asyncio as aioredis
from redis import Redis

from cancelq import AsyncGuard, Guard, Lane, NotAccepted
from cancelq.contract import Event, Status
from cancelq.guard import Words, _options
from cancelq.link import options
from cancelq_worker import cli, events, operate
from cancelq_worker.guard_ledger import LANES_A_COMMAND, Kept, kept_of
from cancelq_worker.guard_status import GuardStatus, guard_statuses
from cancelq_worker.settings import Settings, SettingsError
from cancelq_worker.trips import command, connect
from tests.integration.rig import Rig, desk
from tests.integration.test_worker_process import running
from tests.servers import RedisServer

TTL_S = 1.0

pytestmark = pytest.mark.one_server


async def told(rig: Rig, that: Callable[[Event], bool], within_s: float = 20.0) -> Event:
    """The first event of which that is true, once it is there."""
    async with asyncio.timeout(within_s):
        while True:
            for event in await rig.events():
                if that(event):
                    return event
            last = rig._at
            await command(rig.client, "XREAD", "BLOCK", 200, "STREAMS", rig.lane.results, last)


def fired(event: Event) -> bool:
    return event.status is Status.operator and event.act == "guard" and "missed" in (event.detail or "")


def closed(event: Event) -> bool:
    return event.status is Status.operator and event.id.startswith("op-guard-") and not event.id[-1].isdigit()


async def status_of(rig: Rig) -> GuardStatus:
    return (await guard_statuses(rig.client, [rig.lane]))[rig.lane]


async def until(rig: Rig, that: Callable[[GuardStatus], bool], within_s: float = 10.0) -> GuardStatus:
    async with asyncio.timeout(within_s):
        while not that(found := await status_of(rig)):
            await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")
    return found


async def kept_once(rig: Rig, ttl_s: float) -> int:
    """Keeps the guard once more by one plain SET; its deadline, epoch ms, as the server has it."""
    async with rig.client.pipeline(transaction=True) as pipe:
        pipe.set(rig.lane.guard, "1", px=int(ttl_s * 1000))
        pipe.pexpiretime(rig.lane.guard)
        return int((await pipe.execute())[1])


def orders_of(rig: Rig) -> list[str]:
    return [rig.order(), rig.order(), rig.order("tpsl"), rig.order("plan")]


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
async def test_a_guard_by_plain_redis_flattens_within_a_second_of_its_deadline(redis_url: str, venue: str) -> None:
    async with desk(redis_url, venue=venue, workers=3) as rig:
        await rig.ready()
        orders = orders_of(rig)
        await rig.client.set(rig.lane.guard, "1", px=60_000)
        while not await rig.client.exists(rig.lane.key("armed")):  # a guard that nobody looked at is none yet
            await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")
        deadline_ms = await kept_once(rig, TTL_S)
        event = await told(rig, fired)
        late_ms = (event.settled_us or 0) / 1000 - deadline_ms
        assert -100 < late_ms < 1_000
        await told(rig, closed)
        assert {rig.truth(order)["state"] for order in orders} == {"cancelled"}
        finals = [e for e in await rig.events() if e.final]
        assert {e.status for e in finals} == {Status.cancelled}
        assert {e.reason for e in finals} == {"guard"}
        assert all(e.id.startswith("guard-") and e.id in (event.detail or "") for e in finals)
        assert len({e.id for e in finals}) == len(finals) == (1 if venue == "bingx" else 3)
        assert len([e for e in await rig.events() if fired(e)]) == 1, "one worker alone fires"
        assert await rig.client.xlen(rig.lane.inbox) == 0, "a worker writes no inbox"
        assert (await status_of(rig)).text == ""


async def test_a_guard_that_is_kept_does_nothing(redis_url: str) -> None:
    async with desk(redis_url, workers=2) as rig:
        await rig.ready()
        order = rig.order()
        async with AsyncGuard(redis_url, rig.lane, ttl_s=TTL_S) as guard:
            begun_s = time.monotonic()
            while time.monotonic() - begun_s < 3 * TTL_S:  # three times its time is passed here on purpose
                await command(rig.client, "XREAD", "BLOCK", 100, "STREAMS", rig.lane.results, "$")
            assert guard.trouble is None
            assert guard.lapses == 0
            assert (await status_of(rig)).text.startswith("guard armed, ")
        assert not await rig.client.exists(rig.lane.guard, rig.lane.key("armed"))
        (event,) = await rig.events()
        assert (event.act, event.detail) == ("guard", "the guard is disarmed")
        assert rig.truth(order)["state"] == "live"


async def test_an_exception_leaves_the_guard_armed_and_the_thread_ends(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        order = rig.order()

        def strategy() -> None:
            with Guard(redis_url, rig.lane, ttl_s=TTL_S):
                raise RuntimeError("the strategy broke")

        with pytest.raises(RuntimeError):
            await asyncio.to_thread(strategy)
        await told(rig, closed)
        assert rig.truth(order)["state"] == "cancelled"


async def test_an_exception_leaves_the_guard_of_a_loop_armed(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        order = rig.order()
        with pytest.raises(RuntimeError):
            async with AsyncGuard(redis_url, rig.lane, ttl_s=TTL_S):
                raise RuntimeError("the strategy broke")
        await told(rig, closed)
        assert rig.truth(order)["state"] == "cancelled"


@pytest.mark.one_server("redis7")
async def test_del_by_somebody_else_counts_as_expiry(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        order = rig.order()
        guard = AsyncGuard(redis_url, rig.lane, ttl_s=600, keep=False)
        await guard.arm()
        await rig.client.delete(rig.lane.guard)
        await told(rig, closed)
        assert rig.truth(order)["state"] == "cancelled"
        assert not await guard.beat(), "the strategy is told that its guard was gone"
        assert guard.lapses == 1
        await guard.disarm()
        await guard.aclose()


async def test_a_deadline_that_passes_while_no_worker_lives_fires_when_one_is_back(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        await rig.stop()
        order = rig.order()
        guard = AsyncGuard(redis_url, rig.lane, ttl_s=TTL_S, keep=False)
        await guard.arm()
        await guard.aclose()
        missed = await until(rig, lambda status: status.missed)
        assert missed.trouble
        rig.start("w9")
        await told(rig, closed)
        assert rig.truth(order)["state"] == "cancelled"


async def test_a_paused_lane_is_flattened_all_the_same(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        await operate.pause(rig.client, rig.lane, "alice@desk")
        order = rig.order()
        await rig.client.set(rig.lane.guard, "1", px=1000)
        await until(rig, lambda status: status.fired is not None)
        await told(rig, closed)
        assert rig.truth(order)["state"] == "cancelled"


async def test_a_lane_whose_key_is_refused_is_flattened_once_the_key_is_put_right(redis_url: str) -> None:
    """Until then nothing can be done, and nobody may take it for done."""
    async with desk(redis_url) as rig:
        orders = orders_of(rig)
        rig.fault("code:40014", count=None)
        await rig.send(symbol="BTCUSDT", order_id=orders[0])
        async with asyncio.timeout(10):
            while not await rig.client.hexists(rig.lane.key("hold"), "*|auth"):
                await command(rig.client, "XREAD", "BLOCK", 50, "STREAMS", rig.lane.results, "$")
        await rig.client.set(rig.lane.guard, "1", px=800)
        await told(rig, fired)
        assert (await status_of(rig)).trouble
        assert not [event for event in await rig.events() if closed(event)]
        rig.simulator.core.faults.clear()
        assert "key" in await operate.resume(rig.client, rig.lane, "bob")
        await told(rig, closed)
        assert {rig.truth(order)["state"] for order in orders} == {"cancelled"}


async def test_a_refused_round_is_asked_again_for_what_was_open_then(redis_url: str) -> None:
    """The first round is rejected by the venue; meanwhile the strategy is back with a new order and no guard."""
    async with desk(redis_url, venue="bybit") as rig:
        await rig.ready()
        old = rig.order()
        rig.fault("code:10001", endpoint="cancel-all", count=None)
        await rig.client.set(rig.lane.guard, "1", px=800)
        first = await told(rig, fired)
        deadline = first.id.split("-")[2]
        await rig.final(f"guard-{deadline}-order")
        new = rig.order(created_ms=time.time_ns() // 1_000_000)
        done = await told(rig, closed)
        assert done.id == f"op-guard-{deadline}-done"
        assert (await rig.final(f"guard-{deadline}.2-order")).status is Status.cancelled
        assert rig.truth(old)["state"] == "cancelled"
        assert rig.truth(new)["state"] == "live", "a later round never touches what is newer than the firing"


async def test_a_guard_that_is_armed_again_ends_the_rounds(redis_url: str) -> None:
    async with desk(redis_url, venue="bybit") as rig:
        await rig.ready()
        rig.order()
        rig.fault("code:10001", count=None)
        await rig.client.set(rig.lane.guard, "1", px=800)
        await told(rig, fired)
        await rig.client.set(rig.lane.guard, "1", px=600_000)
        event = await told(rig, closed)
        assert event.id.endswith("-armed-again")


async def test_firing_twice_admits_once(redis_url: str) -> None:
    """Many workers look at one missed deadline at the same moment."""
    async with desk(redis_url, workers=4) as rig:
        await rig.ready()
        orders = [rig.order() for _ in range(20)]
        for _ in range(3):
            await rig.client.set(rig.lane.guard, "1", px=700)
            await until(rig, lambda status: status.left_ms is None and not status.missed)
        await told(rig, closed)
        firings = [e for e in await rig.events() if fired(e)]
        assert len(firings) == len({e.id for e in firings})
        assert {rig.truth(order)["state"] for order in orders} == {"cancelled"}
        for event in firings:
            await rig.finals([id_.strip() for id_ in (event.detail or "").split("asked as")[1].split(",")])


async def test_a_lane_nobody_ever_served_cannot_be_guarded(redis_url: str) -> None:
    guard = Guard(redis_url, "bitget:mian", ttl_s=5)
    with pytest.raises(NotAccepted):
        await asyncio.to_thread(guard.arm)
    guard.close()


@pytest.mark.parametrize("ttl_s", [0.5, 100_000.0])
def test_a_time_that_guards_nothing_is_refused(ttl_s: float) -> None:
    with pytest.raises(ValueError, match="ttl_s"):
        Guard("redis://127.0.0.1:1", "bitget:main", ttl_s=ttl_s)


async def test_the_command_arms_shows_and_disarms(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()

        async def run(*args: str) -> tuple[int, str, str]:
            code = await asyncio.to_thread(cli.run, args, {"CANCELQ_REDIS_URL": redis_url})
            out, err = capsys.readouterr()
            return code, out.splitlines()[-1] if out else "", err

        capsys.readouterr()  # what the workers of this process have logged
        assert await run("guard", "bitget:main") == (0, "bitget:main: not guarded", "")
        code, out, _ = await run("guard", "bitget:main", "--ttl", "10m", "--once")
        assert code == 0
        assert out.startswith("bitget:main is guarded")
        code, out, _ = await run("guard", "bitget:main", "--json")
        shown = json.loads(out)
        assert shown["armed"]
        assert 590_000 < shown["left_ms"] <= 600_000
        code, out, _ = await run("guard", "bitget:main", "--off")
        assert (code, out) == (0, "bitget:main is not guarded any more")
        assert [(e.act, e.detail) for e in await rig.events()] == [
            ("guard", "the guard is armed for 600 s at a time"),
            ("guard", "the guard is disarmed"),
        ]
        assert (await run("guard", "bitget:main", "--ttl", "x"))[0] == 2
        assert (await run("guard", "bitget:main", "--ttl", "10s", "--off"))[0] == 2
        assert (await run("guard", "bitget:mian", "--ttl", "10s", "--once"))[0] == 1


def test_keys_are_the_contract_s() -> None:
    assert Lane("bitget", "main").guard == "cancelq:{bitget:main}:guard"


async def test_the_venue_s_own_timer_is_set_while_the_guard_is_kept_and_closed_after(redis_url: str) -> None:
    env = {"CANCELQ_ACCOUNTS__BINGX__MAIN__VENUE_TIMER": "true"}
    async with desk(redis_url, venue="bingx", workers=2, env=env) as rig:
        await rig.ready()
        guard = AsyncGuard(redis_url, rig.lane, ttl_s=60, keep=False)
        await guard.arm()
        first, *_ = await rig.calls("cancelAllAfter")
        assert first["code"] == "0", "signed as the venue wants it"
        assert await rig.client.get(rig.lane.key("timer")) == b"65"
        await rig.calls("cancelAllAfter", least=3)  # set anew every few seconds
        await guard.disarm()
        await guard.aclose()
        async with asyncio.timeout(10):
            while await rig.client.exists(rig.lane.key("timer")):
                await command(rig.client, "XREAD", "BLOCK", 50, "STREAMS", rig.lane.results, "$")
        assert {call["code"] for call in await rig.calls("cancelAllAfter", least=4)} == {"0"}


async def test_a_timer_that_the_venue_would_not_close_is_closed_again(redis_url: str) -> None:
    """It would cancel everything after a strategy has said goodbye."""
    env = {"CANCELQ_ACCOUNTS__BINGX__MAIN__VENUE_TIMER": "true"}
    async with desk(redis_url, venue="bingx", env=env) as rig:
        await rig.ready()
        rig.fault("code:100500", endpoint="cancelAllAfter", count=1)
        await rig.client.set(rig.lane.key("timer"), "65")
        first, second, *_ = await rig.calls("cancelAllAfter", least=2)
        assert (first["code"], second["code"]) == ("100500", "0")


async def test_a_guard_of_minutes_sets_the_venue_s_own_timer_to_the_longest_it_takes(redis_url: str) -> None:
    env = {"CANCELQ_ACCOUNTS__BINGX__MAIN__VENUE_TIMER": "true"}
    async with desk(redis_url, venue="bingx", env=env) as rig:
        await rig.ready()
        await rig.client.set(rig.lane.guard, "1", px=600_000)
        first, *_ = await rig.calls("cancelAllAfter")
        assert first["code"] == "0"
        assert await rig.client.get(rig.lane.key("timer")) == b"120"


async def test_a_fleet_that_died_is_covered_by_the_venue_s_own_timer(redis_url: str) -> None:
    """The one process there is gets kill -9 while the guard is kept; the venue's shortest time is ten seconds."""
    async with desk(redis_url, venue="bingx", workers=0) as rig:
        env = {**rig.environment(), "CANCELQ_ACCOUNTS__BINGX__MAIN__VENUE_TIMER": "true"}
        async with running(env, "worker") as fleet:
            await fleet.expect("watching lane")
            order = rig.order()
            await rig.client.set(rig.lane.guard, "1", px=4_000)
            await rig.calls("cancelAllAfter")
            fleet.process.kill()
        assert rig.truth(order)["state"] == "live"
        async with asyncio.timeout(30):
            while rig.truth(order)["state"] == "live":
                await command(rig.client, "XREAD", "BLOCK", 100, "STREAMS", rig.lane.inbox, "$")
        assert rig.truth(order)["state"] == "cancelled"


@pytest.mark.parametrize("venue", ["BITGET", "BYBIT"])
def test_a_timer_the_venue_does_not_have_is_an_error_that_names_it(venue: str) -> None:
    with pytest.raises(SettingsError, match="has no timer of its own"):
        Settings.load(None, {f"CANCELQ_ACCOUNTS__{venue}__MAIN__VENUE_TIMER": "true"}, need_keys=False)


async def test_after_the_last_round_it_is_given_up_aloud_and_status_is_unhealthy(redis_url: str) -> None:
    """The last round's intent is nowhere to be found: nobody may take that for an empty lane."""
    async with desk(redis_url) as rig:
        await rig.ready()
        deadline = str(time.time_ns() // 1_000_000)
        await rig.client.set(rig.lane.key("fired"), f"{deadline} 10 {deadline} open 0-0 guard-{deadline}.10-order")
        event = await told(rig, closed)
        assert event.id == f"op-guard-{deadline}-given-up"
        assert "a person must look" in (event.detail or "")
        found = await status_of(rig)
        assert found.trouble
        assert "given up after 10 rounds" in found.text
        env = {"CANCELQ_REDIS_URL": redis_url}
        for asked in (["guard", "bitget:main"], ["status"]):
            assert await asyncio.to_thread(cli.run, asked, env) == 1, asked
        await rig.client.set(rig.lane.guard, "1", px=60_000)
        assert not (await status_of(rig)).trouble, "somebody is at work again"
        await rig.client.delete(rig.lane.guard, rig.lane.key("armed"))
        assert (await status_of(rig)).trouble
        guard = AsyncGuard(redis_url, rig.lane, ttl_s=60, keep=False)
        await guard.disarm()
        await guard.aclose()
        assert not (await status_of(rig)).trouble
        assert await asyncio.to_thread(cli.run, ["status"], env) == 0


@pytest.mark.parametrize("kept", ["nonsense", "1 x 3 open 0-0 a", ""])
async def test_what_somebody_else_left_in_its_keys_stops_nobody(redis_url: str, kept: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        await rig.client.mset({rig.lane.key("fired"): kept, rig.lane.key("armed"): kept or "x"})
        order = rig.order()
        await told(rig, closed)
        assert rig.truth(order)["state"] == "cancelled"


async def leave_unresolved(rig: Rig, *, timer: bool = False) -> str:
    """The first round of a firing ended as unresolved; its deadline."""
    deadline = str(time.time_ns() // 1_000_000)
    id_ = f"guard-{deadline}-order"
    event = events.head(rig.lane, id_, Status.unresolved, "query", "the venue would not say")
    await rig.client.xadd(rig.lane.results, cast("dict[Any, Any]", event))
    keys = {rig.lane.key("fired"): f"{deadline} 1 {deadline} open 0-0 {id_}"}
    await rig.client.mset({**keys, **({rig.lane.key("timer"): "65"} if timer else {})})
    return deadline


async def test_a_round_that_ended_unresolved_is_asked_again(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        order = rig.order()
        deadline = await leave_unresolved(rig)
        await told(rig, closed)
        assert rig.truth(order)["state"] == "cancelled"
        assert (await rig.final(f"guard-{deadline}.2-order")).status is Status.cancelled
        kept = (await command(rig.client, "GET", rig.lane.key("fired"))).decode().split()
        assert kept[:4] == [deadline, "2", deadline, "done"], "a third round would ask for what was open at the firing"


async def test_the_venue_s_own_timer_runs_until_the_lane_is_empty(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx") as rig:
        await rig.ready()
        order = rig.order()
        await leave_unresolved(rig, timer=True)
        await told(rig, closed)
        await rig.calls("cancelAllAfter")
        called = list(rig.simulator.calls().entries)
        emptied = next(nth for nth, call in enumerate(called) if order in call["ids"])
        assert not [call for call in called[:emptied] if "cancelAllAfter" in str(call["endpoint"])]


async def beaten(rig: Rig, guard: Guard, *, well: bool) -> None:
    """Until the thread's last beat went well, or failed."""
    async with asyncio.timeout(10):
        while (guard.trouble is None) is not well:
            await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")


async def test_a_beat_that_failed_is_followed_by_another(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig:
        await rig.client.xadd(rig.lane.inbox, {"symbol": "BTCUSDT"})  # as if the lane had been served
        with Guard(redis_url, rig.lane, ttl_s=TTL_S) as guard:
            async with rig.client.pipeline(transaction=True) as pipe:
                pipe.delete(rig.lane.guard)
                pipe.rpush(rig.lane.guard, "no text: each beat is refused")
                await pipe.execute()
            await beaten(rig, guard, well=False)
            await rig.client.delete(rig.lane.guard)
            await beaten(rig, guard, well=True)
            assert await rig.client.pttl(rig.lane.guard) > 0


def test_a_beat_that_failed_is_tried_again_sooner() -> None:
    words = Words("bitget:main", 10.0)
    assert words.pause_s(None) == pytest.approx(10.0 / 3)
    assert words.pause_s(NotAccepted("bitget:main")) == 1.0


def test_a_beat_that_hangs_fails_early_enough_for_another() -> None:
    assert _options(3.0) == options(1.0)
    assert _options(600.0) == options(5.0)


def test_disarming_ends_what_a_firing_left_to_be_followed() -> None:
    lane = Lane("bitget", "main")
    keys = (lane.guard, lane.key("armed"), lane.key("fired"))
    assert Words(lane, 10.0).disarm(1, told=False) == [("DEL", *keys)]


@pytest.mark.parametrize("kind", [Guard, AsyncGuard])
async def test_a_guard_is_disarmed_while_memory_is_full(
    redis_server: RedisServer, kind: type[Guard] | type[AsyncGuard]
) -> None:
    """Else a strategy that ends in good order leaves its lane to be flattened."""
    lane = Lane("bitget", "main")
    with redis_server.client() as client:
        client.xadd(lane.inbox, {"symbol": "BTCUSDT"})  # as if the lane had been served
        if kind is Guard:
            with Guard(redis_server.url, lane, keep=False):
                client.config_set("maxmemory", 1)
        else:
            async with AsyncGuard(redis_server.url, lane, keep=False):
                client.config_set("maxmemory", 1)
        assert client.exists(lane.guard, lane.key("armed")) == 0


def test_arming_and_disarming_are_told_by_the_servers_clock(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = Lane("bitget", "main")
    with Redis.from_url(redis_url) as client, monkeypatch.context() as ahead:
        client.xadd(lane.inbox, {"symbol": "BTCUSDT"})  # as if the lane had been served
        guard = Guard(client, lane, ttl_s=60.0, keep=False)
        client.xgroup_create(lane.results, "reader", mkstream=True)
        ahead.setattr(time, "time_ns", lambda: 4_000_000_000_000_000_000)
        guard.arm(told=True)
        guard.disarm()
        guard.close()
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(lane.results))
    assert len(entries) == 2
    for entry_id, fields in entries:
        assert abs(int(fields[b"settled_us"]) // 1000 - int(entry_id.partition(b"-")[0])) < 10_000


def test_a_beat_that_finds_the_guard_gone_is_counted_and_arms_it_again(redis_url: str) -> None:
    lane = Lane("bitget", "main")
    with Redis.from_url(redis_url) as client:
        client.xadd(lane.inbox, {"symbol": "BTCUSDT"})  # as if the lane had been served
        with Guard(client, lane, ttl_s=60.0, keep=False) as guard:
            assert guard.beat()
            client.delete(lane.guard)
            assert not guard.beat()
            assert guard.beat()
            assert guard.lapses == 1


async def test_the_keys_of_many_lanes_are_read_by_few_commands(redis_url: str) -> None:
    """Every worker looks twice a second at every lane it watches."""
    client = connect(redis_url)
    lanes = [Lane("bitget", f"t{number}") for number in range(2 * LANES_A_COMMAND + 20)]
    try:
        await client.mset({lanes[0].key("version"): 7, lanes[LANES_A_COMMAND].guard: 1, lanes[-1].key("timer"): 60})
        before = await reads(client)
        kept = await kept_of(client, lanes)
        assert await reads(client) - before == 3
        assert {lanes[n]: it for n, it in enumerate(kept) if it != Kept(None, None, None, None, None)} == {
            lanes[0]: Kept(None, None, None, None, b"7"),
            lanes[LANES_A_COMMAND]: Kept(b"1", None, None, None, None),
            lanes[-1]: Kept(None, None, None, b"60", None),
        }
    finally:
        await client.aclose()


async def reads(client: aioredis.Redis) -> int:
    stats: Any = await client.info("commandstats")
    return int(stats.get("cmdstat_mget", {"calls": 0})["calls"])
