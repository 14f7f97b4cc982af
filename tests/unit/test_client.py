"""`Client` against real servers."""

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cancelq import (
    BrokerDown,
    BrokerRefused,
    Client,
    EventError,
    Intent,
    IntentError,
    Lane,
    LaneError,
    NotAccepted,
    OutcomeTimeout,
    Scope,
    Status,
    errors,
)
from cancelq.contract import Accepted, read_entry
from cancelq.watch import PAGE
from cancelq_worker.embedded import free_port
from tests.servers import RedisServer

LANE = Lane.parse("bitget:main")
OTHER_LANE = Lane.parse("bybit:main")
CANCEL = {"symbol": "BTCUSDT", "order_id": "121211212122"}


def open_lane(server: Redis, lane: Lane = LANE) -> None:
    """What a worker does for its lane: the inbox is there, and empty."""
    server.xgroup_create(lane.inbox, "made", mkstream=True)


def settle(server: Redis, *ids: str, lane: Lane = LANE, status: str = "cancelled", final: str = "1") -> None:
    """What a worker writes in the end."""
    pipeline = server.pipeline(transaction=False)
    for id in ids:
        event: dict[Any, Any] = {"id": id, "venue": lane.venue, "status": status, "final": final}
        pipeline.xadd(lane.results, event)
    pipeline.execute()


def inbox(server: Redis, lane: Lane = LANE) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """What was asked, as the server holds it."""
    return cast("list[tuple[bytes, dict[bytes, bytes]]]", server.xrange(lane.inbox))


def reads_of(server: Redis) -> int:
    """How many XREADs the server has seen."""
    stats = server.info("commandstats")
    return int(stats["cmdstat_xread"]["calls"]) if "cmdstat_xread" in stats else 0


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    """Asks until it is so; each question is a round trip."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline


def somebody_waits(server: Redis) -> bool:
    return int(server.info("clients")["blocked_clients"]) > 0


@pytest.fixture
def server(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0)) as server:
        open_lane(server)
        server.config_resetstat()
        yield server


@pytest.fixture
def client(redis_url: str, server: Redis) -> Iterator[Client]:
    with Client.from_url(redis_url) as client:
        yield client


def test_an_intent_is_queued_as_the_contract_says(client: Client, server: Redis) -> None:
    ticket = client.submit("bitget:main", **CANCEL, x_desk="delta")
    ((entry_id, fields),) = inbox(server)
    assert ticket.lane == LANE
    assert ticket.entry_id == entry_id.decode()
    judged = read_entry(ticket.entry_id, fields)
    assert isinstance(judged, Accepted)
    assert (judged.id, judged.explicit_id) == (ticket.id, True)
    assert judged.fields == {**CANCEL, "x_desk": "delta", "scope": "order", "priority": "normal"}


def test_an_intent_may_be_given_in_three_ways(client: Client, server: Redis) -> None:
    tickets = [
        client.submit(LANE, id="k1", **CANCEL),
        client.submit(LANE, {"id": "k2", **CANCEL}),
        client.submit(LANE, Intent(id="k3", symbol="BTCUSDT", order_id="121211212122")),
    ]
    assert [ticket.id for ticket in tickets] == ["k1", "k2", "k3"]
    contents = [{**fields, b"id": b""} for _, fields in inbox(server)]
    assert contents == [contents[0]] * 3


def test_text_beyond_ascii_arrives(client: Client, server: Redis) -> None:
    client.submit(LANE, **CANCEL, strategy="mañana 🦀", x_note="zwei\nZeilen\x00")
    ((_, fields),) = inbox(server)
    assert fields[b"strategy"].decode() == "mañana 🦀"
    assert fields[b"x_note"] == b"zwei\nZeilen\x00"


def test_what_breaks_a_rule_is_never_sent(client: Client, server: Redis) -> None:
    with pytest.raises(IntentError, match=r"^symbol: missing"):
        client.submit(LANE, order_id="1")
    with pytest.raises(IntentError, match="intent 1 of the batch"):
        client.submit_many(LANE, [CANCEL, {"order_id": "1"}])
    with pytest.raises(LaneError, match="bitget"):
        client.submit("bitgt:main", **CANCEL)
    assert server.xlen(LANE.inbox) == 0


def test_a_mistyped_lane_swallows_nothing(client: Client, server: Redis) -> None:
    with pytest.raises(NotAccepted, match=r"bitget:mian: nothing was queued"):
        client.submit("bitget:mian", **CANCEL)
    with pytest.raises(NotAccepted):
        client.submit_many("bitget:mian", [CANCEL] * 3)
    assert server.keys("*mian*") == []


def test_a_revoke_is_an_intent_of_its_own(client: Client, server: Redis) -> None:
    ticket = client.revoke(LANE, "desk-7:42", reason="fat finger")
    ((_, fields),) = inbox(server)
    assert ticket.id != "desk-7:42"
    assert {name: value for name, value in fields.items() if name != b"id"} == {
        b"scope": Scope.revoke.encode(),
        b"target": b"desk-7:42",
        b"reason": b"fat finger",
    }


def test_many_are_queued_in_their_order(client: Client, server: Redis) -> None:
    orders = [{"symbol": "BTCUSDT", "order_id": str(at)} for at in range(1203)]
    tickets = client.submit_many(LANE, (Intent.model_validate(o) if at % 2 else o for at, o in enumerate(orders)))
    queued = inbox(server)
    assert [fields[b"order_id"] for _, fields in queued] == [b"%d" % at for at in range(1203)]
    assert [ticket.entry_id.encode() for ticket in tickets] == [entry_id for entry_id, _ in queued]
    assert [ticket.id.encode() for ticket in tickets] == [fields[b"id"] for _, fields in queued]
    assert len({ticket.id for ticket in tickets}) == 1203
    assert client.submit_many(LANE, []) == []


@pytest.mark.parametrize(
    "options",
    [{}, {"protocol": 3}, {"decode_responses": True}, {"protocol": 3, "decode_responses": True}],
    ids=str,
)
def test_a_client_of_ones_own_may_be_set_up_as_one_likes(
    redis_url: str, server: Redis, options: dict[str, Any]
) -> None:
    with Redis.from_url(redis_url, **options) as own:
        client = Client(own)
        tickets = client.submit_many(LANE, [CANCEL] * 3)
        settle(server, *[ticket.id for ticket in tickets])
        assert [event.id for event in client.wait_all(tickets, 10)] == [ticket.id for ticket in tickets]
        assert len(list(client.events(LANE))) == 3
        client.close()
        assert own.ping()


def test_a_ticket_waits_for_its_final_event(client: Client, server: Redis) -> None:
    ticket = client.submit(LANE, **CANCEL)
    assert ticket.event is None
    settle(server, "somebody else's", ticket.id, status="accepted", final="0")
    settle(server, "somebody else's")
    settle(server, ticket.id, status="filled")
    event = ticket.wait(timeout_s=10)
    assert (event.id, event.status, event.final) == (ticket.id, Status.filled, True)
    assert ticket.event == event == ticket.wait(0)


def test_waiting_ends_as_soon_as_the_event_is_there(client: Client, server: Redis) -> None:
    ticket = client.submit(LANE, **CANCEL)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ticket.wait, 60)
        until(lambda: somebody_waits(server))
        settle(server, ticket.id)
        assert waiting.result(timeout=10).status is Status.cancelled


def test_no_event_in_time_is_told_by_id(client: Client) -> None:
    first, second = client.submit_many(LANE, [CANCEL] * 2)
    with pytest.raises(OutcomeTimeout, match=first.id) as late:
        client.wait_all([first, second], timeout_s=0.01)
    assert late.value.ids == (first.id, second.id)
    assert isinstance(late.value, TimeoutError)


def test_those_that_came_are_kept_when_others_did_not(client: Client, server: Redis) -> None:
    first, second = client.submit_many(LANE, [CANCEL] * 2)
    settle(server, second.id)
    with pytest.raises(OutcomeTimeout) as late:
        client.wait_all([first, second], timeout_s=0)
    assert late.value.ids == (first.id,)
    assert second.event is not None


def test_many_tickets_share_one_reader(client: Client, server: Redis) -> None:
    tickets = client.submit_many(LANE, [CANCEL] * 1500)
    settle(server, *[ticket.id for ticket in tickets])
    events = client.wait_all(tickets, 10)
    assert [event.id for event in events] == [ticket.id for ticket in tickets]
    assert reads_of(server) <= 3


def test_tickets_awaited_one_by_one_do_not_read_again(client: Client, server: Redis) -> None:
    tickets = [client.submit(LANE, **CANCEL) for _ in range(50)]
    settle(server, *[ticket.id for ticket in reversed(tickets)])
    for ticket in tickets:
        assert ticket.wait(10).id == ticket.id
    assert reads_of(server) == 1


def test_threads_that_wait_share_one_reader(client: Client, server: Redis) -> None:
    tickets = client.submit_many(LANE, [CANCEL] * 20)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(ticket.wait, 60) for ticket in tickets]
        until(lambda: somebody_waits(server))
        assert int(server.info("clients")["blocked_clients"]) == 1
        settle(server, *[ticket.id for ticket in tickets])
        assert [future.result(timeout=10).id for future in waiting] == [ticket.id for ticket in tickets]


def test_tickets_of_several_lanes_are_awaited_together(client: Client, server: Redis) -> None:
    open_lane(server, OTHER_LANE)
    tickets = [client.submit(lane, **CANCEL) for lane in (LANE, OTHER_LANE, LANE)]
    for ticket in tickets:
        settle(server, ticket.id, lane=ticket.lane)
    assert [event.venue for event in client.wait_all(tickets, 10)] == ["bitget", "bybit", "bitget"]


def test_a_repeated_id_finds_the_outcome_of_the_first(redis_url: str, client: Client, server: Redis) -> None:
    client.submit(LANE, id="k", **CANCEL)
    settle(server, "k", status="filled")
    settle(server, *[f"other{at}" for at in range(2 * PAGE)])
    with Client(redis_url) as after_a_restart:
        again = after_a_restart.submit(LANE, id="k", **CANCEL)
        settle(server, "k", status="duplicate", final="0")
        assert again.wait(10).status is Status.filled


def test_an_outcome_of_a_later_version_is_told_not_awaited(client: Client, server: Redis) -> None:
    ticket = client.submit(LANE, **CANCEL)
    settle(server, ticket.id, status="vanished")
    with pytest.raises(EventError, match="newer version"):
        ticket.wait(10)


def test_events_are_read_page_by_page_to_the_end(client: Client, server: Redis) -> None:
    ids = [f"k{at}" for at in range(2 * PAGE + 5)]
    settle(server, *ids)
    events = list(client.events(LANE))
    assert [event.id for event in events] == ids
    assert [event.id for event in client.events("bitget:main", events[-3].entry_id)] == ids[-2:]
    assert list(client.events(LANE, "$")) == []
    assert list(client.events(OTHER_LANE)) == []


def test_events_are_followed(client: Client, server: Redis) -> None:
    settle(server, "before")
    seen: list[str] = []
    enough = threading.Event()

    def follow() -> None:
        for event in client.events(LANE, "$", follow=True):
            seen.append(event.id)
            if len(seen) == 2:
                break
        enough.set()

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        until(lambda: somebody_waits(server))
        settle(server, "k1", "k2")
        following.result(timeout=10)
    assert enough.is_set()
    assert seen == ["k1", "k2"]


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with Client(f"redis://127.0.0.1:{free_port()}") as client:
        with pytest.raises(BrokerDown, match="nothing was sent"):
            client.submit(LANE, **CANCEL)
        with pytest.raises(BrokerDown, match="nothing was sent"):
            client.submit_many(LANE, [CANCEL] * 3)
        with pytest.raises(BrokerDown):
            next(client.events(LANE))


def test_a_full_server_refuses_loudly(redis_server: RedisServer) -> None:
    with redis_server.client() as server, Client(redis_server.url) as client:
        open_lane(server)
        redis_server.config_set("maxmemory", "1")
        with pytest.raises(BrokerRefused, match="memory is full") as full:
            client.submit(LANE, **CANCEL)
        assert full.value.code == "OOM"
        with pytest.raises(BrokerRefused, match="OOM"):
            client.submit_many(LANE, [CANCEL] * 3)
        redis_server.config_set("maxmemory", "0")
        assert client.submit(LANE, **CANCEL).entry_id


def test_a_key_that_is_no_stream_is_told_at_once(client: Client, server: Redis) -> None:
    server.set(LANE.results, "no stream")
    ticket = client.submit(LANE, **CANCEL)
    with pytest.raises(BrokerRefused, match="WRONGTYPE") as refused:
        ticket.wait(60)
    assert refused.value.code == "WRONGTYPE"


def test_a_producer_needs_no_more_than_xadd_on_its_inbox(redis_server: RedisServer) -> None:
    with redis_server.client() as server:
        open_lane(server)
        open_lane(server, OTHER_LANE)
        server.execute_command("ACL", "SETUSER", "desk", "on", ">pw", f"~{LANE.inbox}", "+xadd")
    host = redis_server.url.removeprefix("redis://")
    with Client(f"redis://desk:pw@{host}") as client:
        ticket = client.submit(LANE, **CANCEL)
        assert len(client.submit_many(LANE, [CANCEL] * 3)) == 3
        with pytest.raises(BrokerRefused, match="lacks a permission") as refused:
            client.submit(OTHER_LANE, **CANCEL)
        assert refused.value.code == "NOPERM"
        with pytest.raises(BrokerRefused, match="NOPERM"):
            ticket.wait(60)
    with Client(f"redis://desk:mistyped@{host}") as client, pytest.raises(BrokerDown) as denied:
        client.submit(LANE, **CANCEL)
    assert "mistyped" not in str(denied.value)


def test_waiting_goes_on_when_the_server_comes_back(redis_server: RedisServer) -> None:
    with redis_server.client() as server, Client(redis_server.url) as client:
        open_lane(server)
        ticket = client.submit(LANE, **CANCEL)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ticket.wait, 60)
            until(lambda: somebody_waits(server))
            redis_server.kill9()
            redis_server.restart()
            with redis_server.client() as server_again:
                settle(server_again, ticket.id)
            assert waiting.result(timeout=20).id == ticket.id


def test_a_server_that_stays_away_is_named_in_the_time_out(redis_server: RedisServer) -> None:
    with redis_server.client() as server, Client(redis_server.url) as client:
        open_lane(server)
        ticket = client.submit(LANE, **CANCEL)
        redis_server.stop()
        with pytest.raises(OutcomeTimeout, match="no connection to the server") as late:
            ticket.wait(0.05)
        assert isinstance(late.value.__cause__, BrokerDown)


def test_nothing_but_a_url_or_a_client_is_taken() -> None:
    with pytest.raises(ValueError, match="redis://"):
        Client("localhost:6379")


@pytest.mark.parametrize(
    "error",
    [
        IntentError("symbol", "symbol: missing", 3),
        errors.EventError("1-1", "no status"),
        errors.NotAccepted("bitget:main"),
        errors.BrokerDown(OSError("refused")),
        errors.BrokerRefused(OSError("NOPERM no")),
        errors.Uncertain("bitget:main", {"id": "a"}, OSError("lost")),
        errors.BatchIncomplete("bitget:main", queued=[], uncertain=[{"id": "a"}], not_queued=[], cause=OSError("lost")),
        errors.NoResults("bitget:main"),
        errors.Unconfirmed("bitget:main", {"id": "a"}, None),
        errors.GroupMissing("bitget:main", "desk", "XGROUP CREATE"),
        errors.OutcomeTimeout(["a", "b"], 3.0),
        LaneError("no lane"),
        errors.UrlError("no URL"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_way_out_of_a_process(error: errors.CancelqError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) != ""
    assert vars(again).keys() == vars(error).keys()
