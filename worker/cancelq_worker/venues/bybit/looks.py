"""Looking for an order at Bybit: by its id, in two places, and what a row says of it.

Facts (Bybit API documentation v5, "Get Open & Closed Orders" and "Get Order History"): by id, /v5/order/realtime
shows open orders and the last 500 that ended, of every kind without an orderFilter, until the venue restarts;
/v5/order/history shows what ended, perhaps late, and an order that ended without a fill for 24 hours only. One id per
call, and `orderId` goes before `orderLinkId`. No page of many orders can be aimed at those that wait: an account's
open orders stand on it as well, newest first. So each order is asked for alone; both places together allow a hundred
looks a second, for forty cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cancelq_worker.venues.bybit.codes import NO_SUCH_ORDER
from cancelq_worker.venues.port import NextLook, Reply, Route, Stage, Target, Word
from cancelq_worker.venues.reading import filled, row_id, word
from cancelq_worker.venues.sweeping import kept_of_a_look

SCOPES: Final[tuple[str, ...]] = ("order", "tpsl", "stop")
PLACES: Final[tuple[str, ...]] = ("realtime", "history")

ROUTES: Final = (
    # "any": nothing was looked for yet. The history, where much stands by then, helps out under load.
    Route("realtime", Stage.LOOK, ("any", "realtime"), "realtime"),
    Route("history", Stage.LOOK, ("any", "history"), "history"),
)

#: `orderStatus` (Bybit's enums page; the last three from other clients' tables). `cancelType` and `rejectReason` decide
#: nothing: an order that filled after its cancel was accepted carries those of a cancel.
STATES: Final = {
    "New": Word.OPEN,
    "PartiallyFilled": Word.OPEN,
    "Untriggered": Word.OPEN,
    "Filled": Word.FILLED,
    "Cancelled": Word.CANCELLED,
    "PartiallyFilledCanceled": Word.CANCELLED,
    "Deactivated": Word.CANCELLED,
    "Triggered": Word.TRIGGERED,
    "Rejected": Word.CLOSED,
    "Created": Word.OPEN,
    "Active": Word.OPEN,
    "PendingCancel": Word.OPEN,
}
WAITING: Final = "Untriggered"

#: `stopOrderType` of a spot order → its kind; "" for kinds that no intent can mean.
KINDS: Final = {"tpslOrder": "tpsl", "Stop": "stop", "OcoOrder": "", "BidirectionalTpslOrder": ""}
#: `stopOrderType` of an order without a trigger; both stand in the documents' examples.
PLAIN_TYPES: Final = ("", "UNKNOWN")

_KIND_NAMES: Final = {"order": "a normal order", "tpsl": "a TP/SL order", "stop": "a conditional order"}


def next_look(target: Target) -> NextLook:
    """The two places in turn; each has to be read twice before an order may be called unknown.

    Notes: `n` looks since the last cancel that found nothing, `f` looks that failed, `abs` {place: times absent}."""
    absent, fails = target.notes.get("abs", {}), int(target.notes.get("f", 0))
    if not absent and not fails and target.order_id:
        return NextLook("any")
    done = all(absent.get(place, 0) >= 2 for place in PLACES)
    if fails:  # it is not noted where: in turn, so that neither place is asked for ever
        return NextLook(PLACES[(int(target.notes.get("n", 0)) + fails) % 2], done)
    return NextLook(min(PLACES, key=lambda place: absent.get(place, 0)), done)


def query(target: Target) -> dict[str, str]:
    """The parameters of a look."""
    if target.order_id:
        return {"category": "spot", "orderId": target.order_id}
    if target.client_order_id:
        return {"category": "spot", "orderLinkId": target.client_order_id}
    raise ValueError("a look must name an order")


def failed(route: Route, failure: Reply) -> Reply:
    """A look that brought no list. An unknown order is an empty list here, never a code."""
    kept = failure.word in kept_of_a_look(route)
    failure.word, failure.place = failure.word if kept else Word.UNCLEAR, route.name
    return failure


def read(route: Route, target: Target, result: Any) -> Reply:
    """What the answer to a look says about the order that was asked for."""
    rows = rows_of_list(result)
    if rows is None:
        return Reply(Word.UNCLEAR, text="an answer without a list that can be read", place=route.name)
    mine = [row for row in rows if target.is_named(word(row, "orderId"), word(row, "orderLinkId"))]
    if not mine:
        if rows or word(result, "nextPageCursor"):
            return Reply(Word.UNCLEAR, text="an answer about other orders", place=route.name)
        return Reply(Word.ABSENT, place=route.name)
    if len({(word(row, "orderId"), word(row, "orderStatus")) for row in mine}) > 1:
        return Reply(Word.UNCLEAR, text="an answer that says two things about this order", place=route.name)
    reply = row_reply(mine[0])
    reply.place = route.name
    return _as_asked(target, mine[0], reply)


def rows_of_list(result: Any) -> list[dict[str, Any]] | None:
    """The rows of a list of spot orders; None if there is no list, or something on it that is no row."""
    rows = result.get("list") if isinstance(result, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row_id(row, "orderId") for row in rows):
        return None
    return rows if word(result, "category") in ("", "spot") else None


def row_reply(row: Mapping[str, Any]) -> Reply:
    """What a row of the venue, of a list or of its order stream, says of its order."""
    state = word(row, "orderStatus", 40)
    meaning = STATES.get(state, Word.UNCLEAR)
    return Reply(
        meaning,
        text="" if meaning is not Word.UNCLEAR else f"unknown order state {state!r}",
        order_id=row_id(row, "orderId"),
        client_order_id=row_id(row, "orderLinkId"),
        venue_state=state,
        filled=filled(word(row, "cumExecQty")),
    )


def row_kind(row: Mapping[str, Any]) -> str | None:
    """An open order's kind: order, tpsl, stop; "" for one that no intent can mean; None if its row does not tell.
    An order that fired keeps its id and its `stopOrderType`, but is a normal order from then on."""
    state = word(row, "orderStatus", 40)
    if STATES.get(state) is not Word.OPEN:
        return None
    if state != WAITING:
        return "order"
    return KINDS.get(word(row, "stopOrderType"))


def order_keys(scope: str, symbol: str, order_id: str, client_order_id: str) -> tuple[str, ...]:
    """The keys of an order in a lane's index, by each id that is known. The pair belongs to both: an intent that names
    another is refused by the venue, and must not take with it one that names the right pair."""
    keys = []
    if order_id:
        keys.append(f"{scope}:i:{symbol}:{order_id}")
    if client_order_id:
        keys.append(f"{scope}:c:{symbol}:{client_order_id}")
    return tuple(keys)


def _as_asked(target: Target, row: Mapping[str, Any], reply: Reply) -> Reply:
    """The row's word, seen from what the intent took the order for."""
    symbol = word(row, "symbol", 32)
    elsewhere = bool(symbol) and symbol != target.symbol
    if reply.word is Word.OPEN and _was_refused(target):
        if elsewhere:
            return _failed(reply, f"symbol: this id is an order of {symbol}; send it with that symbol")
        return _other_kind(target, row, reply)
    if reply.word is Word.TRIGGERED and target.scope == "order" and reply.place == "realtime":
        # Passing, before it works in the book under its own id. Where it is the end, the history says so.
        return Reply(Word.UNCLEAR, text="the order is just firing", place=reply.place, venue_state=reply.venue_state)
    if elsewhere and not target.order_id:
        return Reply(Word.UNCLEAR, text=f"that client id stands at an order of {symbol}", place=reply.place)
    return reply


def _was_refused(target: Target) -> bool:
    """Whether the last cancel was answered with "no such order". Only then does an open order mean that the intent
    names it wrongly; after an acknowledgement or a silence it may just not be cancelled yet."""
    return target.notes.get("call", {}).get("code") in NO_SUCH_ORDER


def _other_kind(target: Target, row: Mapping[str, Any], reply: Reply) -> Reply:
    """An open order that the scope of the intent cannot cancel, if its row tells so for sure."""
    kind, told = row_kind(row), row.get("stopOrderType")
    stop_type = told if isinstance(told, str) else None
    if kind is None or kind == target.scope:
        return reply
    if kind == "order" and stop_type not in PLAIN_TYPES:
        if KINDS.get(stop_type or "") != target.scope:
            return reply
        # It fired, and lives on as a normal order under its own id, which nobody asked to cancel.
        reply.word, reply.child_order_id = Word.TRIGGERED, reply.order_id
        return reply
    if not kind:
        return _failed(reply, f"scope: this id is of type {stop_type}, which no scope covers; cancel it at Bybit")
    return _failed(reply, f"scope: this id is {_KIND_NAMES[kind]}, still open; send it with scope {kind}")


def _failed(reply: Reply, text: str) -> Reply:
    reply.word, reply.text = Word.FAILED, text
    return reply
