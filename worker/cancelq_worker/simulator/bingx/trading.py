"""BingX's endpoints that cancel. Trigger and TP/SL orders have none of their own: they share ids and endpoints with
normal orders.

A cancel is normally done when it is answered, and the answer is the order. With `cancel_delay_ms` it is done later,
and the answer shows the order as it still is.
"""

from orjson import Fragment

from cancelq_worker.simulator.bingx import codes
from cancelq_worker.simulator.bingx.ask import (
    Ask,
    Params,
    known_pair,
    number_id,
    one_of,
    optional_pair,
    order_id_of,
    text,
)
from cancelq_worker.simulator.bingx.codes import Refusal, invalid
from cancelq_worker.simulator.bingx.rows import Rows
from cancelq_worker.simulator.core import Core, Verdict
from cancelq_worker.simulator.orders import Book, Kind, Order, State

RESTRICTIONS = ("NEW", "PENDING", "PARTIALLY_FILLED")


class Trading:
    """One method per endpoint; each returns the answer's `data` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = Rows(core)

    def cancel(self, ask: Ask) -> Fragment:
        """One order. Of two ids the order id counts; no page says which does."""
        params = ask.params
        pair = known_pair(params, self._core.settings.pairs)
        order_id, client_id = order_id_of(params), text(params, "clientOrderID")
        if not order_id and not client_id:
            raise invalid("orderId", "required")
        wanted = one_of(params, "cancelRestrictions", RESTRICTIONS) if params.get("cancelRestrictions") else ""
        order = self._find(ask, pair, order_id, client_id)
        if order is None:
            raise self._dead(None)
        if order.is_open and wanted and _restriction(order) != wanted:
            self._core.note(order, ask.call, Verdict.unmet)
            raise Refusal(codes.PARAMETER, codes.NOT_RESTRICTED_TO)
        match self._core.cancel(ask.book, order, ask.call, paced=False):
            case Verdict.accepted:
                return self._rows.cancelled(order)
            case Verdict.pending:
                raise Refusal(codes.IN_PROCESS)
            case Verdict.stuck:
                raise Refusal(codes.SYSTEM_BUSY)
            case _:
                raise self._dead(order)

    def cancel_batch(self, ask: Ask) -> Params:
        """Orders of one pair. With `process` 1 each stands for itself and what failed is told in `fails`; with 0, the
        default, nothing is cancelled unless all of them can be.
        """
        params = ask.params
        pair = known_pair(params, self._core.settings.pairs)
        partly = one_of(params, "process", ("0", "1"), "0") == "1"
        by_client, ids = self._batch_ids(params)
        if not partly:
            self._check_all(ask, pair, ids, by_client)
        done: list[Fragment] = []
        failed: list[Params] = []
        refusals: list[Refusal] = []
        for one in ids:
            order = self._find(ask, pair, *(("", one) if by_client else (one, "")))
            verdict = self._core.cancel(ask.book, order, ask.call, paced=False) if order else None
            if order and (verdict is Verdict.accepted or not partly):
                # What lost a race after all of them were found open shows in its own row.
                done.append(self._rows.cancelled(order))
            else:
                failed.append({"orderId": order.order_id if order else one, "error": self._why(one, pair, order)})
                refusals.append(self._dead(order))
        if refusals and not done and self._core.settings.bingx_all_failed == "top":
            raise refusals[0]
        return {"orders": done, "fails": failed} if partly else {"orders": done}

    def cancel_open(self, ask: Ask) -> Params:
        """All open orders of a pair; without a pair, of the account."""
        settings = self._core.settings
        pair = optional_pair(ask.params, settings.pairs)
        done: list[Fragment] = []
        for kind in Kind if settings.bingx_cancel_all_triggers else (Kind.order,):
            for order in list(ask.book.open_orders(kind, pair)):
                if settings.symbol_cancel_miss and self._core.rng.random() < settings.symbol_cancel_miss:
                    continue
                if self._core.cancel(ask.book, order, ask.call, paced=False) is Verdict.accepted:
                    done.append(self._rows.cancelled(order))
        return {"orders": done}

    def _batch_ids(self, params: Params) -> tuple[bool, list[str]]:
        """Whether they are client ids, and the ids."""
        most = self._core.settings.bingx_batch_most
        order_ids, client_ids = text(params, "orderIds"), text(params, "clientOrderIDs")
        if not order_ids and not client_ids:
            raise invalid("orderIds", "required")
        name = "orderIds" if order_ids else "clientOrderIDs"
        ids = [one.strip() for one in (order_ids or client_ids).split(",")]
        if len(ids) > most:
            raise invalid(name, "max")
        return not order_ids, [number_id(one, name) for one in ids] if order_ids else ids

    def _check_all(self, ask: Ask, pair: str, ids: list[str], by_client: bool) -> None:
        for one in ids:
            order = named(self._core, ask.book, *(("", one) if by_client else (one, "")))
            if order is None or order.symbol != pair:
                refusal = self._dead(None)
            elif not order.is_open:
                refusal = self._dead(order)
            elif {order.order_id, order.client_id} & self._core.settings.stuck_ids:
                refusal = Refusal(codes.SYSTEM_BUSY)
            else:
                continue
            ask.call.failed_items += len(ids)
            raise refusal

    # ---- finding

    def _find(self, ask: Ask, pair: str, order_id: str, client_id: str) -> Order | None:
        """The order that is named, or None; what the call missed is noted."""
        order = named(self._core, ask.book, order_id, client_id)
        if order is None:
            ask.call.failed_items += 1
        elif order.symbol != pair:
            self._core.note(order, ask.call, Verdict.not_here)
            return None
        return order

    # ---- refusing

    def _dead(self, order: Order | None) -> Refusal:
        """How a cancel of an order is refused that is not there (None), or not open any more."""
        match self._core.settings.bingx_dead_order:
            case "100421":
                return Refusal(codes.MISMATCH, codes.NO_ORDER_TO_CANCEL)
            case "100404":
                return Refusal(codes.NOT_FOUND, codes.NO_ORDER if order is None else codes.DEAD_ORDER)
            case "100400":
                return Refusal(codes.PARAMETER, codes.DEAD_ORDER)
            case "mixed":
                if order is None:
                    return Refusal(codes.NOT_FOUND, codes.NO_ORDER)
                return Refusal(codes.PARAMETER, codes.DEAD_ORDER)

    def _why(self, one: str, pair: str, order: Order | None) -> str:
        """What a batch tells of an item that failed; there is no code, only one of these two texts."""
        if order is None:
            return f"can not find order for orderId:{one} for symbol: {pair}, please verify and retry later"
        word = self._rows.word(order, order.state)
        return f"the  orderId:{order.order_id} order status :{word},can not delete, please verify and retry later"


def named(core: Core, book: Book, order_id: str, client_id: str) -> Order | None:
    """The order of that id, of whatever kind; by its client id only as long as the venue looks back (2 hours)."""
    if order_id:
        return book.by_id.get(order_id)
    order = book.by_client.get(client_id) or book.plan_by_client.get(client_id)
    if order is None or core.venue_us() - order.created_us > core.settings.client_id_horizon_ms * 1000:
        return None
    return order


def _restriction(order: Order) -> str:
    """The one restriction that an open order meets."""
    if order.state is State.partially_filled:
        return "PARTIALLY_FILLED"
    return "PENDING" if order.kind is Kind.order else "NEW"
