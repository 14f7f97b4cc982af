"""What the demo sends: every kind of cancel the contract knows, in shares as on a busy day.

Pure: a script is drawn from a size and a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from cancelq.contract import Lane, Status
from cancelq_worker.demo.script import Ask, Producer, Script, VenueOrder, Writer
from cancelq_worker.exits import CommandFailed, Exit

LANE = Lane("bitget", "main")

LEAST = 150
MOST = 100_000

# Strategies trade these. Each other pair has one use, so that the cancel of a whole pair hits nobody else.
TRADED = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT")
WHOLE_PAIR = "LTCUSDT"
OWN_ORDERS_PAIR = "TRXUSDT"
ALL_KINDS_PAIR = "BGBUSDT"
QUIET_PAIR = "ETHBTC"

AN_HOUR_MS = 3_600_000
# What an order of 2023 would be called; all the simulated venue has is younger.
UNKNOWN_ORDER_ID = 1_111_461_743_123_000_000

LIVE = "live, by order id"
URGENT = "live, urgent"
TOO_LATE = "revoke, too late or unknown"
MALFORMED = "malformed entry"


def write_script(entries: int, seed: int = 1) -> Script:
    """A script of exactly so many entries. Raises `CommandFailed` for a number it cannot do."""
    if not LEAST <= entries <= MOST:
        raise CommandFailed(
            f"the demo sends {LEAST} to {MOST:,} cancels, not {entries:,}: it wants some of every kind",
            f"cancelq demo --orders {min(max(entries, LEAST), MOST)}",
            Exit.USAGE,
        )
    writer = Writer(random.Random(seed), entries)
    for per_thousand, scene in SCENES:
        for _ in range(max(1, per_thousand * entries // 1000)):
            scene(writer)
    while writer.written < entries:
        _live(writer)
    return writer.script()


# ---------------------------------------------------------------------------
# Scenes: each adds one happening of its kind


def _live(writer: Writer) -> None:
    writer.send(_cancel(LIVE, writer, _traded(writer)))


def _live_by_client_id(writer: Writer) -> None:
    order = _traded(writer, client_id=f"cl-{writer.number()}")
    fields = {"symbol": order.symbol, "client_order_id": order.client_id}
    writer.send(Ask("live, by client id", Status.cancelled, fields, orders=(writer.order(order),)))


def _urgent(writer: Writer) -> None:
    writer.send(_cancel(URGENT, writer, _traded(writer), priority="urgent"), by=Producer.hedge)


def _asked_twice(writer: Writer) -> None:
    """Two desks want the same order gone."""
    ask = _cancel("live, asked for by two", writer, _traded(writer))
    writer.send(ask, by=Producer.grid)
    writer.send(ask, by=Producer.maker)


def _normal(kind: str, expected: Status, state: str = "live", *, fills_first: bool = False) -> Callable[[Writer], None]:
    """A normal order in some state, by its id."""

    def scene(writer: Writer) -> None:
        order = _traded(writer, state=state, fills_first=fills_first)
        writer.send(_cancel(kind, writer, order, expected))

    return scene


def _trigger(kind: str, expected: Status, of: str, state: str = "live") -> Callable[[Writer], None]:
    """A TP/SL or plan order in some state."""

    def scene(writer: Writer) -> None:
        position = writer.order(_traded(writer, kind=of, state=state))
        fields = {"scope": {"tpsl": "tpsl", "plan": "stop"}[of]}
        writer.send(Ask(kind, expected, fields, names=position, orders=(position,)))

    return scene


def _unknown_order(writer: Writer) -> None:
    # Early: only after some seconds of looking a worker may say that there is no such order.
    fields = {"symbol": writer.rng.choice(TRADED), "order_id": str(UNKNOWN_ORDER_ID + writer.number())}
    writer.send(Ask("unknown order id", Status.not_found, fields), place=0)


def _unknown_client_id(writer: Writer) -> None:
    fields = {"symbol": QUIET_PAIR, "client_order_id": f"nobodys-{writer.number()}"}
    writer.send(Ask("unknown client id", Status.not_found, fields), place=0)


def _wrong_scope(writer: Writer) -> None:
    order = _traded(writer, kind="tpsl")
    writer.send(_cancel("TP/SL sent as a normal order", writer, order, Status.rejected), place=0)


def _unknown_pair(writer: Writer) -> None:
    order = _traded(writer)
    writer.send(_cancel("pair the venue does not have", writer, order, Status.rejected, symbol="NOSUCHUSDT"))


def _whole_pair(writer: Writer) -> None:
    orders = tuple(writer.order(VenueOrder(WHOLE_PAIR)) for _ in range(max(5, writer.entries // 100)))
    fields = {"scope": "symbol", "symbol": WHOLE_PAIR}
    writer.send(Ask("a whole pair", Status.cancelled, fields, orders=orders), by=Producer.maker)


def _own_orders_of_a_pair(writer: Writer) -> None:
    """One strategy's orders of a pair, and only its old ones; it shares the pair with another strategy."""

    def some(many: int, whose: str, age_ms: int) -> tuple[int, ...]:
        return tuple(
            writer.order(VenueOrder(OWN_ORDERS_PAIR, client_id=f"{whose}-{writer.number()}", age_ms=age_ms))
            for _ in range(many)
        )

    ask = Ask(
        "a pair, one desk's old orders",
        Status.cancelled,
        {"scope": "symbol", "symbol": OWN_ORDERS_PAIR, "client_prefix": "mm7-"},
        orders=some(20, "mm7", AN_HOUR_MS),
        spared=(*some(10, "mm7", 0), *some(10, "mm8", AN_HOUR_MS)),
        older_than_age_ms=AN_HOUR_MS // 2,
    )
    writer.send(ask, by=Producer.hedge)


def _all_kinds_of_a_pair(writer: Writer) -> None:
    kinds = ("order",) * 10 + ("tpsl",) * 3 + ("plan",) * 5
    orders = tuple(writer.order(VenueOrder(ALL_KINDS_PAIR, kind=kind)) for kind in kinds)
    fields = {"scope": "symbol", "symbol": ALL_KINDS_PAIR, "kinds": "order,tpsl,stop"}
    writer.send(Ask("a pair, all kinds of order", Status.cancelled, fields, orders=orders), by=Producer.grid)


def _timed(writer: Writer) -> None:
    in_ms = writer.rng.randrange(1_000, 4_000)
    writer.send(_cancel("timed", writer, _traded(writer), not_before_in_ms=in_ms), place=0.2)


def _expired(writer: Writer) -> None:
    writer.send(_cancel("expired before it was queued", writer, _traded(writer), Status.expired, expires_in_ms=-1_000))


def _revoked(writer: Writer) -> None:
    target = f"later-{writer.number()}"
    ask = _cancel("timed, then revoked", writer, _traded(writer), Status.revoked, id=target, not_before_in_ms=30_000)
    revoke = Ask("revoke, in time", Status.revoked, {"scope": "revoke", "target": target})
    writer.send(ask, revoke, by=Producer.hedge)


def _revoked_too_late(writer: Writer) -> None:
    target = f"gone-{writer.number()}"
    ask = _cancel(URGENT, writer, _traded(writer), id=target, priority="urgent")
    revoke = Ask(TOO_LATE, Status.rejected, {"scope": "revoke", "target": target}, after=target)
    writer.send(ask, by=Producer.hedge, place=0)
    writer.send(revoke, by=Producer.hedge, place=1)


def _revoked_nothing(writer: Writer) -> None:
    fields = {"scope": "revoke", "target": f"never-sent-{writer.number()}"}
    writer.send(Ask(TOO_LATE, Status.rejected, fields))


def _repeated(writer: Writer) -> None:
    """The same id again while the first is under way, as after a lost reply."""
    ask = _cancel(LIVE, writer, _traded(writer), id=f"again-{writer.number()}")
    writer.send(ask, _repeat("repeated id", ask, ask.fields, ask.names))


def _repeated_later(writer: Writer) -> None:
    """The same id again after the first has its outcome."""
    ask = _cancel(URGENT, writer, _traded(writer), id=f"again-{writer.number()}", priority="urgent")
    writer.send(ask, by=Producer.hedge, place=0)
    again = _repeat("repeated id", ask, ask.fields, ask.names, after=ask.fields["id"])
    writer.send(again, by=Producer.hedge, place=1)


def _id_used_for_another(writer: Writer) -> None:
    """The same id for another order, which nobody may touch then."""
    ask = _cancel(LIVE, writer, _traded(writer), id=f"mixed-up-{writer.number()}")
    other = _traded(writer)
    position = writer.order(other)
    fields = {**ask.fields, "symbol": other.symbol}
    again = _repeat("repeated id, another order", ask, fields, position, spared=(position,), differs=True)
    writer.send(ask, again)


def _malformed(fields: dict[str, str], *, names_order: bool = True) -> Callable[[Writer], None]:
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
# What scenes are made of


def _traded(
    writer: Writer, *, kind: str = "order", state: str = "live", client_id: str = "", fills_first: bool = False
) -> VenueOrder:
    return VenueOrder(writer.rng.choice(TRADED), kind, state, client_id, fills_first=fills_first)


# Ends that only the order itself can have; after any other outcome it must be as it was.
_ENDS = (Status.cancelled, Status.filled, Status.closed)


def _cancel(
    kind: str,
    writer: Writer,
    order: VenueOrder,
    expected: Status = Status.cancelled,
    *,
    not_before_in_ms: int | None = None,
    expires_in_ms: int | None = None,
    **fields: str,
) -> Ask:
    """The cancel of one normal order by its id; fields given by name are added."""
    position = writer.order(order)
    closes = expected in _ENDS
    return Ask(
        kind,
        expected,
        {"symbol": order.symbol, **fields},
        names=position,
        orders=(position,) if closes else (),
        spared=() if closes else (position,),
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


# How often of a thousand entries, but at least once; 0: exactly once. What is left are plain live orders.
SCENES: tuple[tuple[int, Callable[[Writer], None]], ...] = (
    (150, _live_by_client_id),
    (12, _urgent),
    (4, _asked_twice),
    (60, _normal("partly filled", Status.cancelled, "partially_filled")),
    (10, _normal("fills just before its cancel", Status.filled, fills_first=True)),
    (40, _normal("already cancelled", Status.cancelled, "cancelled")),
    (40, _normal("already filled", Status.filled, "filled")),
    (4, _normal("turned down by the venue", Status.closed, "failed")),
    (5, _unknown_order),
    (1, _unknown_client_id),
    (8, _trigger("TP/SL, live", Status.cancelled, "tpsl")),
    (2, _trigger("TP/SL, triggered", Status.triggered, "tpsl", "triggered")),
    (2, _trigger("TP/SL, already cancelled", Status.cancelled, "tpsl", "cancelled")),
    (12, _trigger("plan order, live", Status.cancelled, "plan")),
    (3, _trigger("plan order, executed", Status.triggered, "plan", "triggered")),
    (3, _trigger("plan order, already cancelled", Status.cancelled, "plan", "cancelled")),
    (1, _trigger("plan order, failed", Status.closed, "plan", "failed")),
    (0, _whole_pair),
    (0, _own_orders_of_a_pair),
    (0, _all_kinds_of_a_pair),
    (10, _timed),
    (6, _expired),
    (6, _revoked),
    (1, _revoked_too_late),
    (1, _revoked_nothing),
    (6, _repeated),
    (1, _repeated_later),
    (2, _id_used_for_another),
    (1, _wrong_scope),
    (1, _unknown_pair),
    (1, _malformed({"symbol": ""})),
    (1, _malformed({}, names_order=False)),
    (1, _malformed({"priority": "asap"})),
    (1, _malformed({"oder_id": "121211212122"})),
    (1, _malformed({"symbol": "BTC-USDT"})),
    (1, _malformed({"id": "1795228645342-12"})),
    (1, _malformed({f"x_note_{n}": "far too long " * 50 for n in range(8)})),
)

# The rows of the audit, in their order.
KINDS = (
    *(LIVE, "live, by client id", URGENT, "live, asked for by two", "partly filled", "timed"),
    *("fills just before its cancel", "already cancelled", "already filled", "turned down by the venue"),
    *("TP/SL, live", "TP/SL, triggered", "TP/SL, already cancelled"),
    *("plan order, live", "plan order, executed", "plan order, already cancelled", "plan order, failed"),
    *("a whole pair", "a pair, one desk's old orders", "a pair, all kinds of order"),
    *("expired before it was queued", "timed, then revoked", "revoke, in time", TOO_LATE),
    *("unknown order id", "unknown client id", "TP/SL sent as a normal order", "pair the venue does not have"),
    *(MALFORMED, "repeated id", "repeated id, another order"),
)
