"""Bitget's private order stream: what a frame says of an order, and what it does not."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.rulings import ended_by_push
from cancelq_worker.venues.bitget.looks import STATES
from cancelq_worker.venues.port import ENDED, Frame, OrderStream, Word
from tests.unit.bitget_account import BITGET, ORDER_ID, target


def stream() -> OrderStream:
    assert BITGET.stream
    return BITGET.stream


def frame(channel: str = "orders", **more: Any) -> str:
    row = {
        "orderId": ORDER_ID,
        "clientOid": "",
        "instId": "BTCUSDT",
        "status": "cancelled",
        "accBaseVolume": "0",
        **more,
    }
    return orjson.dumps({"action": "snapshot", "arg": {"channel": channel}, "data": [row]}).decode()


@pytest.mark.parametrize("order_id", [ORDER_ID, int(ORDER_ID)])
def test_a_push_finds_the_intents_that_name_its_order(order_id: object) -> None:
    (push,) = stream().read(frame(orderId=order_id)).pushes
    assert set(push.keys) == set(BITGET.order_keys(target(ORDER_ID)))
    assert (push.reply.word, push.reply.order_id) == (Word.CANCELLED, ORDER_ID)


def test_what_was_filled_is_what_was_filled_in_all() -> None:
    (push,) = stream().read(frame(accBaseVolume="1.50", baseVolume="0.25")).pushes
    assert push.reply.filled == "1.50"


@pytest.mark.parametrize("state", STATES)
def test_a_state_is_read_as_lists_read_it(state: str) -> None:
    (push,) = stream().read(frame(status=state)).pushes
    assert push.reply.word is STATES[state]
    assert (ended_by_push(push.reply) is not None) == (STATES[state] in ENDED)


def test_a_state_is_read_in_whatever_case_it_is_told() -> None:
    (push,) = stream().read(frame(status="CANCELLED")).pushes
    assert push.reply.word is Word.CANCELLED


@pytest.mark.parametrize("state", ["", "done", "cancelling", "partially_cancelled", "CANCEL", None, 7, ["cancelled"]])
def test_a_state_that_is_no_end_ends_nothing(state: object) -> None:
    for push in stream().read(frame(status=state)).pushes:
        assert ended_by_push(push.reply) is None


@pytest.mark.parametrize("order_id", [None, "", "1e18", True, -1, [], 1.5e18])
def test_a_push_without_an_exact_id_says_nothing(order_id: object) -> None:
    assert stream().read(frame(orderId=order_id)).pushes == []


def test_a_trigger_s_push_is_about_triggers_alone() -> None:
    (push,) = stream().read(frame("orders-algo")).pushes
    assert {key.partition(":")[0] for key in push.keys} == {"tpsl", "stop"}


@pytest.mark.parametrize("channel", ["", "fill", "account", "orders-algo-2"])
def test_other_channels_say_nothing(channel: str) -> None:
    assert stream().read(frame(channel)).pushes == []


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80), st.integers(0, 120).map(lambda cut: frame()[:cut])))
def test_no_frame_raises(said: str | bytes) -> None:
    assert isinstance(stream().read(said), Frame)


# -- how it is opened ----------------------------------------------------------------------------------------


def test_the_login_is_stamped_and_signed_in_seconds() -> None:
    """As in Bitget's own example and in ccxt; the signature is ccxt's."""
    (text,) = stream().hello(1_700_000_000_999)
    said = orjson.loads(text)
    assert said["op"] == "login"
    (login,) = said["args"]
    assert login == {
        "apiKey": "test-api-key",
        "passphrase": "test-passphrase",
        "timestamp": "1700000000",
        "sign": "X3EWQeL5AwAlQUbSLbUp/bShEUaFiRE5JYOIo1BG0Vw=",
    }


def test_after_the_login_the_orders_of_every_pair_are_asked_for() -> None:
    (text,) = stream().read('{"event":"login","code":0}').send
    assert orjson.loads(text) == {
        "op": "subscribe",
        "args": [
            {"instType": "SPOT", "instId": "default", "channel": "orders"},
            {"instType": "SPOT", "instId": "default", "channel": "orders-algo"},
        ],
    }


@pytest.mark.parametrize(("channel", "live"), [("orders", True), ("orders-algo", False)])
def test_it_is_alive_when_the_channel_of_normal_orders_stands(channel: str, live: bool) -> None:
    event = {"event": "subscribe", "arg": {"instType": "SPOT", "channel": channel, "instId": "default"}}
    assert stream().read(orjson.dumps(event)).live is live


@pytest.mark.parametrize(("channel", "refused"), [("orders", "30001 no such channel"), ("orders-algo", "")])
def test_without_the_channel_of_trigger_orders_it_goes_on(channel: str, refused: str) -> None:
    error = {"event": "error", "arg": {"channel": channel}, "code": 30001, "msg": "no such channel"}
    assert stream().read(orjson.dumps(error)).refused == refused


def test_a_refused_login_is_told() -> None:
    assert stream().read('{"event":"error","code":30005,"msg":"error"}').refused == "30005 error"


def test_it_pings_in_half_the_time_the_venue_waits_for_and_listens_for_longer() -> None:
    """A connection without a ping for two minutes is closed; every ping is answered."""
    assert stream().ping(0) == "ping"
    assert 0 < stream().ping_every_s <= 30
    assert stream().silent_most_s > 2 * stream().ping_every_s


def test_a_push_finds_those_who_named_the_client_id_at_its_pair() -> None:
    (push,) = stream().read(frame(clientOid="mine-1", instId="ETHUSDT")).pushes
    by = [BITGET.order_keys(target(*ids, symbol="ETHUSDT")) for ids in ((ORDER_ID,), (None, "mine-1"))]
    assert set(push.keys) == {key for keys in by for key in keys}
    assert push.reply.client_order_id == "mine-1"
