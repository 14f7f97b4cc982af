"""What a trace finds, against real servers: it must not depend on the order of entries, on pages or on passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import redis.asyncio as aioredis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from cancelq import Lane
from cancelq_worker.state import LOCAL, State
from cancelq_worker.steps import Asked, Kind, Waiting
from cancelq_worker.trace import NAMES_MOST, Trace, reader, trace
from cancelq_worker.trips import command
from cancelq_worker.venues.port import Stage

MAIN = Lane("bitget", "main")

Fields = Mapping[str, str]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    redis = reader(redis_url)
    yield redis
    await redis.aclose()


async def fill(redis: aioredis.Redis, asked: Sequence[Fields], told: Sequence[Fields] = ()) -> None:
    """Writes entries `1-0`, `2-0`, … to both streams of an empty lane; all of the inbox is admitted."""
    async with redis.pipeline(transaction=False) as pipe:
        for stream, entries in ((MAIN.inbox, asked), (MAIN.results, told)):
            pipe.delete(stream)
            for number, fields in enumerate(entries, 1):
                pipe.xadd(stream, dict[Any, Any](fields), f"{number}-0")
        pipe.set(MAIN.key("cursor"), f"{len(asked)}-0")
        await pipe.execute()


def ids(found: Trace) -> set[str]:
    return {step.id for step in found.steps}


def ended(id_: str, **fields: str) -> Fields:
    return {"id": id_, "status": "cancelled", "final": "1", **fields}


class TestWhatBelongsTogether:
    async def test_two_intents_of_one_order_by_order_id_whatever_the_pair(self, redis: aioredis.Redis) -> None:
        asked = [
            {"id": "a", "symbol": "X", "order_id": "7"},
            {"id": "b", "symbol": "Y", "order_id": "7"},
            {"id": "c", "symbol": "X", "order_id": "8"},
        ]
        await fill(redis, asked)
        for word in ("a", "b", "7"):
            assert ids(await trace(redis, MAIN, word)) == {"a", "b"}

    async def test_a_client_id_is_an_orders_name_only_within_its_pair(self, redis: aioredis.Redis) -> None:
        asked = [
            {"id": "a", "symbol": "X", "client_order_id": "grid-1"},
            {"id": "b", "symbol": "Y", "client_order_id": "grid-1"},
            {"id": "c", "symbol": "X", "client_order_id": "grid-1"},
        ]
        await fill(redis, asked)
        assert ids(await trace(redis, MAIN, "a")) == {"a", "c"}
        # Asked for by itself it may be of any pair.
        assert ids(await trace(redis, MAIN, "grid-1")) == {"a", "b", "c"}

    async def test_an_order_id_that_only_the_venue_told_joins_both_names(self, redis: aioredis.Redis) -> None:
        asked = [{"id": "a", "symbol": "X", "order_id": "7"}, {"id": "b", "symbol": "X", "client_order_id": "c-7"}]
        told = [ended("b", symbol="X", client_order_id="c-7", order_id="7"), ended("a", symbol="X", order_id="7")]
        await fill(redis, asked, told)
        found = await trace(redis, MAIN, "a")
        assert ids(found) == {"a", "b"}
        assert {step.found_by for step in found.steps if step.id == "b"} == {"order_id"}

    async def test_the_order_a_trigger_became(self, redis: aioredis.Redis) -> None:
        asked = [{"id": "s", "scope": "stop", "order_id": "7"}, {"id": "o", "symbol": "X", "order_id": "70"}]
        await fill(redis, asked, [{**ended("s", child_order_id="70"), "status": "triggered"}, ended("o")])
        for word in ("s", "o", "70", "7"):
            assert ids(await trace(redis, MAIN, word)) == {"s", "o"}

    async def test_a_value_that_is_no_name_finds_nothing(self, redis: aioredis.Redis) -> None:
        await fill(redis, [{"id": "a", "symbol": "X", "order_id": "7", "reason": "b", "x_b": "b"}], [ended("a")])
        assert (await trace(redis, MAIN, "b")).steps == []
        assert (await trace(redis, MAIN, "X")).steps == []

    async def test_an_entry_id_is_fetched_and_is_not_mixed_up_between_the_streams(self, redis: aioredis.Redis) -> None:
        await fill(
            redis,
            [{"symbol": "X", "order_id": "1"}, {"id": "b", "symbol": "X", "order_id": "2"}],
            [ended("b"), ended("1-0"), ended("elsewhere")],
        )
        # Of the inbox without an id, with an id; then of the results, if the inbox has no such entry.
        assert ids(await trace(redis, MAIN, "1-0")) == {"1-0"}
        assert ids(await trace(redis, MAIN, "2-0")) == {"b"}
        assert ids(await trace(redis, MAIN, "02-00")) == {"b"}
        assert ids(await trace(redis, MAIN, "3-0")) == {"elsewhere"}
        assert (await trace(redis, MAIN, "9-0")).steps == []
        assert (await trace(redis, MAIN, f"{2**64}-0")).steps == []

    async def test_a_target_is_an_id_and_not_an_entry_of_another_id(self, redis: aioredis.Redis) -> None:
        await fill(
            redis, [{"id": "b", "symbol": "X", "order_id": "1"}, {"id": "r", "scope": "revoke", "target": "1-0"}]
        )
        assert ids(await trace(redis, MAIN, "r")) == {"r"}

    async def test_a_limit_of_age_spares_what_is_older_but_not_a_known_entry(self, redis: aioredis.Redis) -> None:
        await fill(redis, [{"symbol": "X", "order_id": "7"}], [ended("1-0", order_id="7")])
        assert ids(await trace(redis, MAIN, "7")) == {"1-0"}
        assert ids(await trace(redis, MAIN, "7", younger_than_ms=1000)) == set()
        found = await trace(redis, MAIN, "1-0", younger_than_ms=1000)
        assert [step.kind for step in found.steps] == [Kind.queued, Kind.open]


class TestReading:
    async def test_a_chain_of_copies_takes_two_passes_whichever_way_it_points(self, redis: aioredis.Redis) -> None:
        chain = [ended("c-0"), *(ended(f"c-{n}", origin=f"c-{n - 1}") for n in range(1, 30))]
        gap = [ended("other")] * 50
        await fill(redis, [], [event for link in chain for event in (link, *gap)])
        for word in ("c-0", "c-15", "c-29"):
            read: list[int] = []

            def note(_: str, entries: int, __: int, read: list[int] = read) -> None:
                read.append(entries)

            found = await trace(redis, MAIN, word, progress=note, page=100)
            assert ids(found) == {f"c-{n}" for n in range(30)}
            passes = sum(1 for entries in read if entries <= 100)
            assert passes <= 3
            assert not found.cut

    async def test_what_is_learnt_on_the_way_back_is_looked_for_on_the_way_forth(self, redis: aioredis.Redis) -> None:
        await fill(redis, [], [ended("y", order_id="7"), ended("m", order_id="7"), ended("x", origin="y")])
        assert ids(await trace(redis, MAIN, "x", page=1)) == {"x", "y", "m"}

    async def test_what_is_learnt_in_results_is_looked_for_in_the_whole_inbox(self, redis: aioredis.Redis) -> None:
        asked = [{"id": "early", "symbol": "X", "order_id": "7"}, *[{"symbol": "X", "order_id": "1"}] * 40]
        asked.append({"id": "late", "symbol": "X", "client_order_id": "c-7"})
        await fill(redis, asked, [ended("late", symbol="X", client_order_id="c-7", order_id="7")])
        assert ids(await trace(redis, MAIN, "c-7", page=10)) == {"early", "late"}

    async def test_one_that_settles_while_the_streams_are_read(self, redis: aioredis.Redis, redis_url: str) -> None:
        await fill(redis, [{"id": "a", "symbol": "X", "order_id": "7"}], [ended("b")])
        await _open(redis, "a", State(cancel_class="by-id", look_class="info"))

        def settle(stream: str, *_: int) -> None:
            with Redis.from_url(redis_url) as client:
                if stream.endswith("results") and client.hdel(MAIN.key("state"), "a"):
                    client.xadd(MAIN.results, dict[Any, Any](ended("a")))

        found = await trace(redis, MAIN, "a", progress=settle)
        assert [step.kind for step in found.steps] == [Kind.queued, Kind.event]

    async def test_a_flood_is_bounded_and_told_and_the_outcome_is_kept(self, redis: aioredis.Redis) -> None:
        asked = [{"id": f"n-{n}", "symbol": "X", "order_id": "7"} for n in range(2 * NAMES_MOST)]
        await fill(redis, asked, [ended(f"n-{2 * NAMES_MOST - 1}", order_id="7")])
        found = await trace(redis, MAIN, "7")
        assert found.cut
        assert any(step.kind is Kind.event for step in found.steps)
        assert len(ids(found)) == 2 * NAMES_MOST


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), page=st.integers(1, 4))
def test_it_finds_what_a_search_of_everything_finds(redis_url: str, data: st.DataObject, page: int) -> None:
    name = st.sampled_from("abcdef")
    asked = data.draw(st.lists(st.fixed_dictionaries({"id": name}, optional=_named(name, "target")), max_size=8))
    told = data.draw(st.lists(st.fixed_dictionaries({"id": name}, optional=_named(name, "origin")), max_size=8))
    told = [{**ended(fields["id"]), **fields} for fields in told]

    async def found() -> set[str]:
        redis = reader(redis_url)
        try:
            await fill(redis, asked, told)
            return ids(await trace(redis, MAIN, "a", page=page))
        finally:
            await redis.aclose()

    assert asyncio.run(found()) == _closure("a", asked, told)


class TestWhatIsOpen:
    async def test_the_state_of_one_that_waits(self, redis: aioredis.Redis) -> None:
        await fill(redis, [{"id": "a", "symbol": "X", "order_id": "7"}])
        await _open(redis, "a", State(cancel_class="by-id", look_class="info", place=5, attempts=0))
        for member, score in (("before", 1), ("a", 5), ("after", 9)):
            await command(redis, "ZADD", MAIN.key("queue:c:n:by-id"), score, member)
        await command(redis, "HSET", MAIN.key("hold"), "*|paused", "-1 paused by me")
        waiting = await _waiting(redis, "7", "a")
        assert (waiting.where, waiting.stage, waiting.priority) == ("queued", "cancel", "normal")
        assert (waiting.queue, waiting.position, waiting.queue_length) == ("c:n:by-id", 2, 3)
        assert (waiting.attempts, waiting.due_in_us, waiting.workers) == (0, 0, [])
        assert waiting.holds == ["lane paused (until resumed: paused by me)"]

    async def test_one_that_was_sent_tells_of_its_call(self, redis: aioredis.Redis) -> None:
        await fill(redis, [{"id": "a", "symbol": "X", "order_id": "7"}])
        notes = {"call": {"b": "b-1", "s": 1010, "a": 1020, "code": "00000", "http": 200}}
        state = State(
            fence=2, taken=1, stage=Stage.LOOK, attempts=1, cancel_class="by-id", look_class="info",
            route="cancel-order", batch_id="b-1", size=3, taken_us=1005, notes=notes,
        )  # fmt: skip
        await _open(redis, "a", state)
        found = await trace(redis, MAIN, "a")
        assert [(step.kind.value, step.at_us) for step in found.steps[:4]] == [
            ("queued", 1000),
            ("taken", 1005),
            ("sent", 1010),
            ("answered", 1020),
        ]
        assert (await _waiting(redis, "a")).where == "in hand"
        # Times of another call than the last are nobody's.
        state.batch_id = "b-2"
        await _open(redis, "a", state)
        kinds = [step.kind for step in (await trace(redis, MAIN, "a")).steps]
        assert kinds == [Kind.queued, Kind.taken, Kind.open]

    async def test_it_is_found_by_an_order_id_that_only_the_state_knows(self, redis: aioredis.Redis) -> None:
        await fill(redis, [{"id": "a", "symbol": "X", "client_order_id": "c-7"}])
        await _open(redis, "a", State(cancel_class="by-id", look_class="info", notes={"oid": "7"}))
        await command(redis, "HSET", MAIN.key("orders"), "order:i:7", "a", "order:i:17", "b", "order:c:X:c-7", "a")
        assert ids(await trace(redis, MAIN, "7")) == {"a"}
        assert (await trace(redis, MAIN, "*")).steps == []

    async def test_its_record_tells_what_was_asked_if_the_entry_was_trimmed(self, redis: aioredis.Redis) -> None:
        await fill(redis, [{"id": "b", "symbol": "X", "order_id": "8"}])
        await _open(redis, "a", State(cancel_class="by-id", look_class="info"))
        queued, still_open = (await trace(redis, MAIN, "a")).steps
        assert isinstance(queued.told, Asked)
        assert queued.told.named == {"scope": "order", "symbol": "X", "order_id": "7"}
        assert (queued.at_us, queued.entry_id, still_open.kind) == (1000, None, Kind.open)

    async def test_timed_and_revoking(self, redis: aioredis.Redis) -> None:
        await fill(redis, [{"id": "a", "symbol": "X", "order_id": "7"}, {"id": "r", "scope": "revoke", "target": "a"}])
        await _open(redis, "a", State(cancel_class="by-id", look_class="info"), not_before_ms="1900000000000")
        await command(redis, "ZADD", MAIN.key("timed"), 1900000000000, "a")
        assert (await _waiting(redis, "a")).where == "timed"
        await command(redis, "DEL", MAIN.key("state"))
        await _open(redis, "r", State(cancel_class=LOCAL, look_class="a", orders=("-",)))
        await command(redis, "ZADD", MAIN.key("queue:local"), 1, "r")
        waiting = await _waiting(redis, "r")
        assert (waiting.where, waiting.position) == ("revocation", 1)

    async def test_not_admitted_yet_gone_and_unreadable(self, redis: aioredis.Redis) -> None:
        await fill(
            redis, [{"id": "old", "symbol": "X", "order_id": "7"}, {"id": "new", "symbol": "X", "order_id": "8"}]
        )
        await command(redis, "SET", MAIN.key("cursor"), "1-0")
        assert (await _waiting(redis, "new")).where == "not admitted"
        assert (await _waiting(redis, "old")).where == "gone"
        await command(redis, "HSET", MAIN.key("state"), "old", "no state line")
        assert (await _waiting(redis, "old")).where == "unreadable"

    async def test_an_outcome_nobody_can_read_is_an_outcome(self, redis: aioredis.Redis) -> None:
        await fill(
            redis,
            [{"id": "a", "symbol": "X", "order_id": "7"}],
            [{"id": "a", "status": "vanished", "final": "1"}, {"id": "op-1", "status": "operator", "final": "0"}],
        )
        assert [step.kind for step in (await trace(redis, MAIN, "a")).steps] == [Kind.queued, Kind.unreadable]
        # An operator's act can be asked for, and is no intent that lacks an outcome.
        assert [step.kind for step in (await trace(redis, MAIN, "op-1")).steps] == [Kind.event]


async def _open(redis: aioredis.Redis, id_: str, state: State, **more: str) -> None:
    """Makes an intent open as admission would, for an entry of the inbox's first millisecond."""
    record = {"scope": "order", "symbol": "X", "order_id": "7", **more}
    record |= {"venue": "bitget", "account": "main", "queued_us": "1000", "explicit": "1"}
    packed = "{" + ",".join(f'"{name}":"{value}"' for name, value in record.items()) + "}"
    await command(redis, "HSET", MAIN.key("intents"), id_, packed)
    await command(redis, "HSET", MAIN.key("state"), id_, state.pack())


async def _waiting(redis: aioredis.Redis, word: str, id_: str | None = None) -> Waiting:
    steps = [step for step in (await trace(redis, MAIN, word)).steps if step.id == (id_ or word)]
    (waiting,) = [step.told for step in steps if isinstance(step.told, Waiting)]
    return waiting


def _named(name: st.SearchStrategy[str], link: str) -> dict[str, st.SearchStrategy[str]]:
    return {
        link: name,
        "scope": st.sampled_from(["order", "revoke"]),
        "symbol": st.sampled_from("XY"),
        "order_id": name,
        "client_order_id": name,
    }


def _closure(word: str, asked: Sequence[Fields], told: Sequence[Fields]) -> set[str]:
    """The same rules, without streams: entries are joined until nothing changes."""
    known = {("id", word), ("order", word), ("client", "X", word), ("client", "Y", word), ("client", word)}
    found: set[str] = set()
    while True:
        before = len(known) + len(found)
        for fields in (*asked, *told):
            names: set[tuple[str, ...]] = {("id", fields["id"])}
            names |= {("id", fields[link]) for link in ("target", "origin") if link in fields}
            if "order_id" in fields:
                names.add(("order", fields["order_id"]))
            client, symbol = fields.get("client_order_id"), fields.get("symbol")
            if client is not None and symbol is not None:
                names.add(("client", symbol, client))
            # Without a pair, a client id is met by the same of any pair, but leads nowhere itself.
            loosely = client is not None and symbol is None and any(n[0] == "client" and n[-1] == client for n in known)
            if loosely or names & known:
                found.add(fields["id"])
                # The target of what is no revocation is a mistake, and no link.
                known |= {n for n in names if n != ("id", fields.get("target")) or fields.get("scope") == "revoke"}
                known.add(("id", fields["id"]))
        if len(known) + len(found) == before:
            return found
