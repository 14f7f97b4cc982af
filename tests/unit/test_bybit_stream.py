"""Bybit's private order stream: what a frame says of an order, and what it does not."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.rulings import ended_by_push
from cancelq_worker.venues.bybit.looks import STATES
from cancelq_worker.venues.port import ENDED, Frame, OrderStream, Word
from tests.unit.bybit_account import BYBIT, ORDER_ID, row


def stream() -> OrderStream:
    assert BYBIT.stream
    return BYBIT.stream


def frame(status: Any = "Cancelled", topic: str = "order.spot", **more: Any) -> str:
    data = [{**row(ORDER_ID, status), "category": "spot", **more}]
    return orjson.dumps({"topic": topic, "id": "1", "creationTime": 1, "data": data}).decode()


def test_a_push_finds_the_intents_that_name_its_order() -> None:
    (push,) = stream().read(frame()).pushes
    assert any(ORDER_ID in key for key in push.keys)
    assert (push.reply.word, push.reply.order_id, push.reply.place) == (Word.CANCELLED, ORDER_ID, "stream")


@pytest.mark.parametrize("state", [state for state, word in STATES.items() if word is not Word.TRIGGERED])
def test_a_state_is_read_as_lists_read_it(state: str) -> None:
    (push,) = stream().read(frame(state)).pushes
    assert push.reply.word is STATES[state]
    assert (ended_by_push(push.reply) is not None) == (STATES[state] in ENDED)


def test_that_a_trigger_fired_is_told_to_those_alone_who_meant_the_trigger() -> None:
    (push,) = stream().read(frame("Triggered", stopOrderType="Stop")).pushes
    assert push.reply.word is Word.TRIGGERED
    assert {key.partition(":")[0] for key in push.keys} == {"tpsl", "stop"}


@pytest.mark.parametrize("state", ["", "Done", "Cancelling", "cancelled", "PartiallyCancelled", None, 7, ["Cancelled"]])
def test_a_state_that_is_no_end_ends_nothing(state: object) -> None:
    for push in stream().read(frame(state)).pushes:
        assert ended_by_push(push.reply) is None


@pytest.mark.parametrize("more", [{"orderId": None}, {"orderId": ""}, {"orderId": []}, {"category": "linear"}])
def test_a_push_without_an_id_or_of_another_market_says_nothing(more: dict[str, Any]) -> None:
    assert stream().read(frame(**more)).pushes == []


@pytest.mark.parametrize("topic", ["", "execution", "order.linear", "orders"])
def test_other_topics_say_nothing(topic: str) -> None:
    assert stream().read(frame(topic=topic)).pushes == []


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80), st.integers(0, 120).map(lambda cut: frame()[:cut])))
def test_no_frame_raises(said: str | bytes) -> None:
    assert isinstance(stream().read(said), Frame)


# -- how it is opened ----------------------------------------------------------------------------------------


def test_the_login_expires_ahead_of_the_venues_clock_and_is_signed_as_documented() -> None:
    (text,) = stream().hello(1_700_000_000_000)
    assert orjson.loads(text) == {
        "op": "auth",
        "args": ["test-api-key", 1_700_000_010_000, "97b2bdec283bc7e02fd824a08fc4af015efcd38261cf0b0d5ba7c6c175c95786"],
    }


def test_after_the_login_the_spot_orders_are_asked_for() -> None:
    said = stream().read('{"success":true,"ret_msg":"","op":"auth","conn_id":"1"}')
    assert not said.live
    (text,) = said.send
    assert orjson.loads(text) == {"op": "subscribe", "args": ["order.spot"]}
    assert stream().read('{"success":true,"ret_msg":"","op":"subscribe","conn_id":"1"}').live


@pytest.mark.parametrize("op", ["auth", "subscribe"])
def test_a_refusal_of_the_login_or_of_the_topic_is_told(op: str) -> None:
    said = stream().read(orjson.dumps({"success": False, "ret_msg": "not allowed", "op": op, "conn_id": "1"}))
    assert (said.refused, said.live, said.send) == ("not allowed", False, [])


def test_an_answered_ping_is_no_subscription() -> None:
    assert orjson.loads(stream().ping(0)) == {"op": "ping"}
    assert not stream().read('{"success":true,"ret_msg":"pong","conn_id":"1","op":"ping"}').live


def test_it_pings_as_often_as_the_venue_asks_for_and_listens_for_longer() -> None:
    assert 0 < stream().ping_every_s <= 20
    assert stream().silent_most_s > 2 * stream().ping_every_s


@pytest.mark.parametrize("topic", ["order", "order.spot"])
def test_a_push_finds_those_who_named_the_client_id_at_its_pair(topic: str) -> None:
    (push,) = stream().read(frame(topic=topic, orderLinkId="mine-1", symbol="ETHUSDT")).pushes
    assert "order:c:ETHUSDT:mine-1" in push.keys
    assert push.reply.client_order_id == "mine-1"


def test_what_was_filled_is_what_was_filled_in_all() -> None:
    (push,) = stream().read(frame("PartiallyFilledCanceled", cumExecQty="1.5", leavesQty="0")).pushes
    assert (push.reply.word, push.reply.filled) == (Word.CANCELLED, "1.5")
