"""Looking for an order at Bybit: which places are read, what a row says, and what an answer proves."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq.contract import Status
from cancelq_worker.rulings import Policy
from cancelq_worker.venues.bybit import looks
from cancelq_worker.venues.bybit.codes import CODES
from cancelq_worker.venues.port import ENDED, Answer, Reply, Request, Stage, Target, Word
from tests.unit.bitget_account import target
from tests.unit.bybit_account import (
    BYBIT,
    ORDER_ID,
    OTHER_ID,
    ROUTES,
    answer,
    batch,
    decode,
    listed,
    raw,
    row,
)
from tests.unit.journey import Journey, by_venue

ONE, MINE = target(ORDER_ID), target(client_order_id="mine-1")
UNKNOWN = answer({}, code=170213, msg="Order does not exist.")
LOOKS = ("realtime", "history")


def look(said: Answer, one: Target = ONE, route: str = "realtime") -> Reply:
    (reply,) = decode(route, said, one)
    return reply


def refused(order_id: str | None = ORDER_ID, *, code: str = "170213", **more: Any) -> Target:
    """An intent whose last cancel was answered with that code."""
    return target(order_id, notes={"call": {"code": code}}, **more)


# -- where to look next --------------------------------------------------------------------------------------


class NothingThere:
    """A venue that knows no order. Keeps what was asked."""

    def __init__(self, cancel: Answer = UNKNOWN) -> None:
        self.cancel = cancel
        self.asked: list[str] = []

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST":
            return self.cancel
        assert dict(parse_qsl(request.query)).keys() in ({"category", "orderId"}, {"category", "orderLinkId"})
        self.asked.append(request.path.rpartition("/")[2])
        return listed()


INTENTS = {
    "by order id": ONE,
    "by client id": MINE,
    "tpsl": target(ORDER_ID, scope="tpsl"),
    "stop by client id": target(client_order_id="mine-1", scope="stop"),
}


@pytest.mark.parametrize("budget_us", [0, 10_000_000])
@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
def test_both_places_are_read_twice_before_an_order_is_not_found(intent: Target, budget_us: int) -> None:
    venue = NothingThere()
    end = Journey(intent, venue=BYBIT, policy=Policy(lookup_budget_us=budget_us)).run(by_venue(venue, BYBIT), most=100)
    assert end.status is Status.not_found
    assert venue.asked[:4] == ["realtime", "history"] * 2
    assert min(venue.asked.count(place) for place in LOOKS) >= 2


@pytest.mark.parametrize("gone", LOOKS)
def test_a_place_that_cannot_be_read_leaves_an_order_unresolved(gone: str) -> None:
    def venue(request: Request) -> Answer:
        return raw(b"<html>", 502) if request.path.endswith(gone) else NothingThere()(request)

    end = Journey(ONE, venue=BYBIT).run(by_venue(venue, BYBIT), most=200)
    assert end.status is Status.unresolved


@pytest.mark.parametrize("code", [170142, 170139, 170190, 110008, 110010])
def test_an_order_that_the_venue_knew_is_never_called_unknown(code: int) -> None:
    """Cancelled orders are forgotten after 24 hours: then absence proves nothing."""
    venue = NothingThere(answer({}, code=code))
    end = Journey(ONE, venue=BYBIT).run(by_venue(venue, BYBIT), most=200)
    assert end.status is Status.unresolved


def test_one_look_that_fails_does_not_keep_an_order_from_being_found() -> None:
    """Where the first look fails, the other place is tried, and then the first again."""
    for fails in range(4):
        asked: list[str] = []

        def venue(request: Request, fails: int = fails, asked: list[str] = asked) -> Answer:
            if request.method == "POST":
                return UNKNOWN
            asked.append(request.path)
            if len(asked) <= fails:
                return raw(b"", 502)
            return listed(row(status="Filled")) if request.path.endswith("/realtime") else listed()

        end = Journey(ONE, venue=BYBIT).run(by_venue(venue, BYBIT), most=20)
        assert end.status is Status.filled
        assert len(asked) <= fails + 2


@pytest.mark.parametrize("broken", LOOKS)
def test_an_order_is_found_where_only_one_place_can_be_read(broken: str) -> None:
    def venue(request: Request) -> Answer:
        if request.method == "POST":
            return UNKNOWN
        return raw(b"", 502) if request.path.endswith(broken) else listed(row(status="Filled", orderLinkId="mine-1"))

    for intent in (ONE, MINE):
        assert Journey(intent, venue=BYBIT).run(by_venue(venue, BYBIT), most=3).status is Status.filled


def test_a_first_look_by_order_id_may_go_to_either_place() -> None:
    """So that looks keep pace with cancels: 50 and 50 a second for 20 and 20. A client id goes to what is exact."""
    assert BYBIT.next_look(ONE).look_class == "any"
    assert [r.name for r in BYBIT.routes if "any" in r.kinds] == ["realtime", "history"]
    assert BYBIT.next_look(MINE).look_class == "realtime"
    assert BYBIT.next_look(target(client_order_id="mine-1", notes={"oid": ORDER_ID})).look_class == "any"


@pytest.mark.parametrize(
    ("absent", "place"),
    [
        ({"history": 1}, "realtime"),
        ({"realtime": 1}, "history"),
        ({"realtime": 1, "history": 1}, "realtime"),
        ({"realtime": 2, "history": 1}, "history"),
    ],
)
def test_the_place_that_was_read_less_comes_next(absent: dict[str, int], place: str) -> None:
    look = BYBIT.next_look(target(ORDER_ID, notes={"abs": absent, "n": sum(absent.values())}))
    assert (look.look_class, look.done) == (place, False)
    assert BYBIT.next_look(target(ORDER_ID, notes={"abs": {"realtime": 2, "history": 2}})).done


# -- what a row says -----------------------------------------------------------------------------------------

STATES = {
    "New": Word.OPEN,
    "PartiallyFilled": Word.OPEN,
    "Untriggered": Word.OPEN,
    "Created": Word.OPEN,
    "Active": Word.OPEN,
    "PendingCancel": Word.OPEN,
    "Filled": Word.FILLED,
    "Cancelled": Word.CANCELLED,
    "PartiallyFilledCanceled": Word.CANCELLED,
    "Deactivated": Word.CANCELLED,
    "Triggered": Word.TRIGGERED,
    "Rejected": Word.CLOSED,
}


@pytest.mark.parametrize("route", LOOKS)
@pytest.mark.parametrize(("state", "word"), STATES.items())
def test_the_venues_word_for_a_state_is_read(state: str, word: Word, route: str) -> None:
    by_id, by_client_id = target(ORDER_ID, scope="stop"), target(client_order_id="mine-1", scope="stop")
    reply = look(listed(row(status=state, orderLinkId="mine-1")), by_id, route)
    assert (reply.word, reply.venue_state, reply.place) == (word, state, route)
    assert (reply.order_id, reply.client_order_id) == (ORDER_ID, "mine-1")
    assert look(listed(row(status=state, orderLinkId="mine-1")), by_client_id, route).word is word


def test_an_order_that_is_just_firing_will_be_a_normal_one() -> None:
    """`Triggered` passes by on the way to `New`; as an end it stands in the history only."""
    firing = listed(row(status="Triggered", stopOrderType="Stop"))
    assert [look(firing, ONE, route).word for route in LOOKS] == [Word.UNCLEAR, Word.TRIGGERED]
    asked: list[str] = []

    def venue(request: Request) -> Answer:
        if request.method == "POST":
            return answer({"orderId": ORDER_ID})
        asked.append(request.path)
        if len(asked) == 1:
            return firing
        return listed(row(status="Cancelled")) if request.path.endswith("/realtime") else listed()

    assert Journey(ONE, venue=BYBIT).run(by_venue(venue, BYBIT), most=5).status is Status.cancelled


def test_no_state_is_read_that_is_not_tested() -> None:
    assert STATES == looks.STATES


@pytest.mark.parametrize(
    "state", ["", "Canceled", "cancelled", "FILLED", "Cancelled ", "New ", "Expired", "已取消", None]
)
def test_an_unknown_state_is_unclear(state: Any) -> None:
    assert look(listed(row(status=state))).word is Word.UNCLEAR


def test_why_an_order_was_cancelled_decides_nothing() -> None:
    """An order that filled after its cancel was accepted carries the reason of a cancel."""
    raced = row(status="Filled", cancelType="CancelByUser", rejectReason="EC_OrigClOrdIDDoesNotExist", cumExecQty="2")
    reply = look(listed(raced))
    assert (reply.word, reply.filled) == (Word.FILLED, "2")
    assert look(listed(row(status="New", cancelType="CancelByUser"))).word is Word.OPEN


@pytest.mark.parametrize(
    ("quantity", "told"),
    [("0.0125", "0.0125"), ("1", "1"), ("0", ""), ("0.000", ""), ("", ""), (None, ""), ("-1", ""), ("1e3", "")],
)
def test_what_was_filled_is_told_as_it_is_written(quantity: Any, told: str) -> None:
    reply = look(listed(row(status="PartiallyFilledCanceled", cumExecQty=quantity)))
    assert (reply.word, reply.filled) == (Word.CANCELLED, told)


# -- what an answer proves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", LOOKS)
def test_an_unknown_order_is_an_empty_list(route: str) -> None:
    assert look(listed(), route=route).word is Word.ABSENT
    assert look(UNKNOWN, route=route).word is Word.UNCLEAR


@pytest.mark.parametrize("route", LOOKS)
def test_rows_about_others_prove_nothing(route: str) -> None:
    assert look(listed(row(OTHER_ID, "Cancelled")), route=route).word is Word.UNCLEAR
    assert look(listed(row(OTHER_ID, "Cancelled", orderLinkId="mine-2")), MINE, route).word is Word.UNCLEAR
    assert look(listed(row("mine-1", "Cancelled")), MINE, route).word is Word.UNCLEAR


@pytest.mark.parametrize("told", ["mine-1", "", "theirs"])
def test_a_row_with_anothers_client_id_says_nothing_of_an_order_that_is_named_by_its_own(told: str) -> None:
    """Its order id was only learnt."""
    mine, good = target(client_order_id="mine-1", notes={"oid": ORDER_ID}), told != "theirs"
    for route in LOOKS:
        found = look(listed(row(ORDER_ID, "Cancelled", orderLinkId=told)), mine, route)
        assert found.word is (Word.CANCELLED if good else Word.UNCLEAR)
    named = {"orderId": ORDER_ID, "orderLinkId": told}
    assert decode("cancel", answer(named), mine)[0].word is (Word.ACKNOWLEDGED if good else Word.UNCLEAR)


def test_an_empty_page_that_goes_on_proves_nothing() -> None:
    assert look(listed(cursor="page_args%3D1")).word is Word.UNCLEAR


def test_two_answers_about_one_order_are_none() -> None:
    assert look(listed(row(status="Filled"), row(status="Cancelled"))).word is Word.UNCLEAR
    twice = (row("1", "Cancelled", orderLinkId="mine-1"), row("2", "Cancelled", orderLinkId="mine-1"))
    assert look(listed(*twice), MINE).word is Word.UNCLEAR
    assert look(listed(row(status="Filled"), row(status="Filled"))).word is Word.FILLED


NO_LIST: dict[str, Any] = {
    "null": None,
    "text": "[]",
    "number": 0,
    "a bare list": [],
    "object": {},
    "object about the order": row(status="Cancelled"),
    "list in text": {"list": "[]"},
    "null for a list": {"list": None},
    "another category": {"list": [], "category": "linear"},
    "a row that is none": {"list": [None]},
    "a row without an id": {"list": [{"orderStatus": "Cancelled", "orderLinkId": "mine-1"}]},
    "a row with an impossible id": {"list": [row("a b", "Cancelled", orderLinkId="mine-1")]},
    "a readable row beside one that is not": {"list": [row(status="Cancelled", orderLinkId="mine-1"), []]},
}


@pytest.mark.parametrize("route", LOOKS)
@pytest.mark.parametrize("result", NO_LIST.values(), ids=NO_LIST)
def test_an_answer_without_a_list_is_no_empty_list(result: Any, route: str) -> None:
    """Absence leads to `not_found`, so it is only believed from a list."""
    for one in (ONE, MINE):
        assert look(answer(result), one, route).word is Word.UNCLEAR


def test_a_look_that_is_refused_tells_nothing_of_the_order() -> None:
    for code, word in CODES.items():
        expected = word if word in (Word.REFUSED, Word.ACCOUNT, Word.CLOCK, Word.LATER) else Word.UNCLEAR
        assert look(answer({}, code=int(code))).word is expected, code


# -- orders that are not what the intent takes them for --------------------------------------------------------

WAITS: Callable[..., dict[str, Any]] = lambda stop_type, **more: row(  # noqa: E731 - one row, often
    status="Untriggered", stopOrderType=stop_type, **more
)


@pytest.mark.parametrize(
    ("scope", "seen", "names"),
    [
        ("order", WAITS("tpslOrder"), "send it with scope tpsl"),
        ("order", WAITS("Stop"), "send it with scope stop"),
        ("order", WAITS("OcoOrder"), "OcoOrder, which no scope covers"),
        ("order", WAITS("BidirectionalTpslOrder"), "which no scope covers"),
        ("tpsl", WAITS("Stop"), "send it with scope stop"),
        ("stop", WAITS("tpslOrder"), "send it with scope tpsl"),
        ("tpsl", row(), "send it with scope order"),
        ("stop", row(stopOrderType="UNKNOWN"), "send it with scope order"),
    ],
)
def test_an_open_order_of_another_kind_is_told_with_its_scope(scope: str, seen: dict[str, Any], names: str) -> None:
    reply = look(listed(seen), refused(scope=scope))
    assert (reply.word, reply.place) == (Word.FAILED, "realtime")
    assert reply.text.startswith("scope: ")
    assert names in reply.text


@pytest.mark.parametrize("code", ["170213", "110001", "170143"])
def test_it_is_told_by_whatever_code_the_venue_found_nothing_to_cancel(code: str) -> None:
    assert look(listed(WAITS("tpslOrder")), refused(scope="order", code=code)).word is Word.FAILED


@pytest.mark.parametrize("code", ["0", "170212", "170142", "", "10016", "170191"])
def test_it_is_told_only_if_the_venue_found_nothing_to_cancel(code: str) -> None:
    """After an acknowledgement or a silence the order may just not be cancelled yet."""
    for scope, seen in (("order", WAITS("tpslOrder")), ("tpsl", row(stopOrderType="tpslOrder"))):
        assert look(listed(seen), refused(scope=scope, code=code)).word is Word.OPEN
    assert look(listed(row(symbol="ETHUSDT")), refused(code=code)).word is Word.OPEN


@pytest.mark.parametrize(
    ("scope", "seen"),
    [
        ("order", row()),
        ("order", row(stopOrderType="tpslOrder")),
        ("order", row(stopOrderType="TakeProfit")),
        ("order", WAITS("")),
        ("order", WAITS("TrailingStop")),
        ("tpsl", WAITS("tpslOrder")),
        ("tpsl", row(stopOrderType=None)),
        ("stop", WAITS("Stop")),
        ("stop", WAITS("TakeProfit")),
        ("stop", row(stopOrderType="tpslOrder")),
    ],
)
def test_an_order_whose_kind_fits_or_cannot_be_told_is_just_open(scope: str, seen: dict[str, Any]) -> None:
    assert look(listed(seen), refused(scope=scope)).word is Word.OPEN


@pytest.mark.parametrize(("scope", "stop_type"), [("tpsl", "tpslOrder"), ("stop", "Stop")])
@pytest.mark.parametrize("state", ["New", "PartiallyFilled"])
def test_an_order_that_fired_lives_on_under_its_own_id_and_is_left_alone(
    scope: str, stop_type: str, state: str
) -> None:
    reply = look(listed(row(status=state, stopOrderType=stop_type)), refused(scope=scope))
    assert (reply.word, reply.child_order_id) == (Word.TRIGGERED, ORDER_ID)


def test_an_open_order_of_another_pair_is_told_with_its_pair() -> None:
    for one in (refused(), refused(None, client_order_id="mine-1")):
        reply = look(listed(row(symbol="ETHUSDT", orderLinkId="mine-1")), one)
        assert (reply.word, reply.text[:42]) == (Word.FAILED, "symbol: this id is an order of ETHUSDT; se")


def test_an_end_in_another_pair_is_believed_by_order_id_only() -> None:
    ended = row(symbol="ETHUSDT", orderLinkId="mine-1", status="Cancelled")
    assert look(listed(ended)).word is Word.CANCELLED
    assert look(listed(ended), MINE).word is Word.UNCLEAR


def test_an_order_of_another_kind_ends_as_rejected_with_the_remedy() -> None:
    def venue(request: Request) -> Answer:
        return UNKNOWN if request.method == "POST" else listed(WAITS("Stop"))

    end = Journey(ONE, venue=BYBIT).run(by_venue(venue, BYBIT), most=2)
    assert (end.status, end.evidence) == (Status.rejected, "query")
    assert "scope stop" in end.detail


@pytest.mark.parametrize("state", ["Cancelled", "PartiallyFilledCanceled", "Filled", "Rejected"])
@pytest.mark.parametrize("code", [0, 170213, 110001, 170142, 170139, 170212, 10016, 77777])
def test_whatever_a_cancel_is_answered_the_order_ends_as_it_was_seen(code: int, state: str) -> None:
    def venue(request: Request) -> Answer:
        if request.method == "POST":
            return answer({"orderId": ORDER_ID, "orderLinkId": ""}, code=code)
        return listed(row(status=state))

    end = Journey(ONE, venue=BYBIT).run(by_venue(venue, BYBIT), most=2)
    expected = {"Filled": Status.filled, "Rejected": Status.closed}.get(state, Status.cancelled)
    assert (end.status, end.evidence) == (expected, "query")


# -- any answer at all ---------------------------------------------------------------------------------------

ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, 0, -1, 1.5, 2**70, "", " ", "²", "٣", "1e5", "\x00\x1b[31m", [], {}, [[]]]),
    st.just("9").map(lambda digit: digit * 5000),
)
SOME_ID = st.sampled_from([ORDER_ID, OTHER_ID, int(ORDER_ID), "1", "mine-1"])
CODE = st.one_of(st.just(0), st.just("0"), st.sampled_from(sorted(map(int, CODES))), ODD)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "orderId": st.one_of(SOME_ID, ODD),
        "orderLinkId": st.one_of(SOME_ID, ODD),
        "symbol": st.one_of(st.sampled_from(["BTCUSDT", "ethusdt"]), ODD),
        "orderStatus": st.one_of(st.sampled_from(sorted(STATES)), ODD),
        "stopOrderType": st.one_of(
            st.sampled_from(["", "UNKNOWN", "tpslOrder", "Stop", "OcoOrder", "TakeProfit"]), ODD
        ),
        "cumExecQty": st.one_of(st.sampled_from(["0", "0.000", "1.25"]), ODD),
        "createdTime": st.one_of(st.sampled_from(["1700000000000", 1700000000000]), ODD),
        "code": CODE,
        "msg": ODD,
    },
)
ROWS = st.one_of(ODD, st.lists(st.one_of(ROW, ODD), max_size=3))
LISTS = st.one_of(
    ROWS,
    ROW,
    st.fixed_dictionaries(
        {},
        optional={
            "list": ROWS,
            "category": st.sampled_from(["spot", "linear", None]),
            "nextPageCursor": st.one_of(st.sampled_from(["", "a%3Ab"]), ODD),
            "success": st.one_of(st.sampled_from(["1", "0"]), ODD),
        },
    ),
)
STATUS = st.one_of(st.sampled_from([200, 200, 200, 400, 403, 429, 500]), st.integers(100, 599))


def documents(codes: st.SearchStrategy[Any]) -> st.SearchStrategy[Answer]:
    return st.builds(
        lambda result, ext, code, status, reset: answer(
            result, ext=ext, code=code, status=status, x_bapi_limit_reset_timestamp=str(reset)
        ),
        LISTS, LISTS, codes, STATUS, ODD,
    )  # fmt: skip


BYTES = st.builds(raw, st.binary(max_size=60), STATUS)
SWEEP = {"sweep": {"todo": [{"id": ORDER_ID, "symbol": "BTCUSDT"}, {"id": OTHER_ID, "symbol": "BTCUSDT"}]}}
SOME_TARGETS = st.sampled_from(
    [
        (target(ORDER_ID), target(OTHER_ID)),
        (MINE, target(ORDER_ID)),
        (refused(), refused(OTHER_ID)),
        (refused(scope="tpsl"),),
        (refused(None, client_order_id="mine-1", scope="stop"),),
    ]
)
SWEEPS = st.sampled_from(
    [
        (target(scope="symbol", notes=SWEEP, age_band_ms=(1700000000000, 1700000000001)),),
        (target(scope="account", symbol=None, kinds="tpsl,stop", client_prefix="m", notes=SWEEP),),
        (target(scope="symbol", older_than_ms="1700000000000", notes={"sweep": {**SWEEP["sweep"], "at": "a%3Ab"}}),),
    ]
)
SWEEP_ROUTES = [name for name in ROUTES if name.startswith("sweep") or name == "cancel-all"]


def calls() -> st.SearchStrategy[tuple[str, tuple[Target, ...]]]:
    """A route with targets it may carry."""
    singles = [n for n in ROUTES if n not in SWEEP_ROUTES]
    carried = st.tuples(st.sampled_from(singles), SOME_TARGETS).map(lambda c: (c[0], c[1][: ROUTES[c[0]].most]))
    return st.one_of(carried, st.tuples(st.sampled_from([*SWEEP_ROUTES, "cancel"]), SWEEPS))


@settings(max_examples=400)
@given(calls(), st.one_of(documents(CODE), BYTES))
def test_any_answer_is_read_and_leaves_nothing_behind_that_is_not_safe(
    call: tuple[str, tuple[Target, ...]], said: Answer
) -> None:
    """Codes, ids and texts of a venue are kept in state lines and events: nothing endless or unprintable may be."""
    route, targets = call
    replies = decode(route, said, *targets)
    assert len(replies) == len(targets)
    for reply in replies:
        assert 0 <= reply.retry_us <= 600_000_000
        assert len(orjson.dumps(reply.notes)) < 2_000
        assert len(reply.code) <= 64
        assert len(reply.text) <= 400
        assert len(reply.venue_state) <= 64
        for kept in (reply.order_id, reply.client_order_id, reply.child_order_id):
            assert len(kept) <= 64
            assert not set(kept) & set(" ,\n\x00")
            assert kept.isascii()
        assert reply.filled == "" or float(reply.filled) > 0


UNKNOWN_CODES = st.one_of(st.text(max_size=8), st.integers(), st.none()).filter(
    lambda code: str(code) not in CODES and str(code) != "0"
)


@settings(max_examples=250)
@given(calls(), st.one_of(documents(UNKNOWN_CODES), BYTES))
def test_an_unknown_answer_is_never_definite(call: tuple[str, tuple[Target, ...]], said: Answer) -> None:
    route, targets = call
    allowed = {403: Word.REFUSED, 429: Word.REFUSED, 401: Word.ACCOUNT}.get(said.status, Word.UNCLEAR)
    for reply in decode(route, said, *targets):
        assert reply.word is allowed


@settings(max_examples=200)
@given(calls(), documents(CODE))
def test_no_answer_to_a_cancel_ends_an_order(call: tuple[str, tuple[Target, ...]], said: Answer) -> None:
    route, targets = call
    if ROUTES[route].stage is Stage.CANCEL:
        for reply in decode(route, said, *targets):
            assert reply.word not in ENDED | {Word.OPEN, Word.ABSENT, Word.UNREAD, Word.LISTED}


@settings(max_examples=250)
@given(st.sampled_from(LOOKS), SOME_TARGETS, st.lists(ROW, max_size=3))
def test_no_order_is_seen_but_in_a_row_that_names_it(route: str, targets: tuple[Target, ...], rows: list[Any]) -> None:
    one = targets[0]
    said = [str(r.get("orderId" if one.order_id else "orderLinkId")) for r in rows]
    (reply,) = decode(route, listed(*rows), one)
    if (one.order_id or one.client_order_id) not in said:
        assert reply.word is (Word.UNCLEAR if rows else Word.ABSENT)
    else:
        assert reply.word in ENDED | {Word.OPEN, Word.UNCLEAR, Word.FAILED}


def test_a_batch_of_one_is_read_as_a_batch() -> None:
    (reply,) = decode("cancel-batch", batch([{"orderId": ORDER_ID}], [{"code": 0}]), ONE)
    assert reply.word is Word.ACKNOWLEDGED
