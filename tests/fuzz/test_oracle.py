"""The oracle itself: what the venues' documents say is stated, and the slips that a reader could make are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cancelq_worker.venues.port import Answer, Word
from tests.conformance.suite import written
from tests.conformance.suite.papers import answer, fill
from tests.fuzz.answers import SETTLES, VENUES
from tests.fuzz.oracle import Listed
from tests.fuzz.oracles import ORACLES
from tests.fuzz.question import Named, Question, Swept, question_of

ID, OTHER = "1735964079647111281", "1735964079647111282"
BITGET = Named("order", "BTCUSDT", ID, "")
BINGX = Named("order", "BTC-USDT", ID, "")
MINE = Named("order", "BTCUSDT", "", "mine_1")
PLAN = Named("stop", "", ID, "")


def bitget(rows: Any, named: Named = BITGET, *, code: Any = "00000", status: int = 200, **params: str) -> set[str]:
    path = params.pop("path", "history-orders")
    return _ask("bitget", "GET", path, params, named, {"code": code, "data": rows}, status)


def bybit(rows: Any, named: Named = BITGET, *, code: Any = 0, status: int = 200, **more: str) -> set[str]:
    path = more.pop("path", "history")
    return _ask("bybit", "GET", path, {}, named, {"retCode": code, "result": {"list": rows, **more}}, status)


def bingx(data: Any, named: Named = BINGX, *, path: str = "query", code: Any = 0, status: int = 200) -> set[str]:
    params = {} if path == "abroad" else {"symbol": "BTC-USDT"}
    path = "openOrders" if path == "abroad" else path
    method = "POST" if path.startswith("cancel") else "GET"
    return _ask("bingx", method, path, params, named, {"code": code, "msg": "", "data": data}, status)


def _ask(venue: str, method: str, path: str, params: dict[str, str], named: Named, body: Any, status: int) -> set[str]:
    question = Question(method, path, params, (named,))
    (stated,) = ORACLES[venue].stated(question, Answer(status, {}, json.dumps(body).encode()))
    return set(stated)


def row(status: str, id_: Any = ID, **more: Any) -> dict[str, Any]:
    return {"orderId": id_, "clientOid": "mine_1", "symbol": "BTCUSDT", "status": status, **more}


def by_row(status: str, id_: Any = ID, **more: Any) -> dict[str, Any]:
    return {"orderId": id_, "orderLinkId": "mine_1", "symbol": "BTCUSDT", "orderStatus": status, **more}


def bx_row(status: str, id_: Any = int(ID), **more: Any) -> dict[str, Any]:
    return {"orderId": id_, "symbol": "BTC-USDT", "status": status, "type": "LIMIT", "clientOrderID": "a", **more}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (bitget([row("cancelled")]), {"cancelled"}),
        (bitget([row("filled")]), {"filled"}),
        (bitget([row("reject")]), {"closed"}),
        (bitget([row("live")]), set()),
        (bitget([row("cancelled_by_nobody")]), set()),
        (bitget([row("cancelled", OTHER)]), {"absent"}),
        (bitget([row("cancelled", OTHER)], orderId=ID), set()),
        (bitget([row("cancelled"), row("live")]), set()),
        (bitget([row("cancelled"), "x"]), {"cancelled"}),
        (bitget(["x"]), set()),
        (bitget([]), {"absent"}),
        (bitget(None), set()),
        (bitget([], code="40725"), set()),
        (bitget([], status=400), set()),
        (bitget([row("cancelled")], status=500), set()),
        (bitget([row("cancelled")], code=0), set()),
        (bitget([row("live", str(int(ID) + n)) for n in range(1, 101)]), set()),
        (bitget([row("live", str(int(ID) + 50 - n)) for n in range(100) if n != 50] * 2), {"absent"}),
        (bitget([row("cancelled")], MINE), {"cancelled"}),
        (bitget([row("cancelled", symbol="ETHUSDT")], MINE), set()),
        (bitget([row("live", clientOid=[])], MINE), set()),
        (bitget({"nextFlag": False, "orderList": []}, PLAN, path="history-plan-order"), {"absent"}),
        (bitget({"nextFlag": True, "orderList": []}, PLAN, path="history-plan-order"), set()),
        (bitget([row("live")], tpslType="tpsl"), {"failed"}),
        (bitget([row("cancelled")], tpslType="tpsl"), {"absent"}),
        (bitget([row("odd")], tpslType="tpsl"), set()),
        (bitget(None, code="43001", status=400, path="orderInfo"), {"absent"}),
        (bitget(None, code="45055", status=400, path="orderInfo"), set()),
        (bitget(None, code="43001", status=400), set()),
        (bybit([by_row("Cancelled")]), {"cancelled"}),
        (bybit([by_row("PartiallyFilledCanceled")]), {"cancelled"}),
        (bybit([by_row("Filled", cancelType="CancelByUser")]), {"filled"}),
        (bybit([by_row("cancelled")]), set()),
        (bybit([by_row("Cancelled", OTHER)]), set()),
        (bybit([by_row("Cancelled", 1.735964079647111e18)]), set()),
        (bybit([by_row("Cancelled"), by_row("Filled")]), set()),
        (bybit([]), {"absent"}),
        (bybit([], nextPageCursor="x"), set()),
        (bybit([], category="linear"), set()),
        (bybit([], code=10002), set()),
        (bybit([by_row("Triggered")]), {"triggered"}),
        (bybit([by_row("Triggered")], path="realtime"), set()),
        (bybit([by_row("Cancelled", symbol="ETHUSDT")], MINE), set()),
        (bybit([by_row("New", symbol="ETHUSDT")], Named("order", "BTCUSDT", ID, "", refused=True)), {"failed"}),
        (bybit([by_row("New", symbol="ETHUSDT")]), set()),
        (bingx(bx_row("CANCELED")), {"cancelled"}),
        (bingx(bx_row("PENDING")), set()),
        (bingx(bx_row("CANCELED", int(ID) + 1)), set()),
        (bingx(bx_row("CANCELED", float(ID))), set()),
        (bingx(bx_row("CANCELED", symbol="ETH-USDT")), set()),
        (bingx(bx_row("CANCELED"), path="cancel"), {"cancelled"}),
        (bingx(bx_row("FAILED"), path="cancel"), set()),
        (bingx(bx_row("FAILED")), {"closed"}),
        (bingx(bx_row("FILLED", type="TRIGGER_LIMIT")), {"filled", "triggered"}),
        (bingx({"orders": [bx_row("CANCELED")], "fails": []}, path="cancelOrders"), {"cancelled"}),
        (bingx({"orders": [bx_row("CANCELED")] * 2}, path="cancelOrders"), set()),
        (bingx({"orders": []}, path="openOrders"), {"absent"}),
        (bingx({"orders": [bx_row("NEW", int(ID) + n) for n in range(1, 2001)]}, path="openOrders"), set()),
        (bingx({"orders": [bx_row("NEW", symbol="ETH-USDT")]}, path="abroad"), {"failed"}),
        (bingx({}, path="openOrders"), set()),
    ],
)  # fmt: skip
def test_what_is_stated(said: set[str], meant: set[str]) -> None:
    assert said == meant


@pytest.mark.parametrize(
    ("code", "msg", "meant"),
    [
        ("100404", "order not exist", {"absent"}),
        ("100204", "no data", {"absent"}),
        ("80016", "", {"absent"}),
        ("80018", "order already filled", set()),
        ("100404", "the order is FILLED or CANCELLED already before", set()),
        ("100421", "null timestamp", set()),
        ("100421", "symbol is not available", {"failed"}),
        ("100410", "rate limited", set()),
    ],
)
def test_what_a_refused_look_states_at_bingx(code: str, msg: str, meant: set[str]) -> None:
    body = json.dumps({"code": int(code), "msg": msg}).encode()
    question = Question("GET", "query", {"symbol": "BTC-USDT"}, (BINGX,))
    (stated,) = ORACLES["bingx"].stated(question, Answer(200, {}, body))
    assert stated == meant


def test_what_a_page_says_to_a_sweep() -> None:
    rows = [row("live", "1", cTime="1763690000000"), row("live", "2", cTime="1763690000007")]
    swept = Swept(("order",), "BTCUSDT", 1763690000005, 1763690000006, "")
    question = Question("GET", "unfilled-orders", {}, swept=swept)
    told = ORACLES["bitget"].listed(question, answer({"code": "00000", "data": [*rows, row("live", "3")]}))
    assert told == Listed(True, frozenset("123"), frozenset("13"), frozenset("1"))


@pytest.mark.parametrize("venue", sorted(VENUES))
def test_it_lets_through_what_the_recorded_answers_mean(venue: str) -> None:
    """Else a fuzz would find fault with every adapter."""
    dossier, seen = VENUES[venue], 0
    for of in dossier.papers.cancels:
        if of.names_orders:
            targets = written.targets(dossier, of)
            body = fill(of.body, **written.places(dossier))
            question = question_of(dossier.venue.encode(dossier.route(of.route), targets), targets, frozenset())
            for word, stated in zip(of.words, ORACLES[venue].stated(question, answer(body, of.status)), strict=True):
                seen += 1
                assert word not in SETTLES or SETTLES[word] in stated, of.name
    for look in dossier.papers.looks:
        target = written.look_target(dossier, look)
        question = question_of(dossier.venue.encode(dossier.route(look.route), [target]), [target], frozenset())
        for state, word in dossier.papers.states[look.states].items():
            said = answer(written.body(dossier, look, [written.row(dossier, look, state)]))
            (stated,) = ORACLES[venue].stated(question, said)
            seen += 1
            assert word is Word.OPEN or SETTLES[word] in stated, f"{look.name}: {state}"
    assert seen > 30
