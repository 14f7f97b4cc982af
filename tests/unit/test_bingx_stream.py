"""BingX's private order stream: what a frame says, and that no frame raises."""

import gzip

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.venues.bingx.stream import BingxStream
from cancelq_worker.venues.port import Answer, Word
from tests.unit.bingx_account import BINGX, ORDER_ID, PAIR, target

REPORT = {"e": "executionReport", "s": PAIR, "o": "LIMIT", "X": "CANCELED", "i": int(ORDER_ID), "z": "0"}


def frame(**more: object) -> bytes:
    message = {"code": 0, "dataType": "spot.executionReport", "data": {**REPORT, **more}}
    return gzip.compress(orjson.dumps(message))


@pytest.mark.parametrize("order_id", [int(ORDER_ID), ORDER_ID])
def test_a_push_finds_the_intents_that_name_its_order(order_id: object) -> None:
    (push,) = BingxStream().read(frame(i=order_id)).pushes
    assert push.keys == BINGX.order_keys(target(ORDER_ID))
    assert (push.reply.word, push.reply.order_id) == (Word.CANCELLED, ORDER_ID)


def test_what_was_filled_is_what_was_filled_in_all() -> None:
    (push,) = BingxStream().read(frame(z="1.50", l="0.25")).pushes
    assert push.reply.filled == "1.50"


@pytest.mark.parametrize("kind", ["TRIGGER_LIMIT", "TRIGGER_MARKET", "TAKE_STOP_LIMIT", "TAKE_STOP_MARKET"])
def test_a_push_that_a_trigger_was_filled_is_looked_into(kind: str) -> None:
    """It may be the trigger's own end, or what became of the order it placed: a look tells."""
    (push,) = BingxStream().read(frame(X="FILLED", o=kind, z="0.1")).pushes
    assert push.reply.word is Word.UNCLEAR
    (push,) = BingxStream().read(frame(X="FILLED", z="0.1")).pushes
    assert push.reply.word is Word.FILLED


@pytest.mark.parametrize("order_id", [float(ORDER_ID), None, "", "1e18", True, -1, []])
def test_a_push_without_an_exact_id_says_nothing(order_id: object) -> None:
    assert BingxStream().read(frame(i=order_id)).pushes == []


@given(st.integers(0, 200), st.integers(1, 255), st.integers(0, 200))
def test_a_frame_that_was_garbled_says_nothing_and_does_not_raise(at: int, flip: int, cut: int) -> None:
    garbled = bytearray(frame(pad="x" * 40))
    garbled[at % len(garbled)] ^= flip
    BingxStream().read(bytes(garbled))
    BingxStream().read(bytes(garbled[:cut]))


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
def test_any_frame_is_read(anything: str | bytes) -> None:
    BingxStream().read(anything)
    if isinstance(anything, bytes):
        BingxStream().read(b"\x1f\x8b" + anything)


def test_the_state_counts_and_not_the_event() -> None:
    (push,) = BingxStream().read(frame(x="TRADE", X="FILLED", z="1", O=1)).pushes
    assert push.reply.word is Word.FILLED
    (push,) = BingxStream().read(frame(x="CANCELED", X="PARTIALLY_FILLED", z="1")).pushes
    assert push.reply.word is Word.OPEN


# -- how it is opened and kept -------------------------------------------------------------------------------

LISTEN_KEY = "a8ea75681542e66f1a50a1616dd06ed77dab61baa0c296bca03a9b13ee5f2dd7"


@pytest.mark.parametrize("said", [{"listenKey": LISTEN_KEY}, {"code": 0, "msg": "", "data": {"listenKey": LISTEN_KEY}}])
def test_a_listen_key_is_asked_for_and_read(said: object) -> None:
    request = BingxStream().key_request()
    assert request
    assert (request.method, request.path) == ("POST", "/openApi/user/auth/userDataStream")
    assert BingxStream().read_key(Answer(200, {}, orjson.dumps(said))) == LISTEN_KEY


def test_the_listen_key_is_renewed_well_before_its_hour_is_over() -> None:
    request = BingxStream().renew_request(LISTEN_KEY)
    assert request
    assert (request.method, request.path) == ("PUT", "/openApi/user/auth/userDataStream")
    assert request.query == f"listenKey={LISTEN_KEY}"
    assert 0 < BingxStream().renew_every_s <= 1800


def test_the_listen_key_stands_in_the_address() -> None:
    where = BingxStream().address("wss://open-api-ws.bingx.com/market", LISTEN_KEY)
    assert where == f"wss://open-api-ws.bingx.com/market?listenKey={LISTEN_KEY}"


def test_the_account_s_spot_orders_are_asked_for_at_once() -> None:
    (text,) = BingxStream().hello(0)
    said = orjson.loads(text)
    assert (said["reqType"], said["dataType"]) == ("sub", "spot.executionReport")
    assert said["id"]


def test_both_kinds_of_ping_are_answered() -> None:
    """The spot server sends an object, the swap server a text."""
    ping = {"ping": "2177c68e4d0e45679965f482929b59c2", "time": "2026-11-28T10:00:00.000+0800"}
    for spot in (gzip.compress(orjson.dumps(ping)), orjson.dumps(ping).decode()):
        (text,) = BingxStream().read(spot).send
        assert orjson.loads(text) == {"pong": ping["ping"], "time": ping["time"]}
    assert BingxStream().read(gzip.compress(b"Ping")).send == ["Pong"]


def test_it_is_alive_when_its_subscription_was_taken() -> None:
    taken = {"id": "1", "code": 0, "msg": "", "dataType": "spot.executionReport", "data": None}
    assert BingxStream().read(gzip.compress(orjson.dumps(taken))).live
    said = BingxStream().read(gzip.compress(orjson.dumps({**taken, "code": 80403, "msg": "too many topics"})))
    assert (said.live, said.refused) == (False, "80403 too many topics")


def test_a_listen_key_that_expired_ends_the_connection() -> None:
    assert BingxStream().read(gzip.compress(orjson.dumps({"e": "listenKeyExpired", "E": 1}))).refused
