"""What can happen with a cancel: each function adds one such happening to a lane's part of the script."""

from __future__ import annotations

from collections.abc import Callable

from cancelq.contract import Status
from cancelq_worker.demo.markets import ALL_KINDS_PAIR, NO_PAIR, OWN_ORDERS_PAIR, QUIET_PAIR, WHOLE_PAIR
from cancelq_worker.demo.script import Ask, Producer, VenueOrder, Writer

Scene = Callable[[Writer], None]

AN_HOUR_MS = 3_600_000
# What an order of 2023 would be called; all the simulated venues have is younger.
UNKNOWN_ORDER_ID = 1_111_461_743_123_000_000

LIVE = "live, by order id"
URGENT = "live, urgent"
TOO_LATE = "revoke, too late or unknown"
MALFORMED = "malformed entry"
MISSPELT = "pair as another venue spells it"
WRONG_SCOPE = "TP/SL sent as a normal order"
# The scope of an order of that kind.
SCOPES = {"tpsl": "tpsl", "plan": "stop"}


# ---------------------------------------------------------------------------
# One order


def live(writer: Writer) -> None:
    writer.send(_cancel(LIVE, writer, _traded(writer)))


def live_by_client_id(writer: Writer) -> None:
    order = _traded(writer, client_id=writer.market.client_id("cl", writer.number()))
    fields = {"symbol": order.symbol, "client_order_id": order.client_id}
    writer.send(Ask("live, by client id", Status.cancelled, fields, orders=(writer.order(order),)))


def urgent(writer: Writer) -> None:
    writer.send(_cancel(URGENT, writer, _traded(writer), priority="urgent"), by=Producer.hedge)


def asked_twice(writer: Writer) -> None:
    """Two desks want the same order gone."""
    ask = _cancel("live, asked for by two", writer, _traded(writer))
    writer.send(ask, by=Producer.grid)
    writer.send(ask, by=Producer.maker)


def normal(kind: str, expected: Status, state: str = "live", *, fills_first: bool = False) -> Scene:
    """A normal order in some state, by its id."""

    def scene(writer: Writer) -> None:
        order = _traded(writer, state=state, fills_first=fills_first)
        writer.send(_cancel(kind, writer, order, expected))

    return scene


def trigger(kind: str, expected: Status, of: str, state: str = "live") -> Scene:
    """A TP/SL or plan order in some state."""

    def scene(writer: Writer) -> None:
        order = _traded(writer, kind=of, state=state)
        writer.send(_cancel(kind, writer, order, expected, scope=SCOPES[of]))

    return scene


def only_if(kind: str, expected: Status, state: str, wanted: str, says: str = "") -> Scene:
    """A cancel with a condition, which only BingX offers."""

    def scene(writer: Writer) -> None:
        order = _traded(writer, state=state)
        writer.send(_cancel(kind, writer, order, expected, says=says, only_if=wanted))

    return scene


def timed(writer: Writer) -> None:
    in_ms = writer.rng.randrange(1_000, 4_000)
    writer.send(_cancel("timed", writer, _traded(writer), not_before_in_ms=in_ms), place=0.2)


def expired(writer: Writer) -> None:
    writer.send(_cancel("expired before it was queued", writer, _traded(writer), Status.expired, expires_in_ms=-1_000))


# ---------------------------------------------------------------------------
# Orders that are not what the entry says


def unknown_order(writer: Writer) -> None:
    # Early: only after some seconds of looking a worker may say that there is no such order.
    fields = {"symbol": _pair(writer), "order_id": str(UNKNOWN_ORDER_ID + writer.number())}
    writer.send(Ask("unknown order id", Status.not_found, fields), place=0)


def unknown_client_id(writer: Writer) -> None:
    market = writer.market
    fields = {"symbol": market.spelled(QUIET_PAIR), "client_order_id": market.client_id("nobodys", writer.number())}
    writer.send(Ask("unknown client id", Status.not_found, fields), place=0)


def wrong_scope(writer: Writer) -> None:
    order = _traded(writer, kind="tpsl")
    writer.send(_cancel(WRONG_SCOPE, writer, order, Status.rejected, says="send it with scope tpsl"), place=0)


def wrong_pair(writer: Writer) -> None:
    """A good id under another pair than its own, which the worker finds out and names."""
    right = writer.rng.choice(writer.market.trades[1:])
    order = VenueOrder(writer.market.spelled(right))
    wrong = writer.market.spelled(writer.market.trades[0])
    says = f"send it with {'symbol ' if writer.market.hyphen else 'that symbol'}"
    ask = _cancel("good id, another pair", writer, order, Status.rejected, says=says, symbol=wrong)
    writer.send(ask, place=0)


def unknown_pair(writer: Writer) -> None:
    symbol = writer.market.spelled(NO_PAIR)
    ask = _cancel("pair the venue does not have", writer, _traded(writer), Status.rejected, symbol=symbol)
    writer.send(ask)


def misspelled_pair(writer: Writer) -> None:
    """As another venue spells it: refused, and the right spelling named."""
    pair = writer.rng.choice(writer.market.trades)
    order = VenueOrder(writer.market.spelled(pair))
    wrong, says = writer.market.misspelled(pair), f"should be {order.symbol!r}"
    writer.send(_cancel(MISSPELT, writer, order, Status.rejected, says=says, symbol=wrong), by=Producer.desk)


def malformed(fields: dict[str, str], *, names_order: bool = True) -> Scene:
    """An entry the client package would refuse to send; an empty value takes that field away."""

    def scene(writer: Writer) -> None:
        order = _traded(writer)
        position = writer.order(order)
        said = {key: value for key, value in {"symbol": order.symbol, **fields}.items() if value}
        names = position if names_order else None
        ask = Ask(MALFORMED, Status.rejected, said, names=names, spared=(position,))
        writer.send(ask, by=Producer.desk)

    return scene


# ---------------------------------------------------------------------------
# Many orders


def whole_pair(writer: Writer) -> None:
    symbol = writer.market.spelled(WHOLE_PAIR)
    orders = tuple(writer.order(VenueOrder(symbol)) for _ in range(max(5, writer.entries // 100)))
    fields = {"scope": "symbol", "symbol": symbol}
    writer.send(Ask("a whole pair", Status.cancelled, fields, orders=orders), by=Producer.maker)


def own_orders_of_a_pair(writer: Writer) -> None:
    """One strategy's orders of a pair, and only its old ones; it shares the pair with another strategy."""
    market = writer.market
    symbol = market.spelled(OWN_ORDERS_PAIR)

    def some(many: int, whose: str, age_ms: int) -> tuple[int, ...]:
        return tuple(
            writer.order(VenueOrder(symbol, client_id=market.client_id(whose, writer.number()), age_ms=age_ms))
            for _ in range(many)
        )

    ask = Ask(
        "a pair, one desk's old orders",
        Status.cancelled,
        {"scope": "symbol", "symbol": symbol, "client_prefix": market.client_prefix("mm7")},
        orders=some(20, "mm7", AN_HOUR_MS),
        spared=(*some(10, "mm7", 0), *some(10, "mm8", AN_HOUR_MS)),
        older_than_age_ms=AN_HOUR_MS // 2,
    )
    writer.send(ask, by=Producer.hedge)


def all_kinds_of_a_pair(writer: Writer) -> None:
    symbol = writer.market.spelled(ALL_KINDS_PAIR)
    kinds = ("order",) * 10 + ("tpsl",) * 3 + ("plan",) * 5
    orders = tuple(writer.order(VenueOrder(symbol, kind=kind)) for kind in kinds)
    fields = {"scope": "symbol", "symbol": symbol, "kinds": "order,tpsl,stop"}
    writer.send(Ask("a pair, all kinds of order", Status.cancelled, fields, orders=orders), by=Producer.grid)


def whole_account(writer: Writer) -> None:
    """Everything an account has open, of every pair and kind."""
    kinds = ("order",) * max(20, writer.entries) + ("tpsl",) * 3 + ("plan",) * 5
    orders = tuple(writer.order(VenueOrder(_pair(writer), kind=kind)) for kind in kinds)
    fields = {"scope": "account", "kinds": "order,tpsl,stop", "priority": "urgent"}
    writer.send(Ask("a whole account, all kinds", Status.cancelled, fields, orders=orders), by=Producer.maker)


# ---------------------------------------------------------------------------
# Withdrawn and repeated


def revoked(writer: Writer) -> None:
    target = f"later-{writer.number()}"
    ask = _cancel("timed, then revoked", writer, _traded(writer), Status.revoked, id=target, not_before_in_ms=30_000)
    revoke = Ask("revoke, in time", Status.revoked, {"scope": "revoke", "target": target})
    writer.send(ask, revoke, by=Producer.hedge)


def revoked_too_late(writer: Writer) -> None:
    target = f"gone-{writer.number()}"
    ask = _cancel(URGENT, writer, _traded(writer), id=target, priority="urgent")
    revoke = Ask(TOO_LATE, Status.rejected, {"scope": "revoke", "target": target}, after=target)
    writer.send(ask, by=Producer.hedge, place=0)
    writer.send(revoke, by=Producer.hedge, place=1)


def revoked_nothing(writer: Writer) -> None:
    fields = {"scope": "revoke", "target": f"never-sent-{writer.number()}"}
    writer.send(Ask(TOO_LATE, Status.rejected, fields))


def repeated(writer: Writer) -> None:
    """The same id again while the first is under way, as after a lost reply."""
    ask = _cancel(LIVE, writer, _traded(writer), id=f"again-{writer.number()}")
    writer.send(ask, _repeat("repeated id", ask, ask.fields, ask.names))


def repeated_later(writer: Writer) -> None:
    """The same id again after the first has its outcome."""
    ask = _cancel(URGENT, writer, _traded(writer), id=f"again-{writer.number()}", priority="urgent")
    writer.send(ask, by=Producer.hedge, place=0)
    again = _repeat("repeated id", ask, ask.fields, ask.names, after=ask.fields["id"])
    writer.send(again, by=Producer.hedge, place=1)


def id_used_for_another(writer: Writer) -> None:
    """The same id for another order, which nobody may touch then."""
    ask = _cancel(LIVE, writer, _traded(writer), id=f"mixed-up-{writer.number()}")
    other = _traded(writer)
    position = writer.order(other)
    fields = {**ask.fields, "symbol": other.symbol}
    again = _repeat("repeated id, another order", ask, fields, position, spared=(position,), differs=True)
    writer.send(ask, again)


# ---------------------------------------------------------------------------
# What scenes are made of


def _pair(writer: Writer) -> str:
    return writer.market.spelled(writer.rng.choice(writer.market.trades))


def _traded(
    writer: Writer, *, kind: str = "order", state: str = "live", client_id: str = "", fills_first: bool = False
) -> VenueOrder:
    return VenueOrder(_pair(writer), kind, state, client_id, fills_first=fills_first)


# Ends that only the order itself can have; after any other outcome it must be as it was.
_ENDS = (Status.cancelled, Status.filled, Status.triggered, Status.closed)


def _cancel(
    kind: str,
    writer: Writer,
    order: VenueOrder,
    expected: Status = Status.cancelled,
    *,
    says: str = "",
    not_before_in_ms: int | None = None,
    expires_in_ms: int | None = None,
    **fields: str,
) -> Ask:
    """The cancel of one order by its id; fields given by name are added."""
    position = writer.order(order)
    closes = expected in _ENDS
    return Ask(
        kind,
        expected,
        {"symbol": order.symbol, **fields},
        names=position,
        orders=(position,) if closes else (),
        spared=() if closes else (position,),
        says=says,
        not_before_in_ms=not_before_in_ms,
        expires_in_ms=expires_in_ms,
    )


def _repeat(
    kind: str,
    first: Ask,
    fields: dict[str, str],
    names: int | None,
    *,
    spared: tuple[int, ...] = (),
    differs: bool = False,
    after: str = "",
) -> Ask:
    return Ask(kind, Status.duplicate, fields, names=names, spared=spared, repeats=True, differs=differs, after=after)
