"""`durable`: what counts as queued where replicas have to have it too."""

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import NoPermissionError, ResponseError

from cancelq import AsyncClient, BatchIncomplete, BrokerRefused, Client, NotAccepted, Uncertain, Unconfirmed
from cancelq.batch import CHUNK, Batch, replicas_of
from cancelq.contract import Lane
from cancelq.link import Answers

LANE = Lane("bitget", "main")
CANCEL = {"symbol": "BTCUSDT", "order_id": "121211212122"}
Receipt = tuple[str, str]


def receipt(id: str, entry_id: str) -> Receipt:
    return id, entry_id


def open_lane(url: str) -> None:
    with Redis.from_url(url) as server:
        server.xgroup_create(LANE.inbox, "made", mkstream=True)


def batch_of(count: int, replicas: int = 2) -> Batch:
    prepared = [{"symbol": "BTCUSDT", "order_id": str(at), "id": f"k{at}"} for at in range(count)]
    return Batch(LANE, prepared, replicas, 250.0)


def test_each_round_trip_ends_by_waiting_for_the_replicas() -> None:
    batch, sizes = batch_of(CHUNK + 1), []
    for commands in batch.chunks():
        *adds, last = commands
        assert {command[0] for command in adds} == {"XADD"}
        assert last == ("WAIT", "2", "250")
        sizes.append(len(adds))
        batch.book(Answers([*(b"5-%d" % at for at in range(len(adds))), 2]))
    assert sizes == [CHUNK, 1]
    assert [command[0] for command in next(batch_of(1, 0).chunks())] == ["XADD"]


@pytest.mark.parametrize("durable", ["yes", -1, None, 1.5])
def test_what_durable_cannot_mean_is_told(durable: object) -> None:
    with pytest.raises(TypeError, match="durable is True, or how many replicas"):
        replicas_of(durable)


def test_what_enough_replicas_have_is_queued() -> None:
    batch = batch_of(1)
    next(batch.chunks())
    batch.book(Answers([b"5-0", 2]))
    assert batch.the_one(receipt) == ("k0", "5-0")


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (Answers([b"5-0", 1]), "1 of 2 replicas had it after 250 ms"),
        (Answers([b"5-0", NoPermissionError("no WAIT for you")]), "no WAIT for you"),
        (Answers([b"5-0"], LostConnection("reset")), "reset"),
    ],
)
def test_what_too_few_replicas_have_is_uncertain_and_says_so(answers: Answers, why: str) -> None:
    batch = batch_of(1)
    next(batch.chunks())
    batch.book(answers)
    with pytest.raises(Unconfirmed, match=r"k0 is queued.*uncertain; send it again with the same id") as raised:
        batch.the_one(receipt)
    assert isinstance(raised.value, Uncertain)
    assert (raised.value.id, raised.value.fields["id"]) == ("k0", "k0")
    assert why in str(raised.value)


def test_what_was_refused_is_refused_whatever_the_replicas_have() -> None:
    batch = batch_of(1)
    next(batch.chunks())
    batch.book(Answers([ResponseError("OOM full"), 0]))
    with pytest.raises(BrokerRefused):
        batch.the_one(receipt)
    batch = batch_of(1)
    next(batch.chunks())
    batch.book(Answers([None, 0]))
    with pytest.raises(NotAccepted):
        batch.the_one(receipt)


def test_after_a_round_trip_that_is_not_confirmed_nothing_more_is_sent() -> None:
    batch = batch_of(3 * CHUNK)
    chunks = batch.chunks()
    next(chunks)
    batch.book(Answers([*(b"5-%d" % at for at in range(CHUNK)), 2]))
    next(chunks)
    batch.book(Answers([*(b"6-%d" % at for at in range(CHUNK)), 0]))
    assert list(chunks) == []
    with pytest.raises(BatchIncomplete, match="500 queued, 500 uncertain, 500 not queued") as raised:
        batch.all(receipt)
    error = raised.value
    assert [id_ for id_, _ in error.queued] == [f"k{at}" for at in range(CHUNK)]
    assert [fields["id"] for fields in error.uncertain] == [f"k{at}" for at in range(CHUNK, 2 * CHUNK)]
    assert [fields["id"] for fields in error.not_queued] == [f"k{at}" for at in range(2 * CHUNK, 3 * CHUNK)]


def test_a_batch_of_which_nothing_is_confirmed_is_incomplete_not_refused() -> None:
    batch = batch_of(2)
    next(batch.chunks())
    batch.book(Answers([b"5-0", b"5-1", 0]))
    with pytest.raises(BatchIncomplete, match="0 queued, 2 uncertain, 0 not queued"):
        batch.all(receipt)


def test_a_lone_server_confirms_nothing(redis_url: str) -> None:
    open_lane(redis_url)
    with Client(redis_url, timeout_s=0.4) as client:
        with pytest.raises(Unconfirmed, match="0 of 1 replicas had it after 200 ms"):
            client.submit(LANE, CANCEL, durable=True)
        with pytest.raises(BatchIncomplete, match="0 of 3 replicas"):
            client.submit_many(LANE, [CANCEL], durable=3)
    with Redis.from_url(redis_url) as server:
        assert server.xlen(LANE.inbox) == 2


async def test_a_lone_server_confirms_nothing_to_an_async_client_either(redis_url: str) -> None:
    open_lane(redis_url)
    async with AsyncClient(redis_url, timeout_s=0.4) as client:
        with pytest.raises(Unconfirmed):
            await client.submit(LANE, CANCEL, durable=True)
        assert (await client.submit(LANE, CANCEL)).entry_id
