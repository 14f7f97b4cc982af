"""One intent through a venue that misbehaves as it likes: however it ends, it ends with the truth."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq.contract import Status
from cancelq_worker.rulings import Silence
from cancelq_worker.venues.port import Answer, Reply, Route, Stage, Target, Word
from tests.unit.bingx_account import BINGX, ORDER_ID, OTHER_ID, PAIR, answer, listed, raw, row, target
from tests.unit.bingx_book import OLD, TYPES, Book
from tests.unit.journey import Journey, Say

#: What may become of a call: whether it is carried out, and what comes back instead of the answer.
FAULTS: dict[str, tuple[bool, Answer | Silence | None]] = {
    "none": (True, None),
    "executed without an answer": (True, Silence.NO_ANSWER),
    "lost": (False, Silence.NO_ANSWER),
    "not sent": (False, Silence.NOT_SENT),
    "a gateway's error, executed": (True, raw(b"<html>", 504)),
    "a gateway's error": (False, raw(b"", 502)),
    "half a body": (True, raw(b'{"code":0,"da')),
    "another order's row": (True, answer(row(OTHER_ID))),
    "no data": (True, answer()),
    "an empty object": (True, answer({})),
    "an unknown code": (False, answer(code=199987, msg="unexpected")),
    "busy": (False, answer(code=100410, msg="The current system is busy")),
    "internal": (True, answer(code=100500, msg="The current system is busy")),
    "not told which": (False, answer(code=100404, msg="?")),
    "gone, though it is not": (False, answer(code=100421, msg="cancel fail, order not exist")),
    "over the limit": (False, answer(code=100410, msg="rate limited")),
    "too many from this address": (False, raw(b"", 429)),
    "a row that cannot be read": (True, listed({"orderId": 1.5})),
}
MAYBE = st.one_of(st.just("none"), st.sampled_from(sorted(FAULTS)))


def say_with(book: Book, faults: list[str]) -> Say:
    """The book's answers, each after the next of the faults; without fault once they are used up."""
    left = iter(faults)

    def say(route: Route, one: Target) -> Reply | Silence:
        executes, instead = FAULTS[next(left, "none")]
        if route.stage is Stage.LOOK and instead == FAULTS["gone, though it is not"][1]:
            instead = None  # from a look that would be a lie, not an odd answer
        request = BINGX.encode(route, [one])
        said = book(request) if executes or instead is None else None
        if isinstance(instead, Silence):
            return instead
        (reply,) = BINGX.decode(route, [one], instead or said or raw(b""))
        return reply

    return say


@settings(max_examples=400)
@given(
    st.sampled_from(["open", "FILLED", "CANCELED", "FAILED", "nowhere"]),
    st.sampled_from(["id", "client id"]),
    st.sampled_from(["order", "tpsl", "stop"]),
    st.lists(MAYBE, max_size=12),
    st.booleans(),
    st.integers(0, 99),
)
def test_an_intent_ends_with_the_truth_whatever_answers_come(
    state: str, by: str, scope: str, faults: list[str], oldest_first: bool, seed: int
) -> None:
    book = Book(oldest_first=oldest_first)
    book.end(1, 2, 3, client="other")
    if state == "open":
        book.add(int(ORDER_ID), kind=scope, client="mine_1")
    elif state != "nowhere":
        book.ended[ORDER_ID] = row(status=state, type=TYPES[scope], executedQty="1", clientOrderID="mine_1")
    intent = target(ORDER_ID if by == "id" else None, "mine_1" if by == "client id" else None, scope=scope)
    journey = Journey(intent, venue=BINGX, seed=seed)
    end = journey.run(say_with(book, faults), most=400)
    truth = {
        "FILLED": Status.filled,
        "CANCELED": Status.cancelled,
        "FAILED": Status.closed,
        "": Status.not_found,
    }[str(book.ended.get(ORDER_ID, {}).get("status", ""))]
    if end.status is not Status.unresolved:
        assert ORDER_ID not in book.open
        assert end.status is truth
    else:
        assert len(faults) > 2, "a venue that is as good as well ends every intent"
    _check_calls(journey, book)


def _check_calls(journey: Journey, book: Book) -> None:
    """Nothing was sent unseen twice, nothing too early, and nothing about another order."""
    for name, params in book.calls:
        assert params.get("symbol") == PAIR or name == "openOrders"
    assert set(book.cancelled) <= {ORDER_ID}
    cancels = [c for c in journey.calls if c.route.stage is Stage.CANCEL and c.counted]
    for first, second in pairwise(cancels):
        assert second.sent_us - first.back_us >= BINGX.timing.gap_us
        between = journey.calls[journey.calls.index(first) + 1 : journey.calls.index(second)]
        assert any(c.route.stage is Stage.LOOK and c.counted for c in between), "a look stands between two cancels"
        assert second.before.cancel_class.startswith("seen")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["order", "order,stop", "order,tpsl,stop"]),
    st.sampled_from(["symbol", "account"]),
    st.lists(st.tuples(st.sampled_from(["order", "tpsl", "stop"]), st.booleans(), st.booleans()), max_size=14),
    st.lists(MAYBE.filter(lambda fault: fault != "a row that cannot be read"), max_size=10),
    st.integers(0, 99),
)
def test_a_sweep_says_done_only_if_nothing_that_was_meant_is_open(
    kinds: str, scope: str, orders: list[tuple[str, bool, bool]], faults: list[str], seed: int
) -> None:
    book = Book()
    meant: set[int] = set()
    spared: set[int] = set()
    for n, (kind, newer, abroad) in enumerate(orders, 1):
        pair = "ETH-USDT" if abroad else PAIR
        book.add(n, kind=kind, symbol=pair, at_ms=OLD + 120_000 * newer)
        wanted = kind in kinds.split(",") and not newer and (scope == "account" or not abroad)
        (meant if wanted else spared).add(n)
    intent = target(scope=scope, symbol=None if scope == "account" else PAIR, kinds=kinds)
    end = Journey(intent, venue=BINGX, seed=seed).run(say_with(book, faults), most=400)
    if end.status is Status.cancelled:
        assert not meant & book.left
    bulk = [params for name, params in book.calls if name == "cancelOpenOrders"]
    assert len(bulk) <= 1
    if not bulk:
        assert spared <= book.left
    elif scope == "symbol":
        assert bulk == [{"symbol": PAIR}]
        assert {n for n in spared if orders[n - 1][2]} <= book.left
    assert all(_names_ids(params) for name, params in book.calls if name in ("cancel", "cancelOrders"))


def _names_ids(params: dict[str, Any]) -> bool:
    return bool(params.get("orderId") or params.get("orderIds")) and bool(params.get("symbol"))


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_one_odd_answer_to_a_cancel_costs_no_truth(fault: str) -> None:
    book = Book()
    book.add(int(ORDER_ID))
    end = Journey(target(ORDER_ID), venue=BINGX).run(say_with(book, [fault]), most=60)
    assert (end.status, book.left) == (Status.cancelled, set())


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (answer(row(status="PENDING")), Status.cancelled),
        (answer(code=100400, msg="cancel fail, the status does not match"), Status.rejected),
        (answer(code=100421, msg="order not exist"), Status.rejected),
        (answer(code=100500, msg="internal error"), Status.cancelled),
        (answer(code=100400, status=502), Status.cancelled),
        (raw(b"<html>", 200), Status.cancelled),
        (Silence.NO_ANSWER, Status.cancelled),
    ],
)
def test_a_condition_is_told_as_unmet_only_where_the_venue_refused_the_cancel(
    said: Answer | Silence, status: Status
) -> None:
    """Acknowledged or not answered, it may have been met: what the list still shows is on its way out."""
    looks = iter([Reply(Word.OPEN, venue_state="PARTIALLY_FILLED", place="query")] * 2)

    def say(route: Route, one: Target) -> Reply | Silence:
        if route.stage is Stage.CANCEL:
            return said if isinstance(said, Silence) else BINGX.decode(route, [one], said)[0]
        return next(looks, Reply(Word.CANCELLED, place="query"))

    end = Journey(target(ORDER_ID, only_if="NEW"), venue=BINGX).run(say, most=100)
    assert end.status is status
