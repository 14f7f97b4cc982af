"""BingX's answer codes: what the venue's table says, and what an adapter makes of each."""

import pytest

from cancelq_worker.venues.bingx.codes import LIMIT_US, ROWS, STATUSES, item_of, until_ms, word_of
from cancelq_worker.venues.port import Word
from tests.unit.bingx_account import ORDER_ID, OTHER_ID, answer, decode, raw, target

DEAD = "the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id ,please verify"
BUSY = "The current system is busy, please try again later"
LOCKED = (
    "over 20 error code:100202 requests within 480000 ms for this api, please verify and fix it ,"
    "can retry after time: 1735964079647"
)
BLOCKED = (
    "code:100410:The endpoint trigger frequency limit rule is currently in the disabled period and will be"
    " unblocked after 1735964079647"
)

# The venue's table for cancels: codes, a text as it was seen, and what it means.
VENUE_TABLE: tuple[tuple[str, str, Word], ...] = (
    ("100404", "order not exist", Word.GONE),
    ("100404", DEAD, Word.GONE),
    ("100404", "the order is FILLED or CANCELLED already before, please verify", Word.GONE),
    ("100404", "this api is not exist, please refer to the API docs and check the version", Word.FAILED),
    ("100400", DEAD, Word.GONE),
    ("100400", "Invalid parameters, err:orderId: mismatch type with value", Word.FAILED),
    ("100400", "Invalid parameters, err:Key: 'R.Symbol' Error:Field validation for 'Symbol' failed", Word.FAILED),
    ("100400", "Key: 'R.OrderIDs' Error:Field validation for 'OrderIDs' failed on the 'max' tag", Word.SPLIT),
    ("100400", "Error:Field validation for 'ClientOrderIDs' failed on the 'max' tag", Word.SPLIT),
    ("100400", BUSY, Word.AGAIN),
    ("100400", "The same order can only be submitted once per second", Word.AGAIN),
    ("100421", "Null timestamp or timestamp mismatch, try to run our sample code", Word.CLOCK),
    ("100421", "cancel fail, order not exist", Word.GONE),
    ("100421", "CheckUserAndSymbol: contract not exist", Word.FAILED),
    ("100421", "this symbol is not available", Word.FAILED),
    ("100421", "this pair is restricted from API trading", Word.FAILED),
    ("100421 100202 100410", BUSY, Word.AGAIN),
    ("100410", "rate limited", Word.REFUSED),
    ("100410", BLOCKED, Word.REFUSED),
    ("100410", LOCKED, Word.REFUSED),
    ("109429", "too many invalid requests, can retry after time: 1735964079647", Word.REFUSED),
    ("109403", "risk control", Word.ACCOUNT),
    ("100500 100503 80012 109500 110500 101500", BUSY, Word.UNCLEAR),
    ("80016 109421", "order does not exist", Word.GONE),
    ("80018 109422", "order is already filled", Word.GONE),
    ("80019", "order is being processed", Word.UNCLEAR),
    ("100204", "no data", Word.GONE),
    ("100490", "spot symbol is offline", Word.LATER),
    ("80014 109400", "timestamp is invalid", Word.CLOCK),
    ("80014 109400", "invalid parameter", Word.FAILED),
    ("100001", "Signature verification failed due to signature mismatch", Word.ACCOUNT),
    ("100412", "Null signature", Word.ACCOUNT),
    ("100413", "Incorrect apiKey", Word.ACCOUNT),
    ("100004", "Permission denied as the API key was created without the permission", Word.ACCOUNT),
    ("100419", "IP does not match IP whitelist", Word.ACCOUNT),
    ("100414 100441 101402", "risk control check fail, code(1), reason()", Word.ACCOUNT),
)
SEEN = [(code, text, word) for codes, text, word in VENUE_TABLE for code in codes.split()]

#: The same codes with texts nobody has seen: what only the text tells is not told.
UNSEEN = [(code, "something else") for code in ("100404", "100400", "100421", "100202")]
UNLISTED = ["199987", "1", "10001", "43001", "170213", "100405", "10040", "1004040", "OK", " ", "0x0", "00"]


@pytest.mark.parametrize(("code", "text", "meant"), SEEN, ids=[f"{code}-{text[:20]}" for code, text, _ in SEEN])
def test_each_code_has_the_meaning_of_the_venues_table(code: str, text: str, meant: Word) -> None:
    assert word_of(code, text) is meant
    shouted = "  " + "   ".join(text.upper().split()) + "\n"
    assert word_of(code, shouted) is meant, "case and blanks decide nothing"


def test_no_row_is_listed_that_the_venues_table_does_not_know() -> None:
    listed = {(code, row.word) for row in ROWS for code in row.codes.split()}
    assert listed == {(code, word) for code, _, word in SEEN}
    assert all(row.source for row in ROWS)


@pytest.mark.parametrize("status", [200, 400, 404])
def test_a_single_cancel_is_told_by_code_and_text_whatever_the_status(status: int) -> None:
    for code, text, meant in SEEN:
        for sent in (int(code), code):
            (reply,) = decode("cancel", answer(code=sent, msg=text, status=status), target(ORDER_ID))
            assert (reply.word, reply.code) == (meant, code)


@pytest.mark.parametrize(("code", "text"), [*UNSEEN, *((code, DEAD) for code in UNLISTED)])
def test_what_is_not_listed_is_unclear(code: str, text: str) -> None:
    (reply,) = decode("cancel", answer(code=code, msg=text), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize("code", [True, False, None, 0.0, 0.5, [], {}, "", -1, 2**70])
def test_what_is_no_code_is_unclear(code: object) -> None:
    data = {"orderId": int(ORDER_ID), "symbol": "BTC-USDT", "status": "CANCELED"}
    (reply,) = decode("cancel", answer(data, code=code), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


# -- limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [BLOCKED, LOCKED, "wait until 1735964079647"])
def test_a_refusal_that_tells_its_end_is_passed_on_by_the_venues_clock(text: str) -> None:
    (reply,) = decode("cancel", answer(code=100410, msg=text), target(ORDER_ID))
    assert (reply.retry_at_ms, reply.retry_us, reply.whole_address) == (1735964079647, 0, False)


@pytest.mark.parametrize(
    "text", ["rate limited", "", "order 1735964079647111281", "after 480000 ms", "x11735964079647"]
)
def test_a_refusal_that_does_not_lasts_five_minutes(text: str) -> None:
    (reply,) = decode("cancel", answer(code=100410, msg=text), target(ORDER_ID))
    assert (reply.word, reply.retry_at_ms, reply.retry_us) == (Word.REFUSED, 0, LIMIT_US)


@pytest.mark.parametrize("route", ["cancel", "query", "open"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b'{"code":100410,"msg":"rate limited"}', b'{"code":0}'])
@pytest.mark.parametrize(("status", "retry_us"), [(429, 0), (418, 3 * LIMIT_US)])
def test_statuses_of_a_limit_are_about_the_whole_address(route: str, body: bytes, status: int, retry_us: int) -> None:
    (reply,) = decode(route, raw(body, status), target(ORDER_ID))
    assert (reply.word, reply.whole_address, reply.http_status) == (Word.REFUSED, True, status)
    assert (reply.retry_us, reply.retry_at_ms) == (retry_us, 0)


def test_a_limit_of_the_address_that_tells_its_end_is_believed() -> None:
    (reply,) = decode("cancel", answer(code=100410, msg=BLOCKED, status=429), target(ORDER_ID))
    assert (reply.retry_at_ms, reply.retry_us, reply.whole_address) == (1735964079647, 0, True)
    for status in (403, 418):
        (reply,) = decode("cancel", answer(code=199987, msg=BLOCKED, status=status), target(ORDER_ID))
        assert (reply.retry_at_ms, reply.retry_us, reply.whole_address) == (1735964079647, 0, True)


def test_a_firewall_holds_the_address_unless_the_venue_itself_speaks() -> None:
    (reply,) = decode("cancel", raw(b"<html>forbidden</html>", 403), target(ORDER_ID))
    assert (reply.word, reply.whole_address, reply.retry_us) == (Word.REFUSED, True, LIMIT_US)
    (reply,) = decode("cancel", answer(code=100419, msg="IP does not match", status=403), target(ORDER_ID))
    assert (reply.word, reply.whole_address) == (Word.ACCOUNT, False)


def test_a_limit_that_is_told_by_the_firewall_is_the_addresss() -> None:
    (reply,) = decode("cancel", answer(code=100410, msg=BLOCKED, status=403), target(ORDER_ID))
    assert (reply.retry_at_ms, reply.retry_us, reply.whole_address) == (1735964079647, 0, True)
    (reply,) = decode("cancel", answer(code=100410, msg="rate limited", status=403), target(ORDER_ID))
    assert (reply.retry_at_ms, reply.retry_us, reply.whole_address) == (0, LIMIT_US, True)


def test_a_401_is_about_the_key() -> None:
    (reply,) = decode("cancel", raw(b"", 401), target(ORDER_ID))
    assert reply.word is Word.ACCOUNT
    assert all(row.source for row in STATUSES.values())


# -- what counts towards the lock ----------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["cancel", "cancel-seen", "query", "sweep-one"])
def test_equal_errors_are_told_but_for_limits_keys_and_clocks(route: str) -> None:
    swept = target(scope="account", symbol=None, notes={"sweep": {"todo": [{"id": ORDER_ID, "symbol": "BTC-USDT"}]}})
    one = swept if route == "sweep-one" else target(ORDER_ID)
    for code, text, meant in SEEN:
        (reply,) = decode(route, answer(code=int(code), msg=text), one)
        about_the_call = meant in (Word.REFUSED, Word.ACCOUNT, Word.CLOCK)
        assert reply.error == ("" if about_the_call else code)
    for code, text in UNSEEN:
        (reply,) = decode(route, answer(code=int(code), msg=text), one)
        assert reply.error == code
    (reply,) = decode(route, answer(code=199987, msg=""), one)
    assert reply.error == "199987"


@pytest.mark.parametrize("route", ["cancel", "query"])
def test_an_error_under_a_server_s_status_is_told_too(route: str) -> None:
    (reply,) = decode(route, answer(code=100500, msg="internal error", status=500), target(ORDER_ID))
    assert (reply.word, reply.error) == (Word.UNCLEAR, "100500")
    (reply,) = decode(route, answer(code=0, msg="", status=504), target(ORDER_ID))
    assert (reply.word, reply.error) == (Word.UNCLEAR, "")


def test_an_error_is_one_word() -> None:
    """It becomes the first word of a member in the lane's state."""
    (reply,) = decode("cancel", answer(code="a b?\n" + "x" * 40), target(ORDER_ID))
    assert reply.error
    assert " " not in reply.error
    assert not reply.error.startswith("?")
    assert len(reply.error) <= 16


def test_what_a_batch_says_of_single_orders_is_no_error_of_the_endpoint() -> None:
    said = answer({"orders": [], "fails": [{"orderId": ORDER_ID, "error": "can not find order for orderId"}]})
    for reply in decode("cancel-orders", said, target(ORDER_ID), target(OTHER_ID)):
        assert reply.error == ""


# -- texts of failed items -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant", "state"),
    [
        ("the  orderId:1 order status :CANCELED,can not delete, please verify and retry later", Word.GONE, "CANCELED"),
        ("the  orderId:1 order status :FILLED,can not delete", Word.GONE, "FILLED"),
        ("order status:Cancelled", Word.GONE, "CANCELLED"),
        ("can not find order for orderId:1 for symbol: BARS-USDT, please verify and retry later", Word.GONE, ""),
        ("Cannot find order", Word.GONE, ""),
        ("the  orderId:1 order status :PENDING,can not delete", Word.UNCLEAR, ""),
        ("order status :CANCELEDISH", Word.UNCLEAR, ""),
        ("please verify and retry later", Word.UNCLEAR, ""),
        ("", Word.UNCLEAR, ""),
    ],
)
def test_a_failed_items_text_decides(text: str, meant: Word, state: str) -> None:
    assert item_of(text) == (meant, state)


def test_thirteen_digits_are_a_time_and_nothing_else_is() -> None:
    assert until_ms("1735964079647") == 1735964079647
    assert until_ms("173596407964") == until_ms("17359640796471") == until_ms("9735964079647") == 0
