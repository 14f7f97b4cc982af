"""How the simulated Bybit shows orders and fills: one by one, in lists, late, and no longer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bybit_desk import NOW_MS, Answer, BybitDesk

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture
def desk() -> BybitDesk:
    return BybitDesk()


def pages(desk: BybitDesk, path: str, **params: str) -> list[Answer]:
    """Page by page along the cursor, to the one that is empty."""
    answers = [desk.get(path, category="spot", **params)]
    while answers[-1].result["nextPageCursor"]:
        answers.append(desk.get(path, category="spot", **params, cursor=answers[-1].result["nextPageCursor"]))
        assert len(answers) < 100
    return answers


# ---- rows


@pytest.mark.parametrize(
    ("kind", "state", "filled", "word"),
    [
        ("order", "live", None, "New"),
        ("order", "partially_filled", "0.5", "PartiallyFilled"),
        ("order", "filled", None, "Filled"),
        ("order", "cancelled", None, "Cancelled"),
        ("order", "cancelled", "0.5", "PartiallyFilledCanceled"),
        ("order", "failed", None, "Rejected"),
        ("tpsl", "live", None, "Untriggered"),
        ("tpsl", "cancelled", None, "Deactivated"),
        ("plan", "live", None, "Untriggered"),
        ("plan", "cancelled", None, "Deactivated"),
        ("plan", "failed", None, "Rejected"),
    ],
)
def test_each_state_has_its_word(desk: BybitDesk, kind: str, state: str, filled: str | None, word: str) -> None:
    [order_id] = desk.place(kind=kind, state=state, filled=filled, size="2")
    assert desk.word(order_id) == word
    assert bool(desk.history(orderId=order_id).ids) == (state not in ("live", "partially_filled"))


def test_a_row_tells_what_filled_and_what_is_left(desk: BybitDesk) -> None:
    [order_id] = desk.place(size="2", price="150", state="partially_filled", filled="0.5", client_id="a-1")
    [row] = desk.realtime(orderId=order_id).rows
    assert {name: row[name] for name in ("qty", "price", "cumExecQty", "leavesQty", "cumExecValue", "leavesValue")} == {
        "qty": "2",
        "price": "150",
        "cumExecQty": "0.5",
        "leavesQty": "1.5",
        "cumExecValue": "75",
        "leavesValue": "225",
    }
    assert (row["orderId"], row["orderLinkId"], row["symbol"], row["side"]) == (order_id, "a-1", "BTCUSDT", "Buy")
    assert (row["avgPrice"], row["orderType"], row["stopOrderType"]) == ("150", "Limit", "")
    assert (row["createdTime"], row["cancelType"], row["rejectReason"]) == (str(NOW_MS), "UNKNOWN", "EC_NoError")
    desk.cancel(order_id)
    [row] = desk.history(orderId=order_id).rows
    assert (row["leavesQty"], row["leavesValue"], row["cumExecQty"]) == ("0", "0", "0.5")
    assert (row["cancelType"], row["rejectReason"]) == ("CancelByUser", "EC_PerCancelRequest")


def test_an_order_that_has_not_filled_has_no_average_price(desk: BybitDesk) -> None:
    [order_id] = desk.place(kind="tpsl", trigger_price="95")
    [row] = desk.realtime(orderId=order_id).rows
    assert (row["avgPrice"], row["cumExecQty"], row["cumExecFee"]) == ("", "0", "0")
    assert (row["stopOrderType"], row["triggerPrice"]) == ("tpslOrder", "95")


# ---- open orders


def test_open_orders_of_all_kinds_are_listed_newest_first(desk: BybitDesk) -> None:
    ids = [desk.place(kind=kind)[0] for kind in ("order", "tpsl", "plan", "order")]
    desk.place(state="filled")
    assert desk.realtime().ids == ids[::-1]
    assert desk.realtime(orderFilter="Order").ids == [ids[3], ids[0]]
    assert desk.realtime(orderFilter="tpslOrder").ids == [ids[1]]
    assert desk.realtime(orderFilter="StopOrder").ids == [ids[2]]
    assert desk.realtime(orderFilter="OcoOrder").ids == []
    assert desk.realtime(orderFilter="Other").code == 170201


def test_they_can_be_narrowed_to_a_pair(desk: BybitDesk) -> None:
    [mine], [other] = desk.place(), desk.place(symbol="ETHUSDT")
    assert desk.realtime(symbol="BTCUSDT").ids == [mine]
    assert desk.realtime(symbol="NOUSDT").code == 170121
    assert desk.realtime(settleCoin="USDT").code == 10001
    # An id wins over the pair.
    assert desk.realtime(symbol="BTCUSDT", orderId=other).ids == [other]


@given(count=st.integers(0, 23), limit=st.integers(1, 9), ended=st.sets(st.integers(0, 22)))
def test_pages_hold_every_order_once(count: int, limit: int, ended: set[int]) -> None:
    desk = BybitDesk()
    ids = [desk.place(symbol="ETHUSDT" if number % 3 else "BTCUSDT")[0] for number in range(count)]
    for number in ended:
        if number < count:
            desk.move(ids[number], "cancelled")
    answers = pages(desk, "/v5/order/realtime", limit=str(limit))
    left = [one for number, one in enumerate(ids) if number not in ended]
    assert [one for answer in answers for one in answer.ids] == left[::-1]
    assert all(len(answer.ids) == limit for answer in answers[:-2])
    assert answers[-1].ids == []


@pytest.mark.parametrize("path", ["/v5/order/realtime", "/v5/order/history"])
def test_a_page_has_twenty_rows_and_at_most_fifty(desk: BybitDesk, path: str) -> None:
    desk.place(count=60, state="live" if "realtime" in path else "cancelled")
    assert len(desk.get(path, category="spot").ids) == 20
    assert len(desk.get(path, category="spot", limit="50").ids) == 50
    for wrong in ("0", "51", "x"):
        assert desk.get(path, category="spot", limit=wrong).code == 10001
    assert desk.get(path, category="spot", cursor="page2").code == 10001


def test_a_cursor_may_be_encoded_once_more(desk: BybitDesk) -> None:
    ids = desk.place(count=3)
    cursor = desk.realtime(limit="2").result["nextPageCursor"]
    assert cursor == f"{ids[2]}%3A{NOW_MS}%2C{ids[1]}%3A{NOW_MS}"
    for form in (cursor, cursor.replace("%", "%25")):
        assert desk.realtime(limit="2", cursor=form).ids == ids[:1]


def test_an_open_list_may_be_old() -> None:
    desk = BybitDesk(open_lag_ms=500)
    [order_id] = desk.place()
    assert desk.realtime().ids == []
    desk.clock.advance(ms=500)
    desk.cancel(order_id)
    [row] = desk.realtime().rows
    assert row["orderStatus"] == "New"
    desk.clock.advance(ms=500)
    assert desk.realtime().ids == []


# ---- one order


def test_by_id_an_ended_order_is_seen_whatever_open_only_says(desk: BybitDesk) -> None:
    [order_id] = desk.place(client_id="a-1", state="cancelled")
    for only in ("0", "1"):
        assert desk.realtime(orderId=order_id, openOnly=only).ids == [order_id]
        assert desk.realtime(orderLinkId="a-1", openOnly=only).ids == [order_id]
    assert desk.realtime(orderId="1").ids == []
    assert desk.realtime(orderId=order_id, orderFilter="StopOrder").ids == []
    # The order id wins.
    assert desk.realtime(orderId="1", orderLinkId="a-1").ids == []
    assert desk.realtime(orderId="abc").code == 170130


def test_only_the_orders_that_ended_last_are_remembered() -> None:
    desk = BybitDesk(bybit_recent_closed=3)
    open_id, *ids = desk.place(count=6)
    for order_id in reversed(ids):
        desk.cancel(order_id)
    assert [bool(desk.realtime(orderId=one).ids) for one in ids] == [True, True, True, False, False]
    assert desk.realtime(openOnly="1").ids == [*ids[2::-1], open_id]
    assert desk.realtime(openOnly="0").ids == [open_id]
    assert desk.realtime(openOnly="2").code == 10001
    assert desk.history().ids == ids[::-1]
    desk.simulator.configure({"bybit_recent_closed": 0})
    assert desk.realtime(openOnly="1").ids == [open_id]


def test_a_restart_of_the_venue_clears_what_had_ended(desk: BybitDesk) -> None:
    [before], [after], [still] = desk.place(), desk.place(), desk.place()
    desk.cancel(before)
    desk.clock.advance(ms=1_000)
    desk.simulator.configure({"bybit_restarted_ms": NOW_MS + 1_000})
    desk.cancel(after)
    assert [bool(desk.realtime(orderId=one).ids) for one in (before, after, still)] == [False, True, True]
    assert desk.history(orderId=before).ids == [before]


def test_the_look_at_one_order_may_be_old() -> None:
    desk = BybitDesk(info_lag_ms=400)
    [order_id] = desk.place()
    assert desk.realtime(orderId=order_id).ids == []
    desk.clock.advance(ms=400)
    desk.cancel(order_id)
    assert desk.word(order_id) == "New"
    desk.clock.advance(ms=400)
    assert desk.word(order_id) == "Cancelled"


# ---- history


def test_history_holds_what_has_ended_a_little_late() -> None:
    desk = BybitDesk(history_lag_ms=2_000)
    [order_id], _ = desk.place(client_id="a-1"), desk.place()
    desk.cancel(order_id)
    for params in ({}, {"orderId": order_id}, {"orderLinkId": "a-1"}):
        assert desk.history(**params).ids == []
    desk.clock.advance(ms=2_000)
    for params in ({}, {"orderId": order_id}, {"orderLinkId": "a-1"}):
        assert desk.history(**params).ids == [order_id]


def test_orders_that_ended_without_a_fill_stay_a_day(desk: BybitDesk) -> None:
    ids = {
        name: desk.place(state=state, filled=filled, kind=kind)[0]
        for name, kind, state, filled in (
            ("cancelled", "order", "cancelled", None),
            ("rejected", "order", "failed", None),
            ("deactivated", "tpsl", "cancelled", None),
            ("partly", "order", "cancelled", "0.5"),
            ("filled", "order", "filled", None),
        )
    }

    def seen() -> set[str]:
        listed = set(desk.history().ids)
        by_id = {one for one in ids.values() if desk.history(orderId=one).ids}
        assert listed == by_id
        return {name for name, one in ids.items() if one in listed}

    desk.clock.advance(ms=DAY_MS)
    assert seen() == set(ids)
    desk.clock.advance(ms=1)
    assert seen() == {"partly", "filled"}
    desk.simulator.configure({"bybit_cancelled_kept_ms": 2 * DAY_MS})
    assert seen() == set(ids)


def test_history_is_asked_in_windows_of_seven_days(desk: BybitDesk) -> None:
    def placed(days_ago: int) -> str:
        return desk.place(state="filled", created_ms=NOW_MS - days_ago * DAY_MS)[0]

    new, old, oldest = placed(1), placed(8), placed(20)

    def listed(**days_ago: int) -> Any:
        params = {name: str(NOW_MS - days * DAY_MS) for name, days in days_ago.items()}
        answer = desk.history(**params)
        return answer.ids if answer.code == 0 else answer.code

    assert listed() == [new]
    assert listed(startTime=9) == [old]
    assert listed(endTime=19) == [oldest]
    assert listed(startTime=15, endTime=8) == [old]
    assert listed(startTime=15, endTime=7) == 10001
    assert listed(startTime=7, endTime=15) == 10001
    assert desk.history(orderId=oldest).ids == [oldest]


def test_history_can_be_narrowed(desk: BybitDesk) -> None:
    [filled], [cancelled] = desk.place(state="filled"), desk.place(state="cancelled", symbol="ETHUSDT")
    [stop] = desk.place(kind="plan", state="cancelled")
    assert desk.history().ids == [stop, cancelled, filled]
    assert desk.history(orderStatus="Cancelled").ids == [cancelled]
    assert desk.history(symbol="BTCUSDT").ids == [stop, filled]
    assert desk.history(orderFilter="StopOrder").ids == [stop]
    assert [answer.ids for answer in pages(desk, "/v5/order/history", limit="2")] == [[stop, cancelled], [filled], []]


# ---- fills


def test_fills_are_listed_newest_first_and_by_order(desk: BybitDesk) -> None:
    [first], [second] = desk.place(size="2", client_id="a-1"), desk.place(symbol="ETHUSDT", side="sell", price="50")
    desk.move(first, "partially_filled", "0.5")
    desk.move(second, "filled")
    desk.move(first, "filled")
    path = "/v5/execution/list"
    answer = desk.get(path, category="spot")
    assert [(row["orderId"], row["execQty"]) for row in answer.rows] == [
        (first, "1.5"),
        (second, "1"),
        (first, "0.5"),
    ]
    assert [(row["feeCurrency"], row["execFee"]) for row in answer.rows] == [
        ("BTC", "0.0015"),
        ("USDT", "0.05"),
        ("BTC", "0.0005"),
    ]
    assert desk.get(path, category="spot", symbol="ETHUSDT").ids == [second]
    assert desk.get(path, category="spot", symbol="ETHUSDT", orderId=first).ids == [first, first]
    assert desk.get(path, category="spot", orderLinkId="a-1").ids == [first, first]
    assert desk.get(path, category="spot", orderId="1").ids == []
    assert [len(page.rows) for page in pages(desk, path, limit="2")] == [2, 1, 0]
    assert desk.get(path, category="spot", limit="101").code == 10001
    desk.clock.advance(ms=7 * DAY_MS + 1)
    assert desk.get(path, category="spot").ids == []
    assert desk.get(path, category="spot", startTime=str(NOW_MS)).ids == [first, second, first]


def test_the_fills_of_a_fired_order_go_by_its_id(desk: BybitDesk) -> None:
    [stop] = desk.place(kind="plan", client_id="stop-1")
    desk.move(desk.move(stop, "triggered"), "filled")
    for params in ({}, {"orderId": stop}, {"orderLinkId": "stop-1"}):
        [row] = desk.get("/v5/execution/list", category="spot", **params).rows
        assert (row["orderId"], row["orderLinkId"], row["stopOrderType"]) == (stop, "stop-1", "Stop")
    assert desk.word(stop) == "Filled"
