"""BingX's private order stream: what a frame says, and that no frame raises."""

import gzip

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.venues.bingx.stream import BingxStream
from cancelq_worker.venues.port import Word
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
