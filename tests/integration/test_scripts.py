"""The scripts' own rules, one at a time: fences, leases, permits, holds, clocks. Nobody serves the lane here."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import pytest
from redis.exceptions import ResponseError

from cancelq.contract import Status
from cancelq_worker import guard_ledger, operate
from cancelq_worker.events import head
from cancelq_worker.intake import Intake
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import (
    ERRORS_MOST,
    End,
    Hold,
    LanePlan,
    Move,
    PermitUse,
    RoundRequest,
    Settlement,
    Taken,
    TakeRequest,
)  # fmt: skip
from cancelq_worker.roster import FRESH_MS, ROSTER
from cancelq_worker.scripts import SCRIPTS, Durability
from cancelq_worker.state import State, Work
from cancelq_worker.trips import command, is_memory_full
from cancelq_worker.venues.bingx.adapter import Bingx
from cancelq_worker.venues.bingx.signing import Credentials as BingxCredentials
from cancelq_worker.venues.bitget.adapter import BUCKETS, ROUTES
from cancelq_worker.venues.port import Bucket, Stage
from tests.integration.lone_ledger import SECRET, lone_desk, make_suspect
from tests.integration.rig import LANE
from tests.integration.script_bench import (
    BATCH,
    GUARD_US,
    LEASE_US,
    SINGLE,
    Bench,
    ended,
    looked_for,
    works_of,
)
from tests.servers import RedisServer

pytestmark = pytest.mark.one_server


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    async with lone_desk(redis_url) as desk:
        yield Bench(desk)


# -- fences and leases ------------------------------------------------------------------------------------------


async def test_a_settlement_with_another_fence_changes_nothing(bench: Bench) -> None:
    await bench.orders("11")
    (stalled,) = works_of(await bench.take())
    await bench.forward(LEASE_US + 1)
    (other,) = works_of(await bench.take("l"))
    assert other.fence > stalled.fence
    assert (await bench.settle(Settlement(None, [ended(stalled)]))).applied == 0
    assert await bench.told() == []
    assert (await bench.settle(Settlement(None, [ended(other)]))).applied == 1
    assert [event["status"] for event in await bench.told()] == ["cancelled"]


async def test_a_settlement_after_the_lease_ended_changes_nothing(bench: Bench) -> None:
    await bench.orders("11")
    (work,) = works_of(await bench.take())
    await bench.forward(LEASE_US + 1)
    await bench.take("")  # ends the lease, and takes nothing
    assert (await bench.settle(Settlement(None, [ended(work)]))).applied == 0
    assert await bench.told() == []


async def test_a_settlement_twice_is_one_outcome(bench: Bench) -> None:
    await bench.orders("11")
    (work,) = works_of(await bench.take())
    assert [(await bench.settle(Settlement(None, [ended(work)]))).applied for _ in range(2)] == [1, 0]
    assert len(await bench.told()) == 1


async def test_an_intent_twice_in_one_settlement_is_one_outcome(bench: Bench) -> None:
    await bench.orders("11")
    (work,) = works_of(await bench.take())
    settled = await bench.settle(Settlement(None, [ended(work), ended(work)]))
    assert (settled.applied, settled.stale) == (1, frozenset({1}))
    assert len(await bench.told()) == 1


async def test_a_cancel_whose_lease_ended_is_looked_for_and_counts_its_attempt(bench: Bench) -> None:
    await bench.orders("11")
    works_of(await bench.take())
    await bench.forward(LEASE_US + 1)
    assert (await bench.take("c")).batch is None
    (work,) = works_of(await bench.take("l"))
    assert (work.before.attempts, work.before.strikes) == (1, 1)


async def test_a_look_whose_lease_ended_is_made_again(bench: Bench) -> None:
    await bench.orders("11")
    (work,) = works_of(await bench.take())
    await bench.settle(Settlement(None, [looked_for(work)]))
    works_of(await bench.take("l"))
    await bench.forward(LEASE_US + 1)
    (again,) = works_of(await bench.take("l"))
    assert (again.before.attempts, again.before.lookups) == (1, 1)


async def test_what_was_claimed_before_its_time_still_waits_for_it_after_its_lease_ended(bench: Bench) -> None:
    """As by a revocation, or a push of its order, of a worker that ended."""
    due_ms = time.time_ns() // 1_000_000 + 3_600_000
    await bench.orders("11", not_before_ms=str(due_ms))
    works, _ = await bench.ledger.claim(["order:i:11"])
    assert [work.id for work in works] == ["i-11"]
    await bench.forward(LEASE_US + 1)
    assert (await bench.take()).batch is None
    assert await command(bench.desk.client, "ZSCORE", LANE.key("timed"), "i-11") is not None


@pytest.mark.parametrize("together", [True, False])
async def test_what_is_due_is_not_hidden_by_a_later_one_of_its_class(bench: Bench, together: bool) -> None:
    await bench.orders("11", "12")
    due, later = (looked_for(work) for work in works_of(await bench.take()))
    later.delay_us = 1_000_000
    for works in [[later, due]] if together else [[due], [later]]:
        await bench.settle(Settlement(None, list(works)))
    assert [work.id for work in works_of(await bench.take("l"))] == ["i-11"]


async def test_what_a_worker_ended_with_keeps_its_place(bench: Bench) -> None:
    """Behind all that waits meanwhile it would not be served within a second."""
    await bench.orders("11")
    (work,) = works_of(await bench.take())
    await bench.settle(Settlement(None, [looked_for(work)]))
    works_of(await bench.take("l"))
    await bench.forward(LEASE_US // 2)
    await bench.orders("12")
    (work,) = works_of(await bench.take())
    await bench.settle(Settlement(None, [looked_for(work)]))
    await bench.forward(LEASE_US // 2 + 1)
    await bench.take("")
    (first, _) = await bench.desk.client.zrange(LANE.key("queue:l:n:any"), 0, -1)
    assert first == b"i-11"


async def test_what_is_given_back_unsent_keeps_its_place(bench: Bench) -> None:
    await bench.orders("11")
    (work,) = works_of(await bench.take())
    await bench.orders("12")
    await bench.forward(1_000_000)
    back = Move(work, work.before.at_rest(work.fence), None)
    await bench.settle(Settlement(None, [back], order_keys=work.before.orders, sent=False))
    assert [work.id for work in works_of(await bench.take())] == ["i-11", "i-12"]


async def test_three_ends_of_a_lease_park_an_intent_and_two_make_it_travel_alone(bench: Bench) -> None:
    await bench.orders("11", "12")
    sizes = [len(works_of(await bench.take("c")))]
    for _ in range(2):
        await bench.forward(LEASE_US + 1)
        sizes.append(len(works_of(await bench.take("l"))))
    # The second one waits its turn for as long as the first is out.
    assert sizes == [2, 2, 1]
    await bench.forward(LEASE_US + 1)
    assert [(step.why, step.work.before.attempts) for step in (await bench.take("")).steps] == [("struck", 1)]


async def test_what_travels_alone_joins_no_call_that_others_have_begun(bench: Bench) -> None:
    await bench.orders("11", "12", "13")
    await make_suspect(bench.desk.client, LANE, "i-12")
    calls = [[work.id for work in works_of(await bench.take())] for _ in range(2)]
    assert calls == [["i-11", "i-13"], ["i-12"]]


async def trusted(bench: Bench, *ids: str) -> None:
    """Orders to be looked for whose intents two workers ended with, and of which a look alone has passed since."""
    await bench.orders(*ids)
    for work in works_of(await bench.take()):
        move = looked_for(work)
        move.state.strikes, move.state.cap = 2, 1
        move.state.passed(Stage.LOOK)
        await bench.settle(Settlement(None, [move]))


async def test_a_suspect_of_which_a_look_has_passed_is_looked_for_in_company(bench: Bench) -> None:
    await trusted(bench, "11", "12", "13")
    taken = await bench.take("l", suspects=False)
    assert len(works_of(taken)) == 3
    assert taken.batch
    assert not taken.batch.suspect
    assert not taken.suspects


async def test_the_end_of_a_look_in_company_parks_nothing_but_each_goes_alone_again(bench: Bench) -> None:
    await trusted(bench, "11", "12")
    assert len(works_of(await bench.take("l"))) == 2
    await bench.forward(LEASE_US + 1)
    assert (await bench.take("l", suspects=False)).suspects
    await bench.forward(20_000)
    alone = await bench.take("l")
    (work,) = works_of(alone)
    assert (work.before.strikes, work.before.cap) == (2, 1)
    assert alone.batch
    assert alone.batch.suspect
    await bench.forward(LEASE_US + 1)
    assert [(step.why, step.work.id) for step in (await bench.take("")).steps] == [("struck", work.id)]


async def test_a_look_that_passed_brings_no_company_to_a_cancel(bench: Bench) -> None:
    await trusted(bench, "11", "12")
    for work in works_of(await bench.take("l")):
        state = work.before.at_rest(work.fence)
        state.stage = Stage.CANCEL
        await bench.settle(Settlement(None, [Move(work, state, 0)]))
    await bench.forward(60_000_000)
    assert (await bench.take("c", suspects=False)).suspects
    await bench.forward(20_000)
    alone = await bench.take("c")
    assert len(works_of(alone)) == 1
    assert alone.batch
    assert alone.batch.suspect


async def test_the_fifth_end_of_a_lease_is_told_by_the_script(bench: Bench) -> None:
    await bench.orders("11", x_desk="7")
    works_of(await bench.take())
    for _ in range(2):
        await bench.forward(LEASE_US + 1)
        works_of(await bench.take("l"))
    for _ in range(2):  # the worker that was to park it ends, too
        await bench.forward(LEASE_US + 1)
        assert [step.why for step in (await bench.take("")).steps] == ["struck"]
    assert await bench.told() == []
    await bench.forward(LEASE_US + 1)
    last = await bench.take("")
    assert (last.steps, last.given_up) == ([], ["i-11"]), "so that it is counted"
    (event,) = await bench.told()
    assert (event["id"], event["status"], event["final"], event["attempt"]) == ("i-11", "unresolved", "1", "1")
    assert (event["order_id"], event["x_desk"]) == ("11", "7")
    assert await bench.state("i-11") is None
    assert (await bench.orders("11", x_desk="7")).duplicates == 1, "its id is remembered"


async def test_an_order_is_left_alone_for_as_long_as_the_venue_wants_after_a_call(bench: Bench) -> None:
    gap_us = 60_000_000
    await bench.orders("11")
    (work,) = works_of(await bench.take())
    await bench.settle(Settlement(None, [ended(work)], order_keys=tuple(work.before.orders), gap_us=gap_us))
    await bench.admit({"id": "again", "symbol": "BTCUSDT", "order_id": "11"})
    await bench.forward(gap_us // 2)
    assert (await bench.take()).batch is None
    await bench.forward(gap_us // 2)
    assert [work.id for work in works_of(await bench.take())] == ["again"]


async def with_both_names(bench: Bench, *ids: str) -> None:
    """Intents that named an order by its client id, and have learnt its order id, 11, from a call that was refused."""
    await bench.admit(*({"id": id_, "symbol": "BTCUSDT", "client_order_id": "mine-11"} for id_ in ids))
    works = works_of(await bench.take())
    assert [work.id for work in works] == [*ids]
    moves = []
    for work in works:
        state = State.parse(work.before.pack().encode())
        state.orders = (*state.orders, "order:i:11")
        moves.append(Move(work, state, 0, new_orders=("order:i:11",)))
    await bench.settle(Settlement(None, [*moves], order_keys=works[0].before.orders, sent=False))


async def test_an_order_in_flight_is_known_by_both_of_its_names(bench: Bench) -> None:
    await with_both_names(bench, "again")
    await bench.admit({"id": "one", "symbol": "BTCUSDT", "order_id": "11", "priority": "urgent"})
    assert [work.id for work in works_of(await bench.take())] == ["one"]
    assert (await bench.take()).batch is None


async def test_two_intents_of_one_order_with_two_names_take_one_place_of_a_call(bench: Bench) -> None:
    await with_both_names(bench, "one", "two")
    assert [work.id for work in works_of(await bench.take())] == ["one", "two"]
    for id_ in ("one", "two"):
        state = await bench.state(id_)
        assert state
        assert state.size == 1


async def test_other_intents_of_an_order_whose_end_is_known_are_told_of(bench: Bench) -> None:
    """Timed ones, too: none of them may name an order that has ended."""
    await bench.orders("11", "12")
    works = works_of(await bench.take())
    late = str(time.time_ns() // 1_000_000 + 3_600_000)
    await bench.admit({"id": "timed", "symbol": "BTCUSDT", "order_id": "11", "not_before_ms": late})
    await bench.admit({"id": "held", "symbol": "BTCUSDT", "order_id": "11"})
    assert (await bench.settle(Settlement(None, [ended(works[1])]))).others == 0
    assert (await bench.settle(Settlement(None, [ended(works[0])]))).others == 2


@pytest.mark.parametrize("sent", [True, False])
async def test_a_settlement_that_comes_twice_sets_no_order_free_that_another_call_has(bench: Bench, sent: bool) -> None:
    """Its reply was lost, and another worker was quicker."""
    await bench.orders("11")
    (first,) = works_of(await bench.take())
    back = Move(first, first.before.at_rest(first.fence), None)
    settlement = Settlement(None, [back], order_keys=first.before.orders, sent=sent, gap_us=1_000)
    await bench.settle(settlement)
    await bench.forward(1_000)
    works_of(await bench.take())
    assert (await bench.settle(settlement)).applied == 0
    await bench.admit({"id": "another", "symbol": "BTCUSDT", "order_id": "11"})
    await bench.forward(1_000)
    assert (await bench.take()).batch is None


async def test_an_order_that_is_in_flight_is_not_sent_a_second_time(bench: Bench) -> None:
    await bench.orders("11")
    works_of(await bench.take())
    await bench.admit({"id": "again", "symbol": "BTCUSDT", "order_id": "11"})
    assert (await bench.take()).batch is None


async def answered_with_id(bench: Bench, order_id: str) -> Settlement:
    """A cancel by client id is under way; its answer tells the order's id. Its settlement."""
    await bench.admit({"id": "by-client-id", "symbol": "BTCUSDT", "client_order_id": "c-1"})
    (work,) = works_of(await bench.take())
    goes_on = looked_for(work)
    goes_on.new_orders = (f"order:i:{order_id}",)
    return Settlement(None, [goes_on], order_keys=work.before.orders, gap_us=1_000_000)


async def test_an_order_whose_id_an_answer_told_is_closed_for_its_gap_by_that_id_too(bench: Bench) -> None:
    await bench.settle(await answered_with_id(bench, "11"))
    await bench.orders("11")
    assert (await bench.take()).batch is None
    await bench.forward(1_000_001)
    assert [work.id for work in works_of(await bench.take())] == ["i-11"]


async def test_what_an_answer_tells_sets_no_order_free_that_is_in_another_call(bench: Bench) -> None:
    await bench.orders("11")
    works_of(await bench.take())
    await bench.settle(await answered_with_id(bench, "11"))
    await bench.forward(1_000_001)
    await bench.admit({"id": "again", "symbol": "BTCUSDT", "order_id": "11"})
    assert (await bench.take()).batch is None


async def test_a_push_leaves_what_is_in_a_call_to_its_call(bench: Bench) -> None:
    await bench.orders("11", "12")
    state = await bench.state("i-11")
    assert state
    (first, second) = works_of(await bench.take())
    assert await bench.ledger.claim(state.orders) == ([], 1)
    assert (await bench.settle(Settlement(None, [ended(first), ended(second)]))).applied == 2


async def test_an_order_s_end_takes_no_more_intents_at_once_than_one_settlement_carries(bench: Bench) -> None:
    """As when a desk asked for the same few orders again and again while the venue was away: thousands at once were a
    settlement that no server takes, and their leases ended as if workers had."""
    for _ in range(3):
        await bench.admit(
            *({"symbol": "BTCUSDT", "order_id": order} for order in ("11", "12", "13") for _ in range(80))
        )
    orders, claimed = [f"order:i:{n}" for n in (11, 12, 13)], []
    works, left_alone = await bench.ledger.claim(orders)
    while works:
        claimed.append((len(works), left_alone > 0))
        assert (await bench.settle(Settlement(None, [ended(work) for work in works]))).applied == len(works)
        works, left_alone = await bench.ledger.claim(orders)
    assert claimed == [(500, True), (220, False)]


# -- permits ----------------------------------------------------------------------------------------------------


async def test_what_a_push_claimed_comes_back_where_its_worker_ended(bench: Bench) -> None:
    await bench.orders("11")
    state = await bench.state("i-11")
    assert state
    await bench.ledger.claim(state.orders)
    assert (await bench.take()).batch is None
    await bench.forward(LEASE_US + 1)
    (work,) = works_of(await bench.take())
    assert (work.before.attempts, work.before.strikes) == (0, 1)


async def test_a_permit_is_in_use_for_as_long_as_its_call_could_live(bench: Bench) -> None:
    await bench.orders("11", "12")
    works_of(await bench.take())
    assert await bench.permit_ends() == [LEASE_US + BATCH.window_us + 1_000_000]


async def test_a_permit_is_counted_from_the_answer_and_not_from_the_sending(bench: Bench) -> None:
    await bench.orders("11", "12")
    taken = await bench.take()
    assert taken.batch
    await bench.permit(taken.batch.id, "a", rtt_us=300_000)
    assert await bench.permit_ends() == [BATCH.window_us + GUARD_US]


async def test_a_permit_without_an_answer_is_kept_for_the_window_and_a_second(bench: Bench) -> None:
    await bench.orders("11", "12")
    taken = await bench.take()
    assert taken.batch
    await bench.permit(taken.batch.id, "n")
    assert await bench.permit_ends() == [BATCH.window_us + 1_000_000]


async def test_a_permit_that_was_not_used_is_free_at_once(bench: Bench) -> None:
    await bench.orders("11", "12")
    taken = await bench.take()
    assert taken.batch
    await bench.permit(taken.batch.id, "u")
    assert await bench.permit_ends() == []


async def test_the_fastest_way_is_relied_on_only_after_enough_samples(bench: Bench) -> None:
    await bench.orders("11")
    await bench.take("")
    trusted = []
    for n in range(25):
        await bench.permit(f"m-{n}", "a", rtt_us=100_000)
        trusted.append(float(await command(bench.desk.client, "HGET", LANE.key(f"rtt:{BATCH.name}"), "fast")))
    assert trusted[:19] == [0.0] * 19
    assert 0 < trusted[-1] <= 100_000


async def test_less_than_the_shortest_way_seen_is_relied_on(bench: Bench) -> None:
    """The shortest way there and the shortest way back seldom meet in one call."""
    await bench.orders("11")
    await bench.take("")
    for n in range(40):
        await bench.permit(f"m-{n}", "a", rtt_us=60_000 + 1_000 * n)
    trusted = float(await command(bench.desk.client, "HGET", LANE.key(f"rtt:{BATCH.name}"), "fast"))
    assert 0 < trusted < 60_000


async def test_no_more_is_relied_on_than_a_new_worker_can_wait_within_its_lease(bench: Bench) -> None:
    await bench.take("")
    for n in range(25):
        await bench.permit(f"m-{n}", "a", rtt_us=1_900_000)
    trusted = float(await command(bench.desk.client, "HGET", LANE.key(f"rtt:{BATCH.name}"), "fast"))
    assert 0 < trusted <= LEASE_US / 5


@pytest.mark.parametrize(("left_us", "waits"), [(290_000, True), (-1, False)])
async def test_the_fastest_way_is_waited_for_only_while_a_permit_may_be_free_by_it(
    bench: Bench, left_us: int, waits: bool
) -> None:
    """A worker that nobody has heard of lately waits it out before it sends: not after every rest of the lane."""
    await bench.orders("11", "12")
    await bench.take("")
    for n in range(25):
        await bench.permit(f"before-{n}", "a", rtt_us=300_000)
    await bench.forward(BATCH.window_us)
    for n in range(BATCH.units):
        await bench.permit(f"now-{n}", "a", rtt_us=300_000)
    await bench.forward(BATCH.window_us - left_us)
    taken = await bench.take(closed=(SINGLE.name,))
    assert taken.batch
    assert (taken.batch.fastest_us > 0) is waits


async def a_long_way(bench: Bench) -> None:
    """So many calls over it, m-0 to m-24, that it is relied on."""
    await bench.take("")
    for n in range(25):
        await bench.permit(f"m-{n}", "a", rtt_us=100_000)


async def test_permits_that_are_out_are_moved_when_the_way_becomes_shorter(bench: Bench) -> None:
    await bench.orders("11")
    await a_long_way(bench)
    last = LANE.key(f"permits:{BATCH.name}"), "m-24:1"
    before = float(await command(bench.desk.client, "ZSCORE", *last))
    stats = LANE.key(f"rtt:{BATCH.name}")
    trusted = float(await command(bench.desk.client, "HGET", stats, "fast"))
    await bench.permit("near", "a", rtt_us=10_000)
    early = trusted - float(await command(bench.desk.client, "HGET", stats, "fast"))
    assert early > 80_000
    assert float(await command(bench.desk.client, "ZSCORE", *last)) == before + early


async def test_what_became_free_by_a_longer_way_waits_until_the_shorter_one_allows_it(bench: Bench) -> None:
    """A window after a far answer less the far way, a near call would be early by most of that way."""
    await bench.orders("11", "12")
    await a_long_way(bench)
    await bench.forward(BATCH.window_us + 10_000)
    await bench.permit("near", "a", rtt_us=10_000)
    assert not await bench.granted(BATCH, "look")
    assert (await bench.take(closed=(SINGLE.name,))).batch is None
    await bench.forward(75_000)
    assert (await bench.take(closed=(SINGLE.name,))).batch is None
    await bench.forward(25_000)
    assert works_of(await bench.take(closed=(SINGLE.name,)))


async def test_a_key_is_not_tried_while_it_is_not_known_which_permits_are_out(bench: Bench) -> None:
    """Another server may have forgotten some; that the lane is held for the key is no reason against it."""
    await bench.orders("11")
    await bench.take("")
    await bench.settle(Settlement(None, [], holds=[Hold("*", "auth", -1, "test")]))
    assert await bench.granted(BATCH, "before")
    await bench.other_server()
    await bench.take()
    assert not await bench.granted(BATCH, "soon")
    await bench.forward(LEASE_US + BATCH.window_us + 1)
    assert await bench.granted(BATCH, "late")


async def test_who_tries_a_key_waits_by_the_way_that_permits_are_free_earlier_by(bench: Bench) -> None:
    """It may be nearer than all who have measured it."""
    await bench.orders("11")
    await a_long_way(bench)
    await bench.forward(BATCH.window_us + 10_000)
    trusted = float(await command(bench.desk.client, "HGET", LANE.key(f"rtt:{BATCH.name}"), "fast"))
    assert trusted > 50_000
    assert await bench.ledger.permit(BATCH, "look") == math.ceil(trusted)


async def test_a_refusal_doubles_what_is_kept_beyond_the_window(bench: Bench) -> None:
    await bench.orders("11")
    await bench.take("")
    await bench.permit("m-1", "r")
    await bench.permit("m-2", "a")
    assert max(await bench.permit_ends()) >= BATCH.window_us + 2 * GUARD_US


async def test_a_refusal_whose_settlement_comes_twice_is_one(bench: Bench) -> None:
    """As when the reply to it was lost."""
    await bench.orders("11")
    await bench.take("")
    for _ in range(2):
        await bench.permit("m-1", "r")
    assert await bench.permit_ends() == [BATCH.window_us + 2 * GUARD_US]
    assert await command(bench.desk.client, "HGET", LANE.key(f"rtt:{BATCH.name}"), "refusals") == b"1"


async def test_what_is_kept_beyond_the_window_is_halved_after_ten_minutes_without_a_refusal(bench: Bench) -> None:
    await bench.permit("m-1", "r")
    stats = LANE.key(f"rtt:{BATCH.name}")
    refused_ms = int(await command(bench.desk.client, "HGET", stats, "refused_ms"))
    await command(bench.desk.client, "HSET", stats, "refused_ms", refused_ms - 600_000)
    await command(bench.desk.client, "DEL", LANE.key(f"permits:{BATCH.name}"))
    await bench.permit("m-2", "a")
    assert await bench.permit_ends() == [BATCH.window_us + GUARD_US]


async def refused(bench: Bench, member: str) -> int:
    """For how long the batch bucket is closed after a call was refused by a venue that does not say for how long."""
    hold = Hold(BATCH.name, "rate", 0, "test")
    await bench.settle(Settlement(PermitUse(BATCH, 1, member, "r"), [], holds=[hold]))
    return (await bench.holds())["rate"]


async def test_a_call_that_no_take_grants_has_a_permit_where_there_is_one(bench: Bench) -> None:
    bucket = Bucket("open", 2, 1_000_000)
    assert [await bench.granted(bucket, name) for name in ("k-1", "k-2", "k-3")] == [True, True, False]
    await bench.settle(Settlement(PermitUse(bucket, 1, "k-1", "u"), []))
    assert await bench.granted(bucket, "k-3")
    await bench.settle(Settlement(PermitUse(bucket, 1, "k-2", "a"), []))
    await bench.forward(900_000)
    assert not await bench.granted(bucket, "k-4"), "its window has not passed"
    await bench.forward(200_000)
    assert await bench.granted(bucket, "k-4")
    assert not await bench.granted(bucket, "k-5"), "of k-3 nobody told anything"
    held = Bucket("held", 2, 1_000_000)
    await bench.settle(Settlement(None, [], holds=[Hold("held", "rate", 500_000, "test")]))
    assert not await bench.granted(held, "k-6")
    await bench.forward(600_000)
    assert await bench.granted(held, "k-6")


async def away(bench: Bench, for_us: int) -> None:
    """As if nobody had served the lane for so long, or its server had been away: all times kept are that much older."""
    client = bench.desk.client
    wall, rest = cast("bytes", await client.get(LANE.key("clock"))).split(b" ", 1)
    await client.set(LANE.key("clock"), b"%d %s" % (int(wall) - for_us, rest))
    for field, kept in cast("dict[bytes, bytes]", await command(client, "HGETALL", LANE.key("hold"))).items():
        words, at, by_wall = kept.rpartition(b" @")
        if at:
            await command(client, "HSET", LANE.key("hold"), field, b"%s @%d" % (words, int(by_wall) - for_us))


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_what_the_venue_has_closed_is_open_at_its_time_though_nobody_served_the_lane(
    bench: Bench, again: bool
) -> None:
    """The lane's steady clock stands still meanwhile, the venue's does not."""
    await bench.orders("1")
    for span_us in (40_000_000, 20_000_000)[: 1 + again]:  # the longer one stays
        await bench.settle(Settlement(None, [], holds=[Hold("*", "rate", span_us, "until 17:00 @home")]))
    await away(bench, 30_000_000)
    ((_, reason, words),) = (await operate.status(bench.desk.client, [LANE]))[0].holds
    left, _, detail = words.partition(" s more: ")
    assert (reason, detail) == ("rate", "until 17:00 @home")
    assert 0 < float(left) <= 10
    assert (await bench.take()).batch is None
    await away(bench, 10_000_000)
    assert (await operate.status(bench.desk.client, [LANE]))[0].holds == []
    assert works_of(await bench.take())


async def test_a_key_is_tried_once_the_venue_is_open_though_nobody_served_the_lane_meanwhile(bench: Bench) -> None:
    held = Bucket("held", 2, 1_000_000)
    await bench.settle(Settlement(None, [], holds=[Hold("held", "rate", 40_000_000, "test")]))
    assert not await bench.granted(held, "k-1")
    await away(bench, 40_000_000)
    assert await bench.granted(held, "k-1")


async def test_what_waits_for_an_endpoint_has_waited_while_nobody_served_the_lane_too(bench: Bench) -> None:
    """In the order in which it waits."""
    moves: list[End | Move] = []
    for order_id, delay_us in (("1", 40_000_000), ("2", 41_000_000), ("3", 60_000_000)):
        await bench.orders(order_id)
        (work,) = works_of(await bench.take())
        moves.append(Move(work, work.before.at_rest(work.fence), delay_us))
    await bench.settle(Settlement(None, moves))
    await away(bench, 30_000_000)
    assert (await bench.take()).batch is None
    await away(bench, 20_000_000)
    assert (await bench.take()).batch is None, "permits were out: it is not known of which time they are"
    await bench.forward(1_200_000)
    assert [work.id for work in works_of(await bench.take())] == ["i-1", "i-2"]


@pytest.mark.parametrize("reason", ["unreachable", "restart"])
async def test_what_is_closed_for_our_own_sake_lasts_by_the_lanes_own_clock(bench: Bench, reason: str) -> None:
    """Of a clock that went ahead nobody takes permits for free."""
    await bench.orders("1")
    await bench.settle(Settlement(None, [], holds=[Hold("*", reason, 20_000_000, "test @1")]))
    await away(bench, 30_000_000)
    assert (await bench.take()).batch is None


async def test_a_take_tells_whether_something_waits_for_the_address(bench: Bench) -> None:
    """Only then is the lane to come when the address has a share again; and it need not look before that."""
    closed = tuple(route.name for route in ROUTES)
    empty = await bench.take("cl", closed)
    assert (empty.starved, empty.wait_us) == (False, 10_000_000)
    await bench.orders("1")
    waits = await bench.take("cl", closed)
    assert (waits.batch, waits.starved, waits.wait_us) == (None, True, 10_000_000)
    assert not waits.urgent
    assert not (await bench.take("", closed)).starved, "whoever has no connection for it has no use for a share"
    assert (await bench.take("cl")).batch
    assert not (await bench.take("cl", closed)).starved


async def test_a_lane_with_a_call_out_is_looked_at_at_every_poll_also_if_it_waits_for_the_address(bench: Bench) -> None:
    """Its clock follows the server's only as long as somebody looks."""
    await bench.orders(*(str(10_000 + n) for n in range(60)))
    assert (await bench.take(closed=("cancel-order",))).batch
    waits = await bench.take("cl", tuple(route.name for route in ROUTES))
    assert (waits.batch, waits.starved, waits.wait_us) == (None, True, 2_000_000)


async def test_a_lane_in_line_for_its_address_does_not_come_for_what_is_due_soon(bench: Bench) -> None:
    """Of a thousand lanes that share an address each came once more in vain for every look."""
    await bench.orders(*(str(10_000 + n) for n in range(51)))
    taken = await bench.take(closed=("cancel-order",))
    assert taken.batch
    permit = PermitUse(BATCH, 1, taken.batch.id, "a")
    await bench.settle(Settlement(permit, [looked_for(work, 30_000) for work in taken.batch.works]))
    closed = tuple(route.name for route in ROUTES)
    waits = await bench.take("cl", closed)
    assert (waits.starved, waits.wait_us) == (True, 2_000_000)
    cancels_alone = tuple(route.name for route in ROUTES if route.stage is not Stage.LOOK)
    comes = await bench.take("cl", cancels_alone)
    assert comes.starved
    assert comes.wait_us <= 30_000, "the looks need not wait for the address"
    assert (await bench.take("l", closed)).wait_us <= 30_000, "nothing stands in line yet"
    assert (await bench.take("cl")).batch
    assert (await bench.take("cl", closed)).wait_us <= 30_000


@pytest.mark.parametrize(("how", "gap_us"), [("a", 0), ("u", 1_000_000)])
async def test_a_lane_rests_once_nothing_of_what_it_sent_is_out(bench: Bench, how: str, gap_us: int) -> None:
    """Neither a permit nor an order of a call that has ended; a call that might live on is no longer waited for. A jump
    of the clock before that is seen."""
    await bench.orders("11", "12")
    taken = await bench.take()
    assert taken.batch
    permit = PermitUse(BATCH, 1, taken.batch.id, how)
    orders = tuple(order for work in taken.batch.works for order in work.before.orders)
    ends = (ended(work) for work in taken.batch.works)
    await bench.settle(Settlement(permit, [*ends], order_keys=orders, gap_us=gap_us))
    assert (await bench.take("cl")).wait_us == 2_000_000
    await bench.jump(5_000_000)
    assert (await bench.take("cl")).wait_us <= 2_000_000
    assert (await bench.holds())["clock"] > BATCH.window_us
    await bench.forward(2 * BATCH.window_us)
    await bench.take("cl")
    assert (await bench.take("cl")).wait_us == 10_000_000
    await bench.jump(5_000_000)
    assert (await bench.take("cl")).wait_us == 10_000_000
    assert await bench.holds() == {}


async def test_a_take_tells_how_many_calls_could_follow_at_once(bench: Bench) -> None:
    """So that the next round asks for as many."""
    await bench.orders(*(str(10_000 + n) for n in range(120)))
    told = []
    for _ in range(3):
        taken = await bench.take(closed=("cancel-order",))
        assert taken.batch
        told.append((len(taken.batch.works), taken.more, taken.wait_us == 0))
    assert told == [(50, 2, True), (50, 1, True), (20, 0, False)]
    assert (await bench.take(closed=("cancel-order",))).more == 0


async def test_a_refusal_of_before_lets_no_second_call_go_beside_the_one_that_goes_alone(bench: Bench) -> None:
    await bench.orders(*(str(10_000 + n) for n in range(200)))
    first, second = [(await bench.take(closed=("cancel-order",))).batch for _ in range(2)]
    assert first
    assert second
    await bench.permit(first.id, "r")
    assert (await bench.take(closed=("cancel-order",))).batch
    await bench.permit(second.id, "r")
    assert (await bench.take(closed=("cancel-order",))).batch is None


async def test_a_bucket_is_closed_for_a_second_again_once_it_was_open(bench: Bench) -> None:
    await bench.orders(*(str(10_000 + n) for n in range(200)))
    closed_us = [await refused(bench, "before")]
    for how in ("r", "a"):
        await bench.forward(closed_us[-1])
        alone = (await bench.take(closed=("cancel-order",))).batch
        assert alone
        if how == "r":
            closed_us.append(await refused(bench, alone.id))
        else:
            await bench.permit(alone.id, "a")
    closed_us.append(await refused(bench, "after"))
    assert closed_us == [1_000_000, 2_000_000, 1_000_000]


async def test_a_unit_of_each_bucket_is_left_for_what_is_urgent(bench: Bench) -> None:
    await bench.orders(*(str(10_000 + n) for n in range(700)))
    granted = 0
    while (taken := await bench.take(closed=("cancel-order",))).batch:
        granted += 1
        assert granted < BATCH.units, "the unit that was to be left was granted"
    assert taken.wait_us > 0
    assert granted == BATCH.units - 1
    await bench.orders("1", "2", priority="urgent")
    assert len(works_of(await bench.take(closed=("cancel-order",)))) == 2
    await bench.orders("3", "4", priority="urgent")
    assert (await bench.take(closed=("cancel-order",))).batch is None


async def test_an_order_is_not_kept_back_longer_for_calls_that_went_meanwhile(bench: Bench) -> None:
    """A single call keeps its distance from when it began to wait, as others may go all the time."""
    buckets = tuple(replace(bucket, window_us=60_000_000) for bucket in BUCKETS)
    plan = LanePlan(lane=LANE, routes=ROUTES, buckets=buckets, lease_us=LEASE_US, gap_us=0, urgent_reserve=0)
    bench.ledger = RedisLedger(bench.desk.client, plan)
    await bench.orders(*(str(10_000 + n) for n in range(200)))
    for _ in range(4):
        assert len(works_of(await bench.take(closed=("cancel-order",)))) == 50
    await bench.admit({"id": "waits", "symbol": "BTCUSDT", "client_order_id": "mine"})
    await bench.forward(4_000_000)
    await bench.orders(*(str(20_000 + n) for n in range(50)))
    assert len(works_of(await bench.take(closed=("cancel-order",)))) == 50
    await bench.forward(3_000_000)
    assert [work.id for work in works_of(await bench.take(closed=("cancel-order",)))] == ["waits"]


async def test_a_call_that_costs_more_than_there_ever_is_goes_when_all_of_it_is_free(bench: Bench) -> None:
    """A venue may have made the bucket smaller."""
    routes = tuple(replace(route, per_call=5) for route in ROUTES if route.name == "cancel-order")
    buckets = tuple(replace(bucket, units=2) for bucket in BUCKETS)
    plan = LanePlan(lane=LANE, routes=routes, buckets=buckets, lease_us=LEASE_US, gap_us=0, urgent_reserve=0)
    bench.ledger = RedisLedger(bench.desk.client, plan)
    await bench.orders("11", "12")
    assert len(works_of(await bench.take())) == 1
    assert (await bench.take()).batch is None


async def test_a_call_that_costs_by_the_order_carries_what_there_are_units_for(bench: Bench) -> None:
    routes = tuple(replace(route, per_call=0, per_order=1) for route in ROUTES if route.name == BATCH.name)
    buckets = tuple(replace(bucket, units=4) for bucket in BUCKETS)
    plan = LanePlan(lane=LANE, routes=routes, buckets=buckets, lease_us=LEASE_US, gap_us=0, urgent_reserve=0)
    bench.ledger = RedisLedger(bench.desk.client, plan)
    await bench.orders(*(str(10_000 + n) for n in range(60)))
    assert len(works_of(await bench.take())) == 4
    assert (await bench.take()).batch is None


async def test_urgent_goes_before_what_has_waited_longer(bench: Bench) -> None:
    await bench.orders("11", "12")
    await bench.orders("1", priority="urgent")
    assert [work.id for work in works_of(await bench.take())] == ["i-1"]
    assert [work.id for work in works_of(await bench.take())] == ["i-11", "i-12"]


# -- holds and clocks -------------------------------------------------------------------------------------------


async def test_a_hold_is_never_shortened_by_a_later_one(bench: Bench) -> None:
    await bench.orders("11")
    for for_us, least in ((10_000_000, 10_000_000), (1_000_000, 9_000_000), (20_000_000, 20_000_000)):
        await bench.hold(for_us)
        assert (await bench.holds())["rate"] >= least
    await bench.hold(-1)
    await bench.hold(1_000_000)
    assert await bench.holds() == {"rate": -1}
    await bench.forward(3_600_000_000)
    assert (await bench.take()).batch is None


async def test_a_pause_stops_normal_cancels_and_neither_urgent_ones_nor_looks(bench: Bench) -> None:
    await bench.orders("11")
    (sent,) = works_of(await bench.take())
    await bench.settle(Settlement(None, [looked_for(sent)]))
    await bench.orders("12")
    await bench.settle(Settlement(None, [], holds=[Hold("*", "paused", -1, "test")]))
    assert (await bench.take("c")).batch is None
    assert [work.id for work in works_of(await bench.take("l"))] == ["i-11"]
    await bench.orders("1", priority="urgent")
    assert [work.id for work in works_of(await bench.take("cl"))] == ["i-1"]
    assert (await bench.take("cl")).batch is None


async def test_resume_ends_a_pause_and_no_other_hold(bench: Bench) -> None:
    await bench.orders("11")
    await bench.hold(60_000_000)
    await bench.settle(Settlement(None, [], holds=[Hold("*", "auth", -1, "test"), Hold("*", "paused", -1, "test")]))
    await operate.resume(bench.desk.client, LANE, "alice")
    assert sorted(await bench.holds()) == ["auth", "rate"]


async def test_another_server_closes_every_bucket_until_its_permits_are_surely_free(bench: Bench) -> None:
    await bench.orders("11")
    await bench.take("")
    await bench.other_server()
    assert (await bench.take()).batch is None
    assert (await bench.holds())["restart"] == LEASE_US + BATCH.window_us
    await bench.forward(LEASE_US + BATCH.window_us)
    assert works_of(await bench.take())


async def test_another_server_is_noticed_while_what_is_there_waits_for_a_permit(bench: Bench) -> None:
    await bench.orders(*(str(10_000 + n) for n in range(700)))
    while (await bench.take()).batch:
        pass
    await bench.other_server()
    await bench.take()
    assert (await bench.holds())["restart"] == LEASE_US + BATCH.window_us


@pytest.mark.parametrize("jump_us", [-3_600_000_000, 3_600_000_000])
async def test_a_jump_of_the_clock_while_a_permit_is_out_closes_every_bucket(bench: Bench, jump_us: int) -> None:
    await bench.orders("11", "12")
    taken = await bench.take()
    assert taken.batch
    before = await bench.steady()
    await bench.orders("13")
    await bench.jump(jump_us)
    assert (await bench.take("cl")).batch is None
    assert 0 <= await bench.steady() - before <= 5_000_000
    assert (await bench.holds())["clock"] > BATCH.window_us
    assert len(await bench.permit_ends()) == 1


async def test_a_settlement_hides_no_permit_of_another_call_from_a_jump_of_the_clock(bench: Bench) -> None:
    await bench.orders("11")
    assert works_of(await bench.take())
    await bench.settle(Settlement(None, []))
    await bench.jump(3_600_000_000)
    await bench.take("")
    assert (await bench.holds())["clock"] > BATCH.window_us


async def test_a_jump_while_nothing_is_out_costs_nothing(bench: Bench) -> None:
    await bench.orders("11")
    await bench.jump(3_600_000_000)
    assert works_of(await bench.take())


# -- admission, times, revocations ------------------------------------------------------------------------------


async def test_an_id_twice_in_one_page_is_one_intent_and_one_duplicate(bench: Bench) -> None:
    fields = {"id": "a", "symbol": "BTCUSDT", "order_id": "11"}
    admitted = await bench.admit(fields, fields, {**fields, "order_id": "12"})
    assert (admitted.admitted, admitted.duplicates) == (1, 2)
    assert ["differs" in event["detail"] for event in await bench.told()] == [False, True]
    assert [work.id for work in works_of(await bench.take())] == ["a"]


async def test_entries_that_another_worker_admitted_are_not_admitted_again(bench: Bench) -> None:
    await bench.desk.add(symbol="BTCUSDT", order_id="11")
    mine = await bench.admission()
    await bench.desk.add(symbol="BTCUSDT", order_id="12")
    theirs = await bench.admission()
    assert (await bench.apply(theirs)).admitted == 2
    (first, second) = works_of(await bench.take())
    await bench.settle(Settlement(None, [ended(first), ended(second)]))
    late = await bench.apply(mine)
    assert (late.applied, late.cursor) == (False, theirs.last)
    assert await bench.desk.intents() == []
    assert len(await bench.told()) == 2


async def test_entries_that_lie_between_are_not_passed_by(bench: Bench) -> None:
    """A worker that stands behind another entry than the lane does has not read what lies between."""
    first = await bench.desk.add(symbol="BTCUSDT", order_id="11")
    await bench.desk.add(symbol="BTCUSDT", order_id="12")
    ahead = bench.desk.intake.prepare(first, await bench.desk.read(first))
    assert not (await bench.apply(ahead)).applied
    assert await bench.ledger.cursor() == "0-0"


async def test_an_entry_that_follows_the_tenth_of_one_millisecond_is_admitted(bench: Bench) -> None:
    for seq in (9, 10):
        await command(
            bench.desk.client, "XADD", LANE.inbox, f"1700000000000-{seq}", "symbol", "BTCUSDT", "order_id", seq
        )
        assert (await bench.apply(await bench.admission())).admitted == 1


async def test_what_ended_leaves_nothing_behind(bench: Bench) -> None:
    await bench.orders("11", "12", expires_at_ms=str(time.time_ns() // 1_000_000 + 3_600_000))
    await bench.settle(Settlement(None, [ended(work) for work in works_of(await bench.take())]))
    left = [
        name
        for name in ("state", "intents", "orders", "expiry", "leases")
        if await bench.desk.client.exists(LANE.key(name))
    ]
    assert left == []


@pytest.mark.parametrize("when", ["not_before_ms", "expires_at_ms"])
async def test_a_lane_is_looked_at_again_when_the_time_of_an_intent_has_come(bench: Bench, when: str) -> None:
    await bench.orders("11", **{when: str(time.time_ns() // 1_000_000 + 500)})
    await bench.hold(60_000_000)
    assert (await bench.take()).wait_us <= 502_000


async def test_a_lane_is_looked_at_again_when_what_was_put_off_is_due(bench: Bench) -> None:
    """Beside what left at once, and where nothing else says so."""
    await bench.orders("11", "12")
    put_off, now = works_of(await bench.take())
    await bench.settle(Settlement(None, [looked_for(put_off, delay_us=100_000), looked_for(now)]))
    taken = await bench.take("l")
    assert [work.id for work in works_of(taken)] == [now.id]
    assert 0 < taken.wait_us <= 100_000


@pytest.mark.parametrize("ended", ["expiry", "lease"])
async def test_what_ended_in_a_take_is_nothing_that_the_next_take_waits_for(bench: Bench, ended: str) -> None:
    past_ms = {"expires_at_ms": str(time.time_ns() // 1_000_000 - 1)} if ended == "expiry" else {}
    await bench.orders("11", **past_ms)
    if ended == "lease":
        works_of(await bench.take())
        await bench.forward(LEASE_US + 1)
    assert (await bench.take("")).wait_us > 0


async def test_what_has_become_due_goes_behind_what_waits_already(bench: Bench) -> None:
    await bench.orders("11", not_before_ms=str(time.time_ns() // 1_000_000 + 3_600_000))
    await bench.orders("12")
    await command(bench.desk.client, "ZADD", LANE.key("timed"), 1, "i-11")
    await bench.take("")
    assert [work.id for work in works_of(await bench.take())] == ["i-12", "i-11"]


async def test_that_an_intent_expired_is_told_again_where_whoever_was_to_tell_it_is_gone(bench: Bench) -> None:
    """Also while the lane is held: no call meets it then."""
    await command(bench.desk.client, "HSET", LANE.key("hold"), "*|auth", "-1 refused")
    await bench.orders("11", expires_at_ms=str(time.time_ns() // 1_000_000 - 1))
    assert [(s.why, s.work.id) for s in (await bench.take()).steps] == [("expired", "i-11")]
    await bench.forward(LEASE_US + 1)
    steps = [*(await bench.take()).steps, *(await bench.take()).steps]
    assert [(s.why, s.work.id) for s in steps] == [("expired", "i-11")]


@pytest.mark.parametrize("granted", [True, False])
async def test_a_lane_that_has_lost_all_is_held_by_whoever_had_calls_of_it(bench: Bench, granted: bool) -> None:
    """The server is back empty, or as it was before the first call: permits that are out are on no record."""
    await bench.orders("11")
    assert (await bench.take()).batch
    for key in await command(bench.desk.client, "KEYS", LANE.key("*").replace("{", "[{]").replace("}", "[}]")):
        if not key.endswith((b":inbox", b":results")):
            await command(bench.desk.client, "DEL", key)
    await bench.orders("12")
    request = TakeRequest("c", "b-again", granted=granted)
    (taken,) = (await bench.ledger.round(RoundRequest(takes=[request]))).taken
    assert isinstance(taken, Taken)
    assert bool(taken.batch) is not granted
    assert ("restart" in await bench.holds()) is granted


async def test_that_another_process_cannot_reach_the_venue_holds_none_that_can(bench: Bench) -> None:
    await bench.settle(Settlement(None, [], holds=[Hold("*", "unreachable", 5_000_000, "test")]))
    await bench.orders("11")
    assert (await bench.take()).batch is None
    (taken,) = (await bench.ledger.round(RoundRequest(takes=[TakeRequest("c", "b-reaches", reaches=True)]))).taken
    assert isinstance(taken, Taken)
    assert taken.batch
    await bench.orders("12")
    await bench.settle(Settlement(None, [], holds=[Hold("*", "rate", 5_000_000, "test")]))
    (taken,) = (await bench.ledger.round(RoundRequest(takes=[TakeRequest("c", "b-held", reaches=True)]))).taken
    assert isinstance(taken, Taken)
    assert taken.batch is None, "all other holds are everybody's"


async def test_what_expired_is_told_while_its_bucket_is_closed(bench: Bench) -> None:
    await bench.orders("11", expires_at_ms=str(time.time_ns() // 1_000_000 - 1))
    await bench.hold(60_000_000)
    (step,) = (await bench.take()).steps
    assert (step.why, step.work.id) == ("expired", "i-11")


async def test_what_expires_in_the_hands_of_a_call_and_is_given_back_unsent_is_told(bench: Bench) -> None:
    expires_ms = time.time_ns() // 1_000_000 + 150
    await bench.orders("11", expires_at_ms=str(expires_ms))
    (work,) = works_of(await bench.take())
    await bench.hold(60_000_000)
    while (taken := await bench.take("")).wall_us <= expires_ms * 1000 + 1_000:
        assert taken.steps == []
    await bench.settle(Settlement(None, [Move(work, work.before.at_rest(work.fence), None)]))
    async with asyncio.timeout(5):
        while not (taken := await bench.take("")).steps:
            pass
    assert [(step.why, step.work.id) for step in taken.steps] == [("expired", "i-11")]


async def test_what_was_sent_cannot_be_withdrawn(bench: Bench) -> None:
    await bench.orders("11")
    (work,) = works_of(await bench.take())
    await bench.settle(Settlement(None, [looked_for(work)]))
    await bench.admit({"scope": "revoke", "target": "i-11"})
    assert [step.why for step in (await bench.take("")).steps] == ["revoke-sent"]


async def test_what_waits_and_is_withdrawn_is_not_sent_by_the_same_take(bench: Bench) -> None:
    await bench.orders("11", "12")
    await bench.admit({"id": "stop", "scope": "revoke", "target": "i-11"})
    taken = await bench.take()
    assert sorted((step.why, step.work.id) for step in taken.steps) == [("revoke-claimed", "stop")]
    assert [work.id for work in works_of(taken)] == ["i-12"]


async def test_a_revocation_is_not_withdrawn_by_another(bench: Bench) -> None:
    await bench.orders("11")
    revokes = [("second", "first"), ("first", "i-11")]
    await bench.admit(*({"id": id_, "scope": "revoke", "target": target} for id_, target in sorted(revokes)))
    taken = await bench.take()
    assert sorted((step.why, step.work.id) for step in taken.steps) == [
        ("revoke-claimed", "first"),
        ("revoke-ended", "second"),
    ]


async def test_of_two_revocations_the_second_is_told_that_its_target_has_ended(bench: Bench) -> None:
    await bench.orders("11")
    await bench.admit(*({"id": id_, "scope": "revoke", "target": "i-11"} for id_ in ("first", "second")))
    taken = await bench.take()
    assert [(step.why, step.work.id) for step in taken.steps] == [
        ("revoke-claimed", "first"),
        ("revoke-ended", "second"),
    ]


@pytest.mark.parametrize(
    "scope", [{"scope": "symbol", "symbol": "BTCUSDT"}, {"scope": "account"}], ids=lambda s: s["scope"]
)
async def test_what_an_urgent_sweep_overtook_is_left_to_it(bench: Bench, scope: dict[str, str]) -> None:
    """It was asked for before the sweep, whenever it is admitted."""
    for n in range(3):
        await bench.desk.add(id=f"before-{n}", symbol="BTCUSDT", order_id=str(n + 1))
    await bench.desk.add(id="sweep", priority="urgent", **scope)
    entries = await bench.desk.read()
    await bench.desk.overtake(entries[3:])
    assert [work.id for work in works_of(await bench.take("cl"))] == ["sweep"]
    told = await bench.desk.admit(entries)
    assert (await bench.desk.admit(entries, told.overtaken)).admitted == 3
    await command(bench.desk.client, "DEL", LANE.key("sweeping"))  # normal cancels need not step aside any more
    assert (await bench.take()).batch is None
    stages = [state.stage for n in range(3) if (state := await bench.state(f"before-{n}"))]
    assert stages == [Stage.LOOK] * 3


async def test_an_order_that_was_seen_open_is_left_to_a_sweep_until_that_has_had_its_time(bench: Bench) -> None:
    """Both at once name an order twice, and one of them in vain; a sweep that does not get on keeps nothing waiting."""

    async def seen_open() -> None:
        (work,) = works_of(await bench.take("l"))
        state = work.taken(stage=Stage.LOOK, batch_id="b", route="orderInfo", size=1, taken_us=0)
        state.stage = Stage.CANCEL
        await bench.settle(Settlement(None, [Move(work, state, 0)]))

    await bench.orders("11")
    for n in range(2):
        for name in (BATCH.name, SINGLE.name):
            await bench.settle(Settlement(None, [], holds=[Hold(name, "rate", 300_000, "test")]))
        await bench.admit({"id": f"sweep-{n}", "scope": "symbol", "symbol": "BTCUSDT"})
        (sweep,) = works_of(await bench.take())
        assert sweep.id == f"sweep-{n}"
        await bench.settle(Settlement(None, [ended(sweep)]))
        await bench.forward(400_000)
        assert (await bench.take()).batch is None
        await bench.forward(600_000)
        await seen_open()
    assert [work.id for work in works_of(await bench.take())] == ["i-11"]


async def test_what_is_urgent_is_not_left_to_a_sweep_that_is_not(bench: Bench) -> None:
    await bench.orders("11", priority="urgent")
    await bench.orders("12")
    for name in (BATCH.name, SINGLE.name):
        await bench.settle(Settlement(None, [], holds=[Hold(name, "rate", 1_000_000, "test")]))
    await bench.forward(1_000)
    await bench.admit({"id": "sweep", "scope": "symbol", "symbol": "BTCUSDT"})
    assert [work.id for work in works_of(await bench.take())] == ["sweep"]
    await bench.forward(1_000_000)
    assert [work.id for work in works_of(await bench.take())] == ["i-11"]
    assert (await bench.take()).batch is None, "what is as urgent as the sweep at most is looked at after it"


@pytest.mark.parametrize("part", [{"older_than_ms": "1700000000000"}, {"client_prefix": "mine-"}])
async def test_an_order_is_not_left_to_a_sweep_of_a_part(bench: Bench, part: dict[str, str]) -> None:
    """It may be none of those that are meant."""
    await bench.orders("11")
    for name in (BATCH.name, SINGLE.name):
        await bench.settle(Settlement(None, [], holds=[Hold(name, "rate", 1_000_000, "test")]))
    await bench.forward(1_000)
    await bench.admit({"id": "sweep", "scope": "symbol", "symbol": "BTCUSDT", **part})
    assert [work.id for work in works_of(await bench.take("l"))] == ["sweep"]
    await bench.forward(1_000_000)
    assert [work.id for work in works_of(await bench.take())] == ["i-11"]


async def test_normal_cancels_step_aside_for_an_urgent_sweep_however_long_after_another(bench: Bench) -> None:
    for n in range(2):
        await bench.admit({"id": f"sweep-{n}", "scope": "symbol", "symbol": "BTCUSDT", "priority": "urgent"})
        (work,) = works_of(await bench.take())
        assert work.id == f"sweep-{n}"
        await bench.orders(str(11 + n), symbol="ETHUSDT")
        assert (await bench.take()).batch is None
        await bench.settle(Settlement(None, [ended(work)]))
        await bench.forward(60_000_000)


async def test_an_order_is_left_to_a_sweep_of_the_whole_account(bench: Bench) -> None:
    await bench.orders("11")
    for name in (BATCH.name, SINGLE.name):
        await bench.settle(Settlement(None, [], holds=[Hold(name, "rate", 1_000_000, "test")]))
    await bench.forward(1_000)
    await bench.admit({"id": "sweep", "scope": "account"})
    assert [work.id for work in works_of(await bench.take("cl"))] == ["sweep"]
    await bench.forward(1_000_000)
    assert (await bench.take()).batch is None
    state = await bench.state("i-11")
    assert state
    assert (state.stage, state.attempts) == (Stage.LOOK, 0)


async def test_what_stepped_aside_for_an_urgent_sweep_goes_on_as_soon_as_that_ended(bench: Bench) -> None:
    await bench.admit({"id": "sweep", "scope": "symbol", "symbol": "BTCUSDT", "priority": "urgent"})
    (work,) = works_of(await bench.take())
    await bench.orders("11", symbol="ETHUSDT")
    assert (await bench.take()).batch is None
    await bench.settle(Settlement(None, [ended(work)]))
    assert [work.id for work in works_of(await bench.take())] == ["i-11"]


async def test_an_order_stream_is_relied_on_only_while_it_tells_of_every_order(bench: Bench) -> None:
    assert await bench.ledger.stream("w1", "live")
    assert not await bench.ledger.stream("w2", "leave"), "it is not this worker's to leave"
    assert (await bench.take("")).streamed
    assert await bench.ledger.stream("w1", "hold")
    assert not (await bench.take("")).streamed


@pytest.mark.parametrize("hours", [-2, 2])
async def test_nothing_is_trimmed_while_two_clocks_disagree(bench: Bench, hours: int) -> None:
    for n in range(500):
        await command(bench.desk.client, "XADD", LANE.results, f"{1000 + n}-0", "id", str(n))
    await bench.ledger.trim(60_000, 24, time.time_ns() // 1_000_000 + hours * 3_600_000)
    assert await command(bench.desk.client, "XLEN", LANE.results) == 500
    await bench.ledger.trim(60_000, 24, time.time_ns() // 1_000_000)
    assert await command(bench.desk.client, "XLEN", LANE.results) < 500


async def test_the_inbox_is_never_trimmed_past_the_cursor(bench: Bench) -> None:
    for n in range(500):
        await command(bench.desk.client, "XADD", LANE.inbox, f"{1000 + n}-0", "symbol", "BTCUSDT", "order_id", "11")
    await bench.ledger.trim(60_000, 24, time.time_ns() // 1_000_000)
    assert await command(bench.desk.client, "XLEN", LANE.inbox) == 500
    while (admission := await bench.desk.read(await bench.ledger.cursor()))[300:]:
        await bench.desk.admit(admission[:300])
    await bench.ledger.trim(60_000, 24, time.time_ns() // 1_000_000)
    assert 200 <= await command(bench.desk.client, "XLEN", LANE.inbox) < 500


async def test_a_full_memory_stops_admission_and_neither_takes_nor_settlements(redis_server: RedisServer) -> None:
    async with lone_desk(redis_server.url) as desk:
        bench = Bench(desk)
        await bench.orders("11")
        await desk.add(symbol="BTCUSDT", order_id="12")
        admission = await bench.admission()
        await command(desk.client, "CONFIG", "SET", "maxmemory", "1")
        refused = (await bench.ledger.round(RoundRequest(admission=admission))).admitted
        assert isinstance(refused, ResponseError)
        assert is_memory_full(refused)
        assert await desk.intents() == ["i-11"]
        (work,) = works_of(await bench.take())
        await bench.hold(1_000_000)
        assert (await bench.settle(Settlement(None, [ended(work)]))).applied == 1
        await command(desk.client, "CONFIG", "SET", "maxmemory", "0")
        assert (await bench.apply(admission)).admitted == 1


# -- guards and watchers ----------------------------------------------------------------------------------------


async def test_a_guard_that_was_renewed_meanwhile_does_not_fire(bench: Bench) -> None:
    redis = bench.desk.client
    await bench.orders("11")
    await command(redis, "SET", LANE.guard, "1", "PX", 60_000)
    (seen,) = await guard_ledger.see(redis, [LANE])
    assert isinstance(seen, guard_ledger.Seen)
    told = head(LANE, "op-test", Status.operator, "local", "fired")
    assert not await guard_ledger.fire(redis, LANE, seen.armed, 1, seen.wall_ms, [], told)
    await command(redis, "DEL", LANE.guard)
    fired = [await guard_ledger.fire(redis, LANE, seen.armed, 1, seen.wall_ms, [], told) for _ in range(2)]
    assert fired == [True, False]
    assert [event["status"] for event in await bench.told()] == ["operator"]


async def test_a_worker_that_stalled_does_not_fire_for_a_deadline_of_before(bench: Bench) -> None:
    """It would admit nothing, as its intents are known; but the guard of now would be gone."""
    redis, told = bench.desk.client, head(LANE, "op-test", Status.operator, "local", "fired")
    deadlines = []
    for ttl_ms in (60_000, 120_000):
        await command(redis, "SET", LANE.guard, "1", "PX", ttl_ms)
        (seen,) = await guard_ledger.see(redis, [LANE])
        assert isinstance(seen, guard_ledger.Seen)
        deadlines.append(seen.armed)
        await command(redis, "DEL", LANE.guard)
    now_ms = time.time_ns() // 1_000_000
    fired = [await guard_ledger.fire(redis, LANE, deadline, 1, now_ms, [], told) for deadline in deadlines]
    assert fired == [False, True]


async def test_a_worker_that_was_silent_for_two_seconds_is_not_counted_on(bench: Bench) -> None:
    redis = bench.desk.client
    seconds, us = await command(redis, "TIME")
    now_ms = int(seconds) * 1000 + int(us) // 1000
    await command(redis, "ZADD", ROSTER, now_ms - 2_000, "dead", now_ms - 500, "late", now_ms + 60_000, "of the future")
    assert await SCRIPTS.run(redis, "roster", [ROSTER], ["me", FRESH_MS]) == [b"late", b"me"]


@pytest.mark.parametrize("vouched_us", [0, 700_000, 60_000_000])
async def test_time_that_nobody_vouches_for_frees_no_permit(bench: Bench, vouched_us: int) -> None:
    """A worker that begins cannot tell a step of the server's clock from time that passed."""
    client, clock = bench.desk.client, LANE.key("clock")
    await bench.take()
    words = cast("bytes", await client.get(clock)).split()
    seconds, micros = await client.time()
    touched_us, steady = seconds * 1_000_000 + micros - 1_000_000, 5_000_000_000
    permits = LANE.key("permits:cancel-order")
    await client.delete(permits)
    await client.zadd(permits, {"over": steady - 1, "out": steady + 400_000, "later": steady + 3_000_000})
    await client.set(clock, b"%d %d %s %d" % (touched_us, steady, words[2], steady + 400_000))
    await bench.desk.ledger.arrive(vouched_us)
    now = int(cast("bytes", await client.get(clock)).split()[1])
    unvouched = max(0, now - steady - vouched_us)
    assert 1_000_000 <= now - steady < 4_000_000
    assert await client.zscore(permits, "out") == steady + 400_000 + unvouched
    assert await client.zscore(permits, "later") == steady + 3_000_000 + unvouched
    assert await client.zscore(permits, "over") == steady - 1
    await bench.desk.ledger.arrive(0)
    assert (await client.zscore(permits, "out") or 0) < steady + 400_000 + unvouched + 500_000


async def test_what_is_out_while_the_clock_went_ahead_is_free_that_much_later(bench: Bench) -> None:
    async def ahead(by_us: int) -> None:
        hold = Hold("*", "leap", by_us, "the server clock went ahead")
        await bench.desk.ledger.round(RoundRequest(settlements=[Settlement(None, [], holds=[hold])]))

    async def steady_us() -> int:
        return int(cast("bytes", await client.get(LANE.key("clock"))).split()[1])

    client = bench.desk.client
    await bench.take()
    steady = await steady_us()
    permits = LANE.key("permits:cancel-order")
    await client.zadd(permits, {"over": steady - 1, "soon": steady + 400_000, "later": steady + 600_000})
    await ahead(30_000)
    assert await client.zscore(permits, "soon") == steady + 430_000
    assert await client.zscore(permits, "later") == steady + 630_000
    (status,) = await operate.status(client, [LANE])
    assert [reason for _, reason, _ in status.holds] == ["leap"]
    await ahead(5_000_000)
    now = await steady_us()
    # At the latest a window from now, with what a call may be early.
    assert await client.zscore(permits, "soon") == await client.zscore(permits, "later") == now + 1_100_000
    assert await client.zscore(permits, "over") == steady - 1


@pytest.mark.parametrize(("units", "kept"), [(10, 2), (9, 1), (5, 1), (4, 0), (2, 0)])
async def test_at_most_a_fifth_of_a_bucket_is_left_for_what_is_urgent(bench: Bench, units: int, kept: int) -> None:
    buckets = tuple(replace(bucket, units=units) for bucket in BUCKETS)
    plan = LanePlan(lane=LANE, routes=ROUTES, buckets=buckets, lease_us=LEASE_US, gap_us=0, urgent_reserve=10)
    bench.ledger = RedisLedger(bench.desk.client, plan)
    await bench.orders(*(str(10_000 + n) for n in range(60 * units)))
    granted = [(await bench.take(closed=("cancel-order",))).batch is not None for _ in range(units)]
    assert granted == [True] * (units - kept) + [False] * kept
    await bench.orders("1", "2", priority="urgent")
    assert ((await bench.take(closed=("cancel-order",))).batch is not None) == (kept > 0)


@pytest.mark.parametrize("under_way", [True, False], ids=["under way", "never answered"])
async def test_calls_without_an_answer_count_towards_the_lock_of_an_endpoint(bench: Bench, under_way: bool) -> None:
    """With the errors that were told they could reach the number at which BingX closes it."""
    bingx = Bingx(BingxCredentials(SECRET, SECRET))
    buckets = tuple(replace(bucket, units=100) for bucket in bingx.buckets)
    plan = LanePlan(LANE, bingx.routes, buckets, LEASE_US, 0, urgent_reserve=0, errors_us=bingx.errors_us)
    bench.ledger, bench.desk.intake = RedisLedger(bench.desk.client, plan), Intake(LANE, bingx, "w1")
    bucket = next(bucket for bucket in buckets if bucket.name == "cancel")
    await bench.take("")
    steady, told = await bench.steady(), 6
    errors = {f"100404 told-{n}": steady for n in range(told)}
    await bench.desk.client.zadd(LANE.key("errors:cancel"), errors)
    granted = 0
    for n in range(ERRORS_MOST):
        await bench.admit({"symbol": "BTC-USDT", "order_id": str(1_400_000_000_000_000_000 + n)})
        if batch := (await bench.take()).batch:
            granted += 1
            if not under_way:
                lost = PermitUse(bucket, 1, batch.id, "n", error="")
                await bench.settle(Settlement(lost, [ended(work) for work in batch.works]))
                await bench.forward(LEASE_US)
    assert granted == ERRORS_MOST - told


async def bingx_lane(bench: Bench) -> None:
    bingx = Bingx(BingxCredentials(SECRET, SECRET))
    plan = LanePlan(LANE, bingx.routes, bingx.buckets, LEASE_US, 0, urgent_reserve=0, errors_us=bingx.errors_us)
    bench.ledger, bench.desk.intake = RedisLedger(bench.desk.client, plan), Intake(LANE, bingx, "w1")


@pytest.mark.parametrize("pairs", [100, 128, 129, 300, 1_500])
async def test_pairs_that_wait_for_one_endpoint_hold_up_no_other_endpoint(bench: Bench, pairs: int) -> None:
    """Orders with triggers have one endpoint at BingX, five a second; normal orders have another that is free."""
    await bingx_lane(bench)
    await bench.admit(*({"symbol": f"P{n}-USDT", "order_id": str(10_000 + n), "scope": "stop"} for n in range(pairs)))
    await bench.admit(*({"id": f"n{n}", "symbol": "NORMAL-USDT", "order_id": str(90_000 + n)} for n in range(7)))
    for _ in range(5):
        (work,) = works_of(await bench.take())
        assert work.target.scope == "stop"
    assert {work.id for work in works_of(await bench.take())} == {f"n{n}" for n in range(7)}
    assert (await bench.take()).batch is None


def at_page(work: Work, page: int, delay_us: int = 0) -> Move:
    """On its way through a history, which all of them walk from the same order id."""
    state = work.taken(stage=Stage.LOOK, batch_id="b", route="historyOrders", size=1, taken_us=0)
    state.stage, state.look_class = Stage.LOOK, f"{'stride' if page > 1 else 'seek'}:BTC-USDT:77:{page}"
    return Move(work, state, delay_us)


async def walkers(bench: Bench, *pages: int) -> list[Move]:
    """At BingX, where `query` is closed by equal errors: orders that come to these pages next, the first one before the
    others. Nothing of it is settled yet."""
    await bingx_lane(bench)
    await bench.take("")
    errors = {f"100404 told-{n}": await bench.steady() for n in range(8)}
    await bench.desk.client.zadd(LANE.key("errors:query"), errors)
    moves = []
    for n, page in enumerate(pages):
        await bench.admit({"id": f"i{n}", "symbol": "BTC-USDT", "order_id": str(100 + n)})
        (work,) = works_of(await bench.take())
        moves.append(at_page(work, page))
    return moves


async def test_who_would_begin_a_walk_waits_for_the_one_under_way_and_all_of_them_begin_together(bench: Bench) -> None:
    """Else their walks stand on different pages, never meet again, and each reads the whole history."""
    first, walking, last = await walkers(bench, 1, 4, 1)
    await bench.settle(Settlement(None, [first, walking]))
    for page in (5, 6):  # it goes on, though another has waited longer
        (work,) = works_of(await bench.take("l"))
        assert work.id == walking.work.id
        in_hands = await bench.take("l")
        assert in_hands.batch is None
        assert in_hands.wait_us <= 100_000
        await bench.settle(Settlement(None, [at_page(work, page), last]))
    (work,) = works_of(await bench.take("l"))
    # Its walk has ended, and its next one is due later.
    await bench.settle(Settlement(None, [at_page(work, 1, delay_us=300_000)]))
    begun = works_of(await bench.take("l"))
    assert {work.id for work in begun} == {first.work.id, last.work.id}
    await bench.forward(300_000)
    assert (await bench.take("l")).batch is None
    await bench.forward(LEASE_US)  # whoever had them is gone: their walk goes on before another one begins
    assert {work.id for work in works_of(await bench.take("l"))} == {"i0", "i1", "i2"}


@pytest.mark.parametrize("why", ["tries again later", "travels alone", "is urgent", "walks from another id", "is sent"])
async def test_who_walks_otherwise_keeps_nobody_from_beginning(bench: Bench, why: str) -> None:
    first, other = await walkers(bench, 1, 4)
    match why:
        case "tries again later":
            other.delay_us = 1_000_000
        case "travels alone":
            other.state.strikes, other.state.cap = 2, 1
        case "is urgent":
            other.state.urgent = True
        case "walks from another id":
            other.state.look_class = "stride:BTC-USDT:88:4"
        case _:
            other.state.stage = Stage.CANCEL
    await bench.settle(Settlement(None, [other], order_keys=other.work.before.orders, sent=False))
    if why != "tries again later":
        assert [work.id for work in works_of(await bench.take("cl"))] == [other.work.id]
    await bench.settle(Settlement(None, [first]))
    assert [work.id for work in works_of(await bench.take("l"))] == [first.work.id]


async def test_a_walk_that_waits_keeps_no_other_pair_from_beginning(bench: Bench) -> None:
    walking, first, elsewhere = await walkers(bench, 4, 1, 1)
    elsewhere.state.look_class = "seek:ETH-USDT:77:1"
    await bench.settle(Settlement(None, [walking]))
    works_of(await bench.take("l"))
    await bench.settle(Settlement(None, [first, elsewhere]))
    assert [work.id for work in works_of(await bench.take("l"))] == [elsewhere.work.id]


async def test_a_pair_that_keeps_its_distance_holds_up_no_full_call(bench: Bench) -> None:
    """Of one kind: what waits because its call could carry more is not without a permit."""
    await bingx_lane(bench)
    for n in range(3):
        await bench.admit({"symbol": f"P{n}-USDT", "order_id": str(10_000 + n)})
        works_of(await bench.take())
    await bench.admit({"symbol": "SPACED-USDT", "order_id": "20000"})
    assert (await bench.take()).batch is None
    await bench.admit(*({"symbol": "FULL-USDT", "order_id": str(30_000 + n)} for n in range(60)))
    assert {work.target.symbol for work in works_of(await bench.take())} == {"FULL-USDT"}


@pytest.mark.parametrize("overdue", [True, False])
async def test_a_look_that_would_be_worth_it_only_in_company_goes_first_once_it_is_overdue(
    bench: Bench, overdue: bool
) -> None:
    """With `query` closed a page is all there is for both; there is always a walk that is worth a page."""
    await bingx_lane(bench)
    await bench.take("")
    errors = {f"100404 told-{n}": await bench.steady() for n in range(8)}
    await bench.desk.client.zadd(LANE.key("errors:query"), errors)
    for order_id, look_class in (("11", "any:BTC-USDT"), ("12", "stride:BTC-USDT:1:7")):
        await bench.admit({"id": f"i-{order_id}", "symbol": "BTC-USDT", "order_id": order_id})
        (work,) = works_of(await bench.take("c"))
        move = looked_for(work)
        move.state.look_class = look_class
        await bench.settle(Settlement(None, [move]))
        await bench.forward(1_000)
    await bench.forward(1_100_000 if overdue else 100_000)
    assert [work.id for work in works_of(await bench.take("l"))] == ["i-11" if overdue else "i-12"]


# -- which go together ------------------------------------------------------------------------------------------


async def test_what_was_asked_for_first_goes_first_whatever_its_id(bench: Bench) -> None:
    """Also of one page, which is admitted in one moment."""
    asked = [f"i-{n}" for n in range(1, 61)]
    await bench.orders(*(id_.removeprefix("i-") for id_ in asked))
    went = [[work.id for work in works_of(await bench.take())] for _ in range(2)]
    assert went == [asked[:50], asked[50:]]


async def sent(bench: Bench, *order_ids: str, due_us: dict[str, int] | None = None) -> None:
    """Cancels of these orders that were acknowledged, to be looked for by pages; after `due_us`, those named there."""
    await bench.orders(*order_ids)
    left = set(order_ids)
    while left:
        moves: list[End | Move] = []
        for work in works_of(await bench.take()):
            order_id = work.record["order_id"]
            left.remove(order_id)
            moves.append(replace(looked_for(work, (due_us or {}).get(order_id, 0)), sort=order_id))
        await bench.settle(Settlement(None, moves))
        await bench.forward(BATCH.window_us)  # its permit is not settled


async def page(bench: Bench) -> tuple[list[Work], list[str]]:
    """What the next look carries, and its orders."""
    await bench.forward(BATCH.window_us)
    works = works_of(await bench.take("l"))
    return works, [work.record["order_id"] for work in works]


@pytest.mark.parametrize("first", [1_510_634_987_083_268_000, 95])
async def test_a_page_of_looks_carries_neighbours_also_where_their_ids_differ_in_the_last_digits(
    bench: Bench, first: int
) -> None:
    """As those of orders that were placed at once do: 19 digits, of which a score would hold 16."""
    orders = [str(first + n) for n in range(220)]
    await sent(bench, *orders)
    assert [(await page(bench))[1] for _ in range(3)] == [orders[:100], orders[100:200], orders[200:]]


async def test_a_page_of_looks_has_room_for_neighbours_that_are_not_due_yet(bench: Bench) -> None:
    """The venue shows them, too: what lies above them would not be reached."""
    orders = [str(1_510_634_987_083_268_000 + n) for n in range(150)]
    await sent(bench, *orders, due_us=dict.fromkeys(orders[50:100], 60_000_000))
    carried = (await page(bench))[1]
    assert carried == [*orders[:50], *orders[100:110]]


async def test_a_page_of_looks_begins_with_the_oldest_only_if_others_passed_it_by(bench: Bench) -> None:
    """One that is full of other orders does not reach down to it: then one look in four is for it and those below."""
    tries = 40  # which one it is depends on the moment
    for n in range(tries):
        lower, upper = (str(2_000_000_000_000_000_000 + 10 * n + m) for m in range(2))
        await sent(bench, lower, upper)
        works, orders = await page(bench)
        assert orders == [lower, upper]
        await bench.settle(Settlement(None, [ended(work) for work in works]))

    lower, upper = "3000000000000000001", "3000000000000000002"
    await sent(bench, lower, upper)
    carried = set()
    for _ in range(2 * tries):
        works, orders = await page(bench)
        carried.add(tuple(orders))
        back = [Move(work, work.before.at_rest(work.fence), None, sort=work.record["order_id"]) for work in works]
        await bench.settle(Settlement(None, [*back]))
    assert carried == {(lower, upper), (lower,)}


async def test_what_is_taken_from_a_server_that_had_forgotten_the_scripts_is_not_confirmed(bench: Bench) -> None:
    """No replica was waited for in that round."""
    plan = LanePlan(lane=LANE, routes=ROUTES, buckets=BUCKETS, lease_us=LEASE_US, gap_us=0, urgent_reserve=1)
    bench.ledger = RedisLedger(bench.desk.client, plan, Durability(1))
    await bench.orders("11")
    await bench.desk.client.script_flush()
    taken = await bench.take()
    assert taken.batch
    assert taken.batch.unconfirmed


async def test_what_was_sent_in_time_is_looked_for_although_its_time_has_passed(bench: Bench) -> None:
    now_ms = time.time_ns() // 1_000_000
    await bench.orders("11", expires_at_ms=str(now_ms + 60_000))
    (work,) = works_of(await bench.take())
    acknowledged = looked_for(work)
    acknowledged.state.expires_ms = now_ms - 1
    await bench.settle(Settlement(None, [acknowledged]))
    taken = await bench.take("l")
    assert taken.steps == []
    assert [work.id for work in works_of(taken)] == ["i-11"]
