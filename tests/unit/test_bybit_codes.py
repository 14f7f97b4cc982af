"""Bybit's return codes: what the venue's table says, and what an adapter makes of each."""

from typing import Any

import pytest

from cancelq_worker.venues.bybit.codes import CODES, HAD_AN_END, NO_SUCH_ORDER, SOURCES, word_of
from cancelq_worker.venues.port import Word
from tests.unit.bitget_account import target
from tests.unit.bybit_account import ORDER_ID, OTHER_ID, answer, batch, decode, raw

# The venue's table, in its own order. The class says what a code means for a cancel:
#   GONE  not working any more, or not known        ENDED   GONE, and there was such an order
#   WAIT  accepted earlier, not executed yet        FAIL    can never work as written
#   RETRY+V  perhaps executed: look first           DOWN    RETRY with a wait of minutes
#   RATE  over the limit                            AUTH    key, permission or account        TIME  our time stamp
VENUE_TABLE = (
    ("170213", "GONE"),
    ("110001", "GONE"),
    ("170142", "ENDED"),
    ("170139", "ENDED"),
    ("170143", "GONE"),
    ("170190", "ENDED"),
    ("110008 110010", "ENDED"),
    ("170212 170035", "WAIT"),
    ("10014", "RETRY+V"),
    ("170191 110079", "RETRY+V"),
    ("170144", "RETRY+V"),
    ("170147 170150", "RETRY+V"),
    ("10000 10016 10019 170001 170007 170032 170234 500000 20006", "RETRY+V"),
    ("10006 170222 170005 10018 10403 20003", "RATE"),
    ("429 10429", "RATE"),
    ("10001", "FAIL"),
    ("170121 170105 170130 170145 170201 110019 110032 10017 10029 10404", "FAIL"),
    ("170209 10032", "FAIL"),
    ("10002 -1", "TIME"),
    ("10003 10004 10005 10007 10010 33004 -2015", "AUTH"),
    ("10008 10009 10024 10027 10028", "AUTH"),
    ("170031", "DOWN"),
)

WORDS = {
    "GONE": Word.GONE,
    "ENDED": Word.GONE,
    "WAIT": Word.ACKNOWLEDGED,
    "FAIL": Word.FAILED,
    "RETRY+V": Word.UNCLEAR,
    "DOWN": Word.LATER,
    "RATE": Word.REFUSED,
    "AUTH": Word.ACCOUNT,
    "TIME": Word.CLOCK,
}

ROWS = [(code, meaning, WORDS[meaning]) for codes, meaning in VENUE_TABLE for code in codes.split()]

# A code of another venue, of a later day, or no code at all.
UNLISTED: list[Any] = [
    None,
    "",
    "00000",
    "1",
    "43001",
    "100404",
    "170213 ",
    "17021",
    "1702130",
    "0.0",
    True,
    False,
    0.5,
    [],
    {},
    -2,
]


@pytest.mark.parametrize(("code", "meaning", "word"), ROWS, ids=[code for code, _, _ in ROWS])
def test_each_code_has_the_meaning_of_the_venues_table(code: str, meaning: str, word: Word) -> None:
    assert word_of(code) is word
    assert SOURCES[code], "every code says where it comes from"
    assert (code in HAD_AN_END) == (meaning == "ENDED")
    assert (code in NO_SUCH_ORDER) == (meaning == "GONE")


def test_no_code_is_listed_that_the_venues_table_does_not_know() -> None:
    assert sorted(CODES) == sorted(code for code, _, _ in ROWS)


@pytest.mark.parametrize("written", [int, str])
def test_a_single_cancel_is_told_by_its_code(written: type) -> None:
    for code, meaning, word in ROWS:
        (reply,) = decode("cancel", answer({}, code=written(code), msg="x"), target(ORDER_ID))
        assert (reply.word, reply.code) == (word, code)
        assert reply.notes.get("known", 0) == (meaning == "ENDED"), code


def test_an_item_of_a_batch_is_told_by_its_code() -> None:
    """What is about the key, the signature or the clock makes no sense for one item: it is looked up."""
    empty = {"category": "spot", "symbol": "BTCUSDT", "orderId": "", "orderLinkId": ""}
    for code, meaning, word in ROWS:
        said = batch([empty, {**empty, "orderId": OTHER_ID}], [{"code": int(code), "msg": "x"}, {"code": 0, "msg": ""}])
        first, second = decode("cancel-batch", said, target(ORDER_ID), target(OTHER_ID))
        assert first.word is (Word.UNCLEAR if meaning in ("AUTH", "TIME") else word), code
        assert second.word is Word.ACKNOWLEDGED


@pytest.mark.parametrize("status", [200, 400, 404])
@pytest.mark.parametrize("code", UNLISTED)
def test_an_unlisted_code_is_unclear(code: object, status: int) -> None:
    (reply,) = decode("cancel", answer({"orderId": ORDER_ID}, code=code, status=status), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


def test_texts_decide_nothing() -> None:
    lying = b'{"retCode":77777,"retMsg":"Order does not exist.","result":{}}'
    assert decode("cancel", raw(lying), target(ORDER_ID))[0].word is Word.UNCLEAR
    kind = b'{"retCode":170213,"retMsg":"OK","result":{}}'
    assert decode("cancel", raw(kind), target(ORDER_ID))[0].word is Word.GONE


def test_a_parameter_error_about_the_signatures_headers_is_about_the_key() -> None:
    said = answer(code=10001, msg="empty value: apiTimestamp[] apiKey[] apiSignature[]: openapi sign params error!")
    assert decode("cancel", said, target(ORDER_ID))[0].word is Word.ACCOUNT


@pytest.mark.parametrize(
    ("code", "believed", "word"),
    [
        (10001, "order not found", Word.FAILED),
        (10002, "already cancelled", Word.CLOCK),
        (10003, "already filled", Word.ACCOUNT),
        (10004, "invalid order status", Word.ACCOUNT),
        (10005, "invalid parameters", Word.ACCOUNT),
    ],
)
def test_what_a_wrong_table_says_of_these_codes_is_not_believed(code: int, believed: str, word: Word) -> None:
    """With it, a drifting clock would have been booked as "already cancelled" while the orders stay live."""
    (reply,) = decode("cancel", answer({}, code=code, msg=believed), target(ORDER_ID))
    assert reply.word is word
