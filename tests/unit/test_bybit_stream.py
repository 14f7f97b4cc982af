"""Bybit's private order stream: what a frame says of an order, and what it does not."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.venues.bybit.looks import STATES
from cancelq_worker.venues.port import ENDED, Frame, OrderStream, Word
from cancelq_worker.verdict import ended_by_push
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
