"""Calls that could carry more keep a distance, so that a steady flow does not wait out the venue's window."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cancelq_worker.trips import command
from tests.integration.lone_ledger import Desk, lone_desk
from tests.integration.rig import LANE


@pytest.fixture
async def desk_alone(redis_url: str) -> AsyncIterator[Desk]:
    async with lone_desk(redis_url) as found:
        yield found


async def ask(desk: Desk, orders: int, **fields: str) -> None:
    """Queues and admits that many intents."""
    cursor = await desk.ledger.cursor()
    for _ in range(orders):
        await desk.add(symbol="BTCUSDT", order_id=str(await desk.client.incr("next-order")), **fields)
    await desk.admit(await desk.read(cursor))


async def test_few_orders_at_a_time_leave_permits_for_the_rest_of_the_window(desk_alone: Desk) -> None:
    calls, times_us, waits_us = 0, [], []
    for n in range(40):
        await ask(desk_alone, 2)
        taken = await desk_alone.take(f"b-{n}")
        calls += taken.batch is not None
        times_us.append(taken.wall_us)
        if taken.batch is None:
            waits_us.append(taken.wait_us)
    # A third of ten singles and of ten batches at once, then one of each for every tenth of a second.
    assert calls <= 8 + 2 * (1 + (times_us[-1] - times_us[0]) // 100_000)
    assert calls >= 8
    assert max(waits_us) <= 120_000


async def test_what_was_kept_back_goes_when_it_was_told_to(desk_alone: Desk) -> None:
    taken, n = None, 0
    while taken is None or taken.batch is not None:
        await ask(desk_alone, 2)
        taken, n = await desk_alone.take(f"b-{n}"), n + 1
    # Redis keeps the time.
    await command(desk_alone.client, "XREAD", "BLOCK", taken.wait_us // 1000 + 1, "STREAMS", "nothing", "$")
    assert (await desk_alone.take("later")).batch is not None


async def test_a_full_call_and_an_urgent_one_keep_no_distance(desk_alone: Desk) -> None:
    await ask(desk_alone, 600)
    full = [await desk_alone.take(f"f-{n}") for n in range(9)]
    assert all(taken.batch and len(taken.batch.works) == 50 for taken in full)
    await ask(desk_alone, 1, priority="urgent")
    urgent = (await desk_alone.take("u-1")).batch
    assert urgent is not None
    assert len(urgent.works) == 1


async def test_what_is_normal_steps_aside_for_an_urgent_sweep_at_first_altogether(desk_alone: Desk) -> None:
    await ask(desk_alone, 600)
    steady_us = (await desk_alone.take("first")).steady_us
    await desk_alone.client.set(LANE.key("sweeping"), f"{steady_us + 1_400_000} {steady_us}")
    aside = await desk_alone.take("n-1")
    assert aside.batch is None
    assert aside.wait_us <= 1_400_000
    await ask(desk_alone, 60, priority="urgent")
    urgent = (await desk_alone.take("u-1")).batch
    assert urgent is not None
    assert len(urgent.works) == 50


async def test_where_urgent_sweeps_go_on_and_on_normal_cancels_leave_them_most(desk_alone: Desk) -> None:
    await ask(desk_alone, 600)
    steady_us = (await desk_alone.take("first")).steady_us
    await desk_alone.client.set(LANE.key("sweeping"), f"{steady_us + 1_400_000} {steady_us - 12_000_000}")
    more = [(await desk_alone.take(f"b-{n}")).batch for n in range(4)]
    assert [batch.route for batch in more if batch] == ["cancel-order"]  # one of ten, as of the batches before
    await ask(desk_alone, 60, priority="urgent")
    urgent = (await desk_alone.take("u-1")).batch
    assert urgent is not None
    assert len(urgent.works) == 50
