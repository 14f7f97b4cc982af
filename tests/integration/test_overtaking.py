"""Urgent entries are admitted before their turn, once, whoever knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from cancelq.contract import Status
from cancelq_worker import operate
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.overtaking import AHEAD_MOST, Overtaker
from cancelq_worker.records import RoundRequest, Scanned
from cancelq_worker.state import State
from cancelq_worker.trips import command
from tests.integration.lone_ledger import Desk, lone_desk
from tests.integration.rig import LANE, desk


@pytest.fixture
async def desk_alone(redis_url: str) -> AsyncIterator[Desk]:
    async with lone_desk(redis_url) as found:
        yield found


async def test_what_was_admitted_ahead_is_passed_once_by_whoever_comes(desk_alone: Desk) -> None:
    calm = await desk_alone.add(symbol="BTCUSDT", order_id="1")
    urgent = await desk_alone.add(symbol="BTCUSDT", order_id="2", priority="urgent")
    await desk_alone.add(symbol="BTCUSDT", order_id="3", id="own", priority="urgent")
    entries = await desk_alone.read()
    assert (await desk_alone.overtake(entries[1:])).admitted == 2
    assert (await desk_alone.overtake(entries[1:])).admitted == 0
    assert await desk_alone.intents() == sorted([urgent, "own"])
    told = await desk_alone.admit(entries)  # by a worker that has not heard of it
    assert (told.applied, set(told.overtaken or ())) == (False, {e[0] for e in entries[1:]})
    done = await desk_alone.admit(entries, told.overtaken)
    assert (done.applied, done.admitted, done.duplicates) == (True, 1, 0)
    assert await desk_alone.intents() == sorted([calm, urgent, "own"])
    assert not await desk_alone.client.exists(LANE.key("ahead"))
    assert (await desk_alone.overtake(entries[1:])).admitted == 0  # the cursor has passed them


async def test_what_overtook_and_the_server_lost_is_admitted_in_its_turn(desk_alone: Desk) -> None:
    """Another one takes over, or the same is back, without its last writes."""
    calm = await desk_alone.add(symbol="BTCUSDT", order_id="1")
    urgent = await desk_alone.add(symbol="BTCUSDT", order_id="2", priority="urgent")
    later = await desk_alone.add(symbol="BTCUSDT", order_id="3", priority="urgent")
    entries = await desk_alone.read()
    await desk_alone.overtake(entries[2:])
    told = await desk_alone.admit(entries[:2], (urgent,))  # by a worker that has heard of the one that was lost alone
    assert (told.applied, told.overtaken) == (False, (later,))
    assert (await desk_alone.admit(entries[:2], told.overtaken)).admitted == 2
    assert await desk_alone.intents() == sorted([calm, urgent, later])
    assert (await desk_alone.admit(entries[2:], told.overtaken)).applied


async def test_an_entry_that_was_deleted_after_it_overtook_stops_nobody(desk_alone: Desk) -> None:
    await desk_alone.add(symbol="BTCUSDT", order_id="1")
    urgent = await desk_alone.add(symbol="BTCUSDT", order_id="2", priority="urgent")
    await desk_alone.add(symbol="BTCUSDT", order_id="3")
    await desk_alone.overtake((await desk_alone.read())[1:2])
    await command(desk_alone.client, "XDEL", LANE.inbox, urgent)
    entries = await desk_alone.read()
    told = await desk_alone.admit(entries)
    assert (await desk_alone.admit(entries, told.overtaken)).admitted == 2
    assert not await desk_alone.client.exists(LANE.key("ahead"))


async def test_one_id_twice_is_one_intent_also_if_the_second_overtakes(desk_alone: Desk) -> None:
    await desk_alone.add(symbol="BTCUSDT", order_id="1", id="same")
    await desk_alone.add(symbol="BTCUSDT", order_id="1", id="same", priority="urgent")
    entries = await desk_alone.read()
    await desk_alone.overtake(entries[1:])
    told = await desk_alone.admit(entries)
    done = await desk_alone.admit(entries, told.overtaken)
    assert (done.admitted, done.duplicates) == (0, 1)
    assert await desk_alone.intents() == ["same"]


async def test_a_bad_urgent_entry_is_told_ahead_and_a_revocation_keeps_its_turn(desk_alone: Desk) -> None:
    target = await desk_alone.add(symbol="BTCUSDT", order_id="1")
    await desk_alone.add(scope="revoke", target=target, priority="urgent")
    await desk_alone.add(symbol="BTCUSDT", priority="urgent")
    entries = await desk_alone.read()
    await desk_alone.overtake(entries[1:])
    assert await desk_alone.intents() == []
    assert await desk_alone.client.xlen(LANE.results) == 1
    told = await desk_alone.admit(entries)
    assert told.overtaken == (entries[2][0],)
    assert (await desk_alone.admit(entries, told.overtaken)).admitted == 2
    assert await desk_alone.client.xlen(LANE.results) == 1


async def test_what_is_rejected_counts_once_however_often_it_is_read(desk_alone: Desk) -> None:
    """By two workers, or by one that looks through the inbox again after an outage."""
    await desk_alone.add(symbol="BTCUSDT", id="own", priority="urgent")
    await desk_alone.add(symbol="BTCUSDT", id="own")
    entries = await desk_alone.read()
    told = [await desk_alone.overtake(entries[:1]) for _ in range(2)]
    told.append(await desk_alone.admit(entries, (entries[0][0],)))
    assert [(done.rejected, done.duplicates) for done in told] == [(1, 0), (0, 0), (0, 1)]


async def test_all_that_is_urgent_in_a_long_inbox_is_found_in_slices(desk_alone: Desk) -> None:
    async with desk_alone.client.pipeline(transaction=False) as pipe:
        for n in range(6_000):
            priority = "urgent" if n % 1_500 == 700 else "normal"
            pipe.xadd(LANE.inbox, {"symbol": "BTCUSDT", "order_id": str(n), "priority": priority})
        ids = [entry_id.decode() for entry_id in await pipe.execute()]
    wanted = [ids[n] for n in range(700, 6_000, 1_500)]
    admitted = (await desk_alone.read())[RedisLedger.READ_MOST - 1][0]
    ahead, found = Overtaker(desk_alone.intake), list[str]()
    while (after := ahead.scan_after(admitted)) != ids[-1]:
        ahead.scanned((await desk_alone.ledger.round(RoundRequest(scan_after=after))).scanned)
        overtaking = ahead.wanted()
        if overtaking:
            ahead.overtook(overtaking, await desk_alone.overtake(list(ahead._found)))
            found += overtaking.entries
    assert found == wanted
    assert ahead.overtaken == set(wanted)


async def test_a_slice_of_which_nothing_may_overtake_does_not_end_the_search(desk_alone: Desk) -> None:
    await desk_alone.add(scope="revoke", target="some", priority="urgent")
    page = await desk_alone.read()
    ahead = Overtaker(desk_alone.intake)
    ahead.scanned(Scanned(page[-1][0], page[:1]))
    assert ahead.wanted() is None
    assert ahead.scan_after("0-0") == page[-1][0]


async def test_only_so_many_overtake_until_the_cursor_has_passed_some_of_them(desk_alone: Desk) -> None:
    ahead = Overtaker(desk_alone.intake)
    ahead.overtaken = {f"9999999999999-{n}" for n in range(AHEAD_MOST)}
    assert ahead.scan_after("1-1") is None
    ahead.passed("9999999999999-0")
    assert ahead.scan_after("1-1") == "1-1"


@pytest.mark.parametrize("workers", [1, 3])
async def test_an_urgent_cancel_overtakes_a_burst(redis_url: str, workers: int) -> None:
    async with desk(redis_url, workers=workers) as rig:
        await rig.ready()
        await operate.pause(rig.client, LANE, "test")  # so that the bulk stays where it can be asked
        bulk = await rig.send_all([{"symbol": "BTCUSDT", "order_id": str(10**18 + n)} for n in range(12_000)])
        ids = [await rig.send(symbol="BTCUSDT", order_id=rig.order(), id=f"u{n}", priority="urgent") for n in range(3)]
        finals = await rig.finals(ids)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        async with asyncio.timeout(30):
            while not (line := await cast("Any", rig.client.hget(LANE.key("state"), bulk[-1]))):
                await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", LANE.inbox, "$")
            while await rig.client.exists(LANE.key("ahead")):
                await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", LANE.inbox, "$")
        # Redis' time at which the last of the bulk was admitted.
        assert max(event.taken_us or 0 for event in finals.values()) < State.parse(line).place
        assert len(await cast("Any", rig.client.hkeys(LANE.key("intents")))) == len(bulk)
