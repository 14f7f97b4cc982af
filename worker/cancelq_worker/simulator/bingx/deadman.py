"""BingX's dead man's switch (`trade/cancelAllAfter`): unless it is set anew in time, all open orders go.

They go in batches over some seconds, and while they do the switch can neither be set nor closed, as its page says. How
large the batches are and what is answered meanwhile no page tells.
"""

from datetime import UTC, datetime

from cancelq_worker.simulator.bingx.ask import Ask, Params, one_of, whole
from cancelq_worker.simulator.bingx.codes import SYSTEM_BUSY, Refusal, invalid
from cancelq_worker.simulator.core import Core
from cancelq_worker.simulator.orders import Book, Kind, State

SHORTEST_S, LONGEST_S = 10, 120
AT_ONCE, STEP_US = 50, 500_000


class Deadman:
    """One switch per UID."""

    def __init__(self, core: Core) -> None:
        self._core = core
        # Which setting of a UID's switch counts: whatever an older one scheduled does nothing.
        self._counts: dict[str, int] = {}
        self._firing: set[str] = set()

    def cancel_all_after(self, ask: Ask) -> Params:
        armed = one_of(ask.params, "type", ("ACTIVATE", "CLOSE")) == "ACTIVATE"
        seconds = whole(ask.params, "timeOut") or 0
        if armed and not SHORTEST_S <= seconds <= LONGEST_S:
            raise invalid("timeOut", "min" if seconds < SHORTEST_S else "max")
        uid, book = ask.book.uid, ask.book
        if uid in self._firing:
            raise Refusal(SYSTEM_BUSY)
        number = self._counts.get(uid, 0) + 1
        self._counts[uid] = number
        if not armed:
            return {"triggerTime": 0, "status": "CLOSED", "note": "The timer is closed"}
        self._core.later(self._core.now_us + seconds * 1_000_000, lambda at_us: self._fire(book, number, at_us))
        at_s = self._core.venue_us() // 1_000_000 + seconds
        return {
            "triggerTime": at_s,
            "status": "ACTIVATED",
            "note": (
                "All your spot pending orders will be closed automatically at"
                f" {datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC(+0),before that you can cancel the timer,"
                " or extend triggerTime time by this request"
            ),
        }

    def forget(self) -> None:
        self._counts.clear()
        self._firing.clear()

    def _fire(self, book: Book, number: int, at_us: int) -> None:
        if self._counts.get(book.uid) != number:
            return
        stuck = self._core.settings.stuck_ids
        found = [
            order for kind in Kind for order in book.open_orders(kind) if not {order.order_id, order.client_id} & stuck
        ]
        for order in found[:AT_ONCE]:
            self._core.close(book, order, State.cancelled, at_us, "cancelAllAfter")
        if len(found) > AT_ONCE:
            self._firing.add(book.uid)
            self._core.later(at_us + STEP_US, lambda later_us: self._fire(book, number, later_us))
        else:
            self._firing.discard(book.uid)
