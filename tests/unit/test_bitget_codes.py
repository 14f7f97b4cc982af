"""Bitget's answer codes: what the venue's table says, and what an adapter makes of each."""

import pytest

from cancelq_worker.venues.bitget.codes import CODES, SOURCES, word_of
from cancelq_worker.venues.port import Word
from tests.unit.bitget_account import ORDER_ID, OTHER_ID, answer, decode, raw, target

# The venue's error table for cancels, in its own order. The class says what a code means for a cancel:
#   GONE  not working any more, or not known        FAIL  can never work as written
#   RETRY may be sent again after a while           RETRY+V  perhaps executed: look first
#   DOWN  RETRY with a wait of minutes              WINDOW   FAIL, but repeated a few times (release windows)
#   SPLIT too many orders in one call               RATE     over the limit
#   AUTH  key, permission or account                TIME     our time stamp
VENUE_TABLE = (
    ("43001", "GONE"),
    ("22001 43004", "GONE"),
    ("40109", "GONE"),
    ("40768 40819 45057 31007 80011", "GONE"),
    ("43025 43026", "GONE"),
    ("43020 43021", "GONE"),
    ("45031 45055 50062 45134 40769", "GONE"),
    ("45056", "FAIL"),
    ("45024", "RETRY+V"),
    ("45129", "RETRY"),
    ("429", "RATE"),
    ("25004", "RATE"),
    ("40010 40910 25001", "RETRY+V"),
    ("40015 40725 45001 40908 43059 50031 25000 25003", "RETRY+V"),
    ("40200", "DOWN"),
    ("41114 45043 50027 25102 25106", "DOWN"),
    ("40808", "WINDOW"),
    (
        "40017 40019 40020 40034 40064 40402 40305 40913 40924 43011 48001 48002 00171 00172 40102 42016",
        "FAIL",
    ),
    ("40912 40306", "SPLIT"),
    ("40007 40404", "FAIL"),
    ("40001 40002 40003 40006 40009 40011 40012 40036 40037 40041", "AUTH"),
    ("40014 40025 40040 40061 40068", "AUTH"),
    ("40018 40038", "AUTH"),
    ("40013 40022 40023 40024 40026 40031 40710 50012 50013", "AUTH"),
    ("40000 40103 40104 40111 40027 40035 40100 40101", "AUTH"),
    ("40085 40115 40128 25245", "AUTH"),
    ("40099", "AUTH"),  # captured: exchange environment is incorrect
    ("40004 40005 40008 40078 40079", "TIME"),
    ("40081 40105 40110 22030", "FAIL"),
)

WORDS = {
    "GONE": Word.GONE,
    "FAIL": Word.FAILED,
    "RETRY": Word.AGAIN,
    "RETRY+V": Word.UNCLEAR,
    "DOWN": Word.LATER,
    "WINDOW": Word.DOUBTED,
    "SPLIT": Word.SPLIT,
    "RATE": Word.REFUSED,
    "AUTH": Word.ACCOUNT,
    "TIME": Word.CLOCK,
}

ROWS = [(code, WORDS[meaning]) for codes, meaning in VENUE_TABLE for code in codes.split()]

# A code of another venue, of a later day, of a WebSocket, or no code at all.
UNLISTED = ["10001", "00001", "0", "1", "99999", "43012", "30001", "170213", "4300", "430011", "OK", "success", " "]


@pytest.mark.parametrize(("code", "word"), ROWS, ids=[code for code, _ in ROWS])
def test_each_code_has_the_meaning_of_the_venues_table(code: str, word: Word) -> None:
    assert word_of(code) is word
    assert SOURCES[code], "every code says where it comes from"


def test_no_code_is_listed_that_the_venues_table_does_not_know() -> None:
    assert sorted(CODES) == sorted(code for code, _ in ROWS)


@pytest.mark.parametrize("status", [200, 400, 404])
def test_a_single_cancel_is_told_by_its_code_whatever_the_status(status: int) -> None:
    """Bitget was seen to put business codes into HTTP 400; one note says 200."""
    for code, word in ROWS:
        (reply,) = decode("cancel-order", answer(code=code, status=status, msg="x"), target(ORDER_ID))
        assert (reply.word, reply.code) == (word, code)


# "Closed", "finalised", "no longer cancellable": there was such an order. The others of GONE leave that open.
ENDED_ONES = {"43026", "43021", "45031", "45055", "50062", "45134", "40769"}


@pytest.mark.parametrize("code", [code for code, word in ROWS if word is Word.GONE])
def test_that_there_was_such_an_order_is_noted_where_the_code_says_so(code: str) -> None:
    known = {"known": 1} if code in ENDED_ONES else {}
    (alone,) = decode("cancel-order", answer(code=code, status=400), target(ORDER_ID))
    assert alone.notes == known
    item = {"orderId": ORDER_ID, "clientOid": "", "errorMsg": "x", "errorCode": code}
    said = answer({"successList": [], "failureList": [item]})
    (one, other) = decode("batch-cancel-order", said, target(ORDER_ID), target(OTHER_ID))
    assert (one.notes, other.notes) == (known, {})
    for reply in decode("batch-cancel-order", answer(code=code, status=400), target(ORDER_ID), target(OTHER_ID)):
        assert reply.notes == {}, "it does not say of which of them"


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", UNLISTED)
def test_an_unlisted_code_is_unclear(code: str, status: int) -> None:
    (reply,) = decode("cancel-order", answer(code=code, status=status), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


def test_texts_decide_nothing() -> None:
    """They are templated and localised."""
    chinese = '{"code":"43001","msg":"订单不存在","data":null}'.encode()
    (reply,) = decode("cancel-order", raw(chinese, 400), target(ORDER_ID))
    assert reply.word is Word.GONE
    lying = b'{"code":"77777","msg":"The order does not exist","data":null}'
    (reply,) = decode("cancel-order", raw(lying, 400), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


def test_the_seed_tables_of_another_venue_mean_nothing_here() -> None:
    """10001 to 10005 were once written down as "already cancelled"; a drifting clock would have been booked so."""
    for code in ("10001", "10002", "10003", "10004", "10005"):
        assert word_of(code) is Word.UNCLEAR
