"""What a client sends and what it makes of the answers, without a server."""

import pytest
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import OutOfMemoryError, ResponseError

from cancelq.batch import CHUNK, Batch, prepare_many, prepare_one
from cancelq.contract import Intent, Lane
from cancelq.errors import BatchIncomplete, BrokerDown, BrokerRefused, IntentError, NotAccepted, Uncertain
from cancelq.link import Answers

LANE = Lane("bitget", "main")
Receipt = tuple[str, str]


def receipt(id: str, entry_id: str) -> Receipt:
    return id, entry_id


def batch_of(count: int) -> Batch:
    return Batch(LANE, [{"symbol": "BTCUSDT", "order_id": str(at), "id": f"k{at}"} for at in range(count)])


def confirmed(first: int, count: int) -> list[bytes]:
    return [b"5-%d" % at for at in range(first, first + count)]


def test_each_intent_is_one_xadd_that_makes_no_stream() -> None:
    (commands,) = batch_of(1).chunks()
    inbox = "cancelq:{bitget:main}:inbox"
    fields = ("symbol", "BTCUSDT", "order_id", "0", "id", "k0")
    assert [tuple(command) for command in commands] == [("XADD", inbox, "NOMKSTREAM", "*", *fields)]


def test_a_confirmed_batch_gives_a_ticket_for_each_in_order() -> None:
    batch = batch_of(2 * CHUNK + 1)
    sent = 0
    for commands in batch.chunks():
        batch.book(Answers(confirmed(sent, len(commands))))
        sent += len(commands)
    assert batch.all(receipt) == [(f"k{at}", f"5-{at}") for at in range(2 * CHUNK + 1)]


def test_an_empty_batch_sends_nothing() -> None:
    batch = batch_of(0)
    assert list(batch.chunks()) == []
    assert batch.all(receipt) == []


def test_a_reply_lost_half_way_splits_the_batch_in_three() -> None:
    batch = batch_of(2 * CHUNK + 10)
    chunks = batch.chunks()
    next(chunks)
    batch.book(Answers(confirmed(0, CHUNK)))
    next(chunks)
    batch.book(Answers(confirmed(CHUNK, 7), LostConnection("reset")))
    assert list(chunks) == []
    with pytest.raises(BatchIncomplete, match=r"507 queued, 493 uncertain, 10 not queued") as incomplete:
        batch.all(receipt)
    error = incomplete.value
    assert [id for id, _ in error.queued] == [f"k{at}" for at in range(CHUNK + 7)]
    assert [fields["id"] for fields in error.uncertain] == [f"k{at}" for at in range(CHUNK + 7, 2 * CHUNK)]
    assert [fields["id"] for fields in error.not_queued] == [f"k{at}" for at in range(2 * CHUNK, 2 * CHUNK + 10)]
    assert isinstance(error.__cause__, LostConnection)


def test_a_server_that_fills_up_half_way_is_not_asked_for_more() -> None:
    batch = batch_of(CHUNK + 5)
    chunks = batch.chunks()
    next(chunks)
    full = [OutOfMemoryError("command not allowed", status_code="OOM")] * (CHUNK - 3)
    batch.book(Answers([*confirmed(0, 3), *full]))
    assert list(chunks) == []
    with pytest.raises(BatchIncomplete, match="OOM") as incomplete:
        batch.all(receipt)
    assert (len(incomplete.value.queued), len(incomplete.value.uncertain)) == (3, 0)
    assert len(incomplete.value.not_queued) == CHUNK + 2


def test_if_nothing_was_queued_the_reason_itself_is_raised() -> None:
    for answers, error in [
        (Answers([None, None]), NotAccepted),
        (Answers([ResponseError("no"), ResponseError("no")]), BrokerRefused),
    ]:
        batch = batch_of(2)
        next(batch.chunks())
        batch.book(answers)
        with pytest.raises(error):
            batch.all(receipt)
    batch = batch_of(2)
    next(batch.chunks())
    batch.book_unsent(BrokerDown(LostConnection("refused")))
    with pytest.raises(BrokerDown, match="nothing was sent"):
        batch.all(receipt)


def test_a_lost_reply_to_a_single_intent_is_uncertain_and_carries_what_to_send_again() -> None:
    batch = batch_of(1)
    next(batch.chunks())
    batch.book(Answers([], LostConnection("reset")))
    with pytest.raises(Uncertain, match="k0 may or may not be queued; send it again with the same id") as lost:
        batch.the_one(receipt)
    assert (lost.value.id, lost.value.lane) == ("k0", "bitget:main")
    assert lost.value.fields == {"symbol": "BTCUSDT", "order_id": "0", "id": "k0"}


def test_an_intent_without_an_id_is_given_one_of_its_own() -> None:
    prepared = prepare_many([{"scope": "account"}, Intent(scope="account"), {"scope": "account", "id": "mine"}])
    first, second, third = [fields["id"] for fields in prepared]
    assert third == "mine"
    assert first != second
    for id in (first, second):
        assert Intent(scope="account", id=id).id == id
        assert len(id) == 34


def test_an_intent_is_given_whole_or_by_name() -> None:
    assert prepare_one(Intent(scope="account", id="k"), {}) == prepare_one(None, {"scope": "account", "id": "k"})
    with pytest.raises(TypeError, match="not both"):
        prepare_one({"scope": "account"}, {"id": "k"})


def test_a_bad_intent_in_a_batch_is_told_by_its_position() -> None:
    with pytest.raises(IntentError, match=r"^intent 1 of the batch: symbol: missing") as bad:
        prepare_many([{"scope": "account"}, {"order_id": "1"}])
    assert (bad.value.field, bad.value.position) == ("symbol", 1)
    with pytest.raises(IntentError, match=r"^symbol: missing"):
        prepare_one(None, {"order_id": "1"})


def test_an_id_made_here_counts_towards_the_size() -> None:
    note = "n" * (4096 - len("scopeaccountx_note"))
    assert prepare_many([{"scope": "account", "x_note": note[:-40]}])
    with pytest.raises(IntentError, match="4096 are allowed"):
        prepare_many([Intent(scope="account", extras={"x_note": note})])


def test_of_several_refusals_the_first_is_the_reason() -> None:
    batch = batch_of(2)
    next(batch.chunks())
    batch.book(Answers([OutOfMemoryError("command not allowed", status_code="OOM"), ResponseError("ERR later")]))
    with pytest.raises(BrokerRefused, match="OOM"):
        batch.all(receipt)
