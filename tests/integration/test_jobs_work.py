"""What the jobs do to a lane, end to end: a real server, real workers, the simulated venue."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cancelq.contract import Event, Lane, Status
from cancelq_worker.jobs import redrive
from cancelq_worker.jobs.reconcile import Reconciled, _whose_turn, reconcile
from cancelq_worker.jobs.table import PREFIX, NotEmpty, table_of
from cancelq_worker.jobs.unresolved import Unresolved
from cancelq_worker.settings import Settings, SettingsError
from cancelq_worker.settings_jobs import Jobs, Sweep
from cancelq_worker.simulator.orders import State
from cancelq_worker.trips import command
from tests.integration.rig import Rig, desk
from tests.unit.test_client_lost_replies import Listener

pytestmark = pytest.mark.one_server

ONE_TRY = {"CANCELQ_MAX_ATTEMPTS": "1", "CANCELQ_LOOKUP_BUDGET_MS": "1000"}
VENUES = ["bitget", "bybit", "bingx"]


@contextmanager
def sync(rig: Rig) -> Iterator[Redis]:
    with Redis.from_url(rig.redis_url, protocol=2) as client:
        yield client


@asynccontextmanager
async def unresolved(redis_url: str, venue: str = "bitget", **fields: str) -> AsyncIterator[tuple[Rig, str, str]]:
    """A desk with one order that the venue would not cancel: the rig, the order, and its `unresolved` intent."""
    async with desk(redis_url, venue=venue, env=ONE_TRY) as rig:
        order_id = rig.order()
        rig.simulator.configure({"stuck_ids": [order_id]})
        sent = await rig.send(symbol=rig.spelt("BTC", "USDT"), order_id=order_id, strategy="mm", x_leg="1", **fields)
        event = await rig.final(sent)
        assert event.status is Status.unresolved
        yield rig, order_id, sent


async def looked(rig: Rig, since: int) -> None:
    """Wakes the lane, and waits until every look back is over and its look was at the venue's door."""
    await rig.send(scope="revoke", target="nobody")
    async with asyncio.timeout(15):
        while any(b"back/" in id_ for id_ in await rig.client.hkeys(rig.lane.key("state"))) or calls(rig) == since:
            await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")


def calls(rig: Rig) -> int:
    return len(rig.simulator.calls().entries)


def cancels(rig: Rig) -> int:
    return sum(1 for call in rig.simulator.calls().entries if "cancel" in str(call["endpoint"]).lower())


async def resolved(rig: Rig, id_: str) -> list[Event]:
    return [event for event in await rig.of(id_) if event.status is Status.resolved]


async def back(rig: Rig, lane: Lane) -> Reconciled:
    with sync(rig) as client:
        return await asyncio.to_thread(reconcile, client, lane, since_ms=0, turn=0)


async def looked_back(rig: Rig) -> None:
    """The one unresolved intent was asked after, and the looks back are over."""
    seen = calls(rig)
    assert await back(rig, rig.lane) == Reconciled(1, 1, 0)
    await looked(rig, seen)


@pytest.mark.parametrize("venue", VENUES)
async def test_a_look_back_tells_the_later_truth_and_never_cancels(redis_url: str, venue: str) -> None:
    async with unresolved(redis_url, venue) as (rig, order_id, sent):
        rig.simulator.configure({"stuck_ids": []})
        sent_cancels = cancels(rig)
        await looked_back(rig)
        # Still open: nothing is told, and above all nothing is cancelled.
        assert await resolved(rig, sent) == []
        assert rig.truth(order_id)["state"] == "live"
        rig.simulator.move_order(order_id, State("filled"), venue=venue)
        await looked_back(rig)
        (told,) = await resolved(rig, sent)
        assert (told.outcome, told.evidence, told.final, told.attempt) == ("filled", "query", False, None)
        assert (told.order_id, told.strategy, told.extras["x_leg"]) == (order_id, "mm", "1")
        assert cancels(rig) == sent_cancels
        # What is known now is not asked again, and no final event was added.
        assert await back(rig, rig.lane) == Reconciled(0, 0, 0)
        assert [event.status for event in await rig.of(sent) if event.final] == [Status.unresolved]
        assert not [event for event in await rig.events() if event.id.startswith("back")]
        assert await rig.client.hlen(rig.lane.key("orders")) == 0


@pytest.mark.parametrize(("venue", "scope"), [("bitget", "symbol"), ("bybit", "account"), ("bingx", "symbol")])
async def test_a_sweep_is_resolved_once_nothing_it_meant_is_open(redis_url: str, venue: str, scope: str) -> None:
    async with desk(redis_url, venue=venue, env=ONE_TRY) as rig:
        pair = rig.spelt("BTC", "USDT")
        order_id = rig.order()
        rig.simulator.configure({"stuck_ids": [order_id]})
        sent = await rig.send(scope=scope, **({"symbol": pair} if scope == "symbol" else {}))
        assert (await rig.final(sent, within_s=60)).status is Status.unresolved
        rig.simulator.configure({"stuck_ids": []})
        await rig.client.delete(rig.lane.key("sweeps"))
        newer = rig.order(created_ms=time.time_ns() // 1_000_000)
        made = cancels(rig)
        await looked_back(rig)
        assert await resolved(rig, sent) == []
        assert rig.truth(order_id)["state"] == "live"
        rig.simulator.move_order(order_id, State("filled"), venue=venue)
        await looked_back(rig)
        (told,) = await resolved(rig, sent)
        assert (told.outcome, told.evidence, told.final, told.scope) == ("cancelled", "query", False, scope)
        assert rig.truth(newer)["state"] == "live"
        assert cancels(rig) == made
        assert await back(rig, rig.lane) == Reconciled(0, 0, 0)
        # Nobody's orders were left to it, as they are to a sweep that cancels.
        assert not await rig.client.exists(rig.lane.key("sweeps"))


async def test_a_look_back_that_is_under_way_is_not_made_twice(redis_url: str) -> None:
    async with unresolved(redis_url) as (rig, order_id, sent):
        await rig.stop()
        assert await back(rig, rig.lane) == Reconciled(1, 1, 0)
        assert await back(rig, rig.lane) == Reconciled(1, 0, 1)
        rig.simulator.move_order(order_id, State("cancelled"))
        rig.start("later")
        async with asyncio.timeout(20):
            while not await resolved(rig, sent):
                await command(rig.client, "XREAD", "BLOCK", 50, "STREAMS", rig.lane.results, "$")
        (told,) = await resolved(rig, sent)
        assert told.outcome == "cancelled"


async def test_an_order_that_no_place_shows_is_not_called_gone(redis_url: str) -> None:
    """`unresolved` once, it may have been known to the venue: only an end that is stated counts."""
    async with unresolved(redis_url, "bybit") as (rig, _, sent):
        rig.simulator.configure({"stuck_ids": []})
        other = await rig.send(symbol="BTCUSDT", order_id="1999999999999999999")
        await rig.final(other)
        queued_us = f"{other.split('-')[0]}000"
        told = {"id": other, "status": "unresolved", "final": "1", "scope": "order", "queued_us": queued_us}
        await rig.client.xadd(rig.lane.results, told)  # type: ignore[arg-type]  # redis-py's mapping is invariant
        seen = calls(rig)
        await back(rig, rig.lane)
        await looked(rig, seen)
        assert await resolved(rig, other) == []
        assert await resolved(rig, sent) == []


async def test_redrive_sends_again_once_under_a_new_id_that_names_the_old(redis_url: str) -> None:
    async with unresolved(redis_url, expires_at_ms=str(time.time_ns() // 1_000_000 + 60_000)) as (rig, order_id, sent):
        rig.simulator.configure({"stuck_ids": []})
        with sync(rig) as client:
            plan = await asyncio.to_thread(redrive.plan, client, rig.lane)
            again = redrive.redriven_id(rig.lane, sent)
            assert plan.again[sent]["id"] == again
            assert "expires_at_ms" not in plan.again[sent]
            await asyncio.to_thread(redrive.send, client, plan, "ann@desk")
            event = await rig.final(again)
            assert (event.status, event.origin, event.strategy, event.extras["x_leg"]) == ("cancelled", sent, "mm", "1")
            assert rig.truth(order_id)["state"] == "cancelled"
            (act,) = [event for event in await rig.events() if event.status is Status.operator]
            assert (act.act, act.actor) == ("redrive", "ann@desk")
            assert sent in (act.detail or "")
            plan = await asyncio.to_thread(redrive.plan, client, rig.lane)
            assert (plan.again, plan.left) == ({}, {})
            named = await asyncio.to_thread(redrive.plan, client, rig.lane, ids=[sent, "nobody"])
            assert named.again == {}
            assert set(named.left) == {sent, "nobody"}


async def test_two_redrives_at_once_are_one_cancel(redis_url: str) -> None:
    async with unresolved(redis_url) as (rig, _, sent):
        rig.simulator.configure({"stuck_ids": []})
        before = cancels(rig)
        with sync(rig) as client:
            plans = [await asyncio.to_thread(redrive.plan, client, rig.lane) for _ in range(2)]
            for plan in plans:
                await asyncio.to_thread(redrive.send, client, plan, "ann@desk")
            assert (await rig.final(redrive.redriven_id(rig.lane, sent))).status is Status.cancelled
        assert cancels(rig) == before + 1


async def test_what_was_resolved_since_is_not_sent_again(redis_url: str) -> None:
    async with unresolved(redis_url) as (rig, _, sent):
        resolved_event = {"id": sent, "status": "resolved", "final": "0", "outcome": "cancelled"}
        await rig.client.xadd(rig.lane.results, resolved_event)  # type: ignore[arg-type]  # redis-py's mapping is invariant
        with sync(rig) as client:
            assert (await asyncio.to_thread(redrive.plan, client, rig.lane)).again == {}


async def test_a_redriven_sweep_spares_what_is_newer_than_the_first(redis_url: str) -> None:
    async with desk(redis_url, env={**ONE_TRY, "CANCELQ_LEASE_MS": "3000"}) as rig:
        await rig.ready()
        asked_ms = time.time_ns() // 1_000_000 - 5_000
        entry_id = f"{asked_ms}-0"
        old, new = rig.order(created_ms=asked_ms - 60_000), rig.order(created_ms=asked_ms + 2_000)
        await rig.stop()
        # An intent of five seconds ago that ended as unresolved: its inbox entry and its event, as a worker writes it.
        await rig.client.delete(rig.lane.inbox)
        await rig.client.xadd(rig.lane.inbox, {"scope": "symbol", "symbol": "BTCUSDT", "id": "old"}, id=entry_id)
        await rig.client.set(rig.lane.key("cursor"), entry_id)
        told = {"id": "old", "status": "unresolved", "final": "1", "scope": "symbol", "queued_us": f"{asked_ms}000"}
        await rig.client.xadd(rig.lane.results, told)  # type: ignore[arg-type]
        rig.start("later")
        with sync(rig) as client:
            plan = await asyncio.to_thread(redrive.plan, client, rig.lane)
            assert plan.again["old"]["older_than_ms"] == str(asked_ms)
            await asyncio.to_thread(redrive.send, client, plan, "ann@desk")
        assert (await rig.final(plan.again["old"]["id"])).status is Status.cancelled
        assert (rig.truth(old)["state"], rig.truth(new)["state"]) == ("cancelled", "live")


async def test_a_sweep_cancels_what_is_old_once_a_period(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        now_ms = time.time_ns() // 1_000_000
        old, new = rig.order(created_ms=now_ms - 7_200_000), rig.order(created_ms=now_ms - 60_000)
        env = {"CANCELQ_JOBS__SWEEP__BITGET__MAIN__EVERY": "5m", "CANCELQ_JOBS__SWEEP__BITGET__MAIN__OLDER_THAN": "1h"}
        table = table_of(Settings.load(None, rig.environment(**env)))
        sweep, begun_ms = table[PREFIX + "sweep"].run, now_ms - now_ms % 300_000
        ids = [str(await asyncio.to_thread(sweep, "job", "bitget:main", begun_ms)) for _ in range(3)]
        assert ids == [f"sweep-{begun_ms}"] * 3
        event = await rig.final(ids[0])
        assert (event.status, event.reason, event.priority) == ("cancelled", "sweep", "normal")
        assert (rig.truth(old)["state"], rig.truth(new)["state"]) == ("cancelled", "live")
        assert len([e for e in await rig.of(ids[0]) if e.status is Status.accepted]) <= 1


def test_a_lane_without_a_sweep_in_the_settings_is_not_swept(redis_url: str) -> None:
    table = table_of(Settings(redis_url=redis_url))
    with pytest.raises(SettingsError, match=r"bitget:main has no sweep; add \[jobs.sweep.bitget.main\]"):
        table[PREFIX + "sweep"].run("job", "bitget:main", 0)


def test_a_sweep_asks_for_the_same_in_one_period_and_for_nothing_younger() -> None:
    sweep = Sweep.model_validate({"every": "5m", "older_than": "1h", "symbol": "BTCUSDT", "client_prefix": "mm"})
    assert sweep.fields(1_800_000_000_000) == {
        "id": "sweep-1800000000000",
        "scope": "symbol",
        "symbol": "BTCUSDT",
        "client_prefix": "mm",
        "kinds": "order",
        "older_than_ms": "1799996400000",
        "reason": "sweep",
    }
    assert list(Jobs().periods()) == []


async def test_flatten_is_the_kill_switch_as_a_job(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        orders = [rig.order(), rig.order(symbol="ETHUSDT"), rig.order(kind="tpsl")]
        await rig.ready()
        table = table_of(Settings.load(None, rig.environment()))
        done = await table[PREFIX + "flatten"].run("job-1", "bitget:main")  # type: ignore[misc]  # any duty may be a coroutine
        assert done["rounds"] >= 1
        assert {rig.truth(order)["state"] for order in orders} == {"cancelled"}
        (act,) = [event for event in await rig.events() if event.status is Status.operator]
        assert (act.act, act.actor) == ("flatten", "job-job-1")


class WithoutTimes(Listener):
    """Stands between a worker and the venue, and blanks every order's creation time in what the venue answers."""

    def __init__(self, base_url: str) -> None:
        self._port = int(base_url.rpartition(":")[2])
        self.blanked = 0
        super().__init__()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.ensure_future(self._blank(up_reader, writer))
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            while data := await reader.read(65536):
                up_writer.write(data)
        back.cancel()
        up_writer.close()
        writer.close()

    async def _blank(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            while data := await reader.read(1 << 20):
                # As long as before, so that the length the answer names stays true.
                data, count = re.subn(rb'"cTime":"(\d+)"', lambda m: b'"cTime":""' + b" " * len(m[1]), data)
                self.blanked += count
                writer.write(data)


async def test_a_sweep_never_cancels_an_order_whose_age_the_venue_does_not_tell(redis_url: str) -> None:
    async with desk(redis_url, workers=0) as rig:
        old = rig.order(created_ms=time.time_ns() // 1_000_000 - 7_200_000)
        env = {"CANCELQ_JOBS__SWEEP__BITGET__MAIN__EVERY": "5m", "CANCELQ_JOBS__SWEEP__BITGET__MAIN__OLDER_THAN": "1h"}
        between = await asyncio.to_thread(WithoutTimes, rig.base_url)
        try:
            rig.base_url = f"http://127.0.0.1:{between.port}"
            rig.start()
            await rig.ready()
            table = table_of(Settings.load(None, rig.environment(**env)))
            sweep = table[PREFIX + "sweep"].run
            await asyncio.to_thread(sweep, "job", "bitget:main", time.time_ns() // 1_000_000)
            await rig.calls("unfilled-orders", least=4)  # passes that could have cancelled
            assert between.blanked >= 3
            assert rig.truth(old)["state"] == "live"
            assert cancels(rig) == 0
            await rig.stop()
        finally:
            await asyncio.to_thread(between.close)


async def test_the_archive_is_a_job_too(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url) as rig:
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        bare = table_of(Settings.load(None, rig.environment()))
        with pytest.raises(SettingsError, match="set archive_dir"):
            bare[PREFIX + "archive"].run("job", "bitget:main")
        table = table_of(Settings.load(None, rig.environment(CANCELQ_ARCHIVE_DIR=str(tmp_path))))
        first = await asyncio.to_thread(table[PREFIX + "archive"].run, "job", "bitget:main")
        again = await asyncio.to_thread(table[PREFIX + "archive"].run, "job", "bitget:main")
        assert isinstance(first, dict)
        assert isinstance(again, dict)
        # What is younger than a minute is left for the next run, as a failover may still take it back.
        assert (first["events"], again["events"]) == (0, 0)


def test_of_intents_queued_in_one_millisecond_redrive_sends_the_unresolved_one(redis_url: str) -> None:
    lane, at_ms = Lane("bitget", "main"), time.time_ns() // 1_000_000 - 5_000
    with Redis.from_url(redis_url, protocol=2) as client:
        for nth, name in enumerate(("before", "meant", "after")):
            client.xadd(lane.inbox, {"id": name, "symbol": "BTCUSDT", "order_id": f"10{nth}"}, id=f"{at_ms}-{nth}")
        told = {"id": "meant", "status": "unresolved", "final": "1", "scope": "order", "queued_us": f"{at_ms}000"}
        client.xadd(lane.results, told)
        (entry,) = redrive.plan(client, lane).again.values()
    assert (entry["order_id"], entry["origin"]) == ("101", "meant")


async def test_flatten_fails_as_a_job_where_an_order_stays_open(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cancelq_worker.jobs.table.FLATTEN_S", 5.0)
    async with desk(redis_url, env=ONE_TRY) as rig:
        stuck, other = rig.order(), rig.order()
        rig.simulator.configure({"stuck_ids": [stuck]})
        await rig.ready()
        table = table_of(Settings.load(None, rig.environment()))
        with pytest.raises(NotEmpty, match="1 still open"):
            await table[PREFIX + "flatten"].run("job-1", "bitget:main")  # type: ignore[misc]  # any duty may be a coroutine
        assert (rig.truth(stuck)["state"], rig.truth(other)["state"]) == ("live", "cancelled")


def test_whose_turn_it_is_moves_on_until_all_had_theirs() -> None:
    found = [Unresolved(f"i-{n}", {}) for n in range(25)]
    turns = [[one.id for one in _whose_turn(found, turn, 10)] for turn in range(3)]
    assert {id_ for ids in turns for id_ in ids} == {one.id for one in found}
    assert [len(ids) for ids in turns] == [10, 10, 10]
    assert _whose_turn(found[:5], 7, 10) == found[:5]


def test_what_is_redriven_keeps_its_own_bound_and_what_was_learnt_and_loses_its_times(redis_url: str) -> None:
    lane, at_ms = Lane("bitget", "main"), time.time_ns() // 1_000_000 - 5_000
    asked: dict[str, dict[str, str]] = {
        "sweep": {"scope": "symbol", "symbol": "BTCUSDT", "older_than_ms": str(at_ms - 60_000)},
        "order": {"symbol": "BTCUSDT", "client_order_id": "mine", "expires_at_ms": str(at_ms + 1_000)},
    }
    with Redis.from_url(redis_url, protocol=2) as client:
        for nth, (id_, fields) in enumerate(asked.items()):
            entry: dict[Any, Any] = {"id": id_, **fields}
            client.xadd(lane.inbox, entry, f"{at_ms}-{nth}")
            told = {"id": id_, "status": "unresolved", "final": "1", "queued_us": f"{at_ms}000"}
            told |= {"scope": "symbol"} if id_ == "sweep" else {"scope": "order", "order_id": "77"}
            client.xadd(lane.results, {**told})
        again = redrive.plan(client, lane).again
        alone = redrive.plan(client, lane, ids=["order"]).again
    assert again["sweep"]["older_than_ms"] == str(at_ms - 60_000)
    assert again["order"]["order_id"] == "77"
    assert "expires_at_ms" not in again["order"]
    assert set(alone) == {"order"}
