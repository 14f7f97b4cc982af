"""The worlds of the three simulated venues: our simulator in process, on a clock that is moved by hand."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from cancelq_worker.simulator import Account, Entry, Kind, ManualClock, Request, Settings, Simulator, State
from cancelq_worker.venues.port import Answer, Signed
from tests.conformance.suite.dossier import Dossier
from tests.unit.journey import UTC_US

UID = "1000"
KINDS = {"order": Kind.order, "tpsl": Kind.tpsl, "stop": Kind.plan}


class SimulatedWorld:
    """One account of one venue of the simulator, without limits: a journey alone cannot exceed any."""

    def __init__(self, dossier: Dossier, **settings: Any) -> None:
        self._venue = dossier.name
        self._clock = ManualClock(UTC_US // 1000)
        given = {"limits": {"*": None}, "symbol_cancel_delay_ms": 0, **settings}
        self.simulator = Simulator(clock=self._clock, rng=random.Random(1), settings=Settings.model_validate(given))
        keys = dossier.papers.keys
        self.simulator.add_account(Account(self._venue, keys.key, keys.secret, keys.passphrase, UID))
        self._special: defaultdict[str, set[str]] = defaultdict(set)

    def move_to(self, utc_us: int) -> None:
        self._clock.advance(us=max(0, utc_us - self._clock.wall_us()))

    def now_ms(self) -> int:
        return self._clock.wall_us() // 1000

    def add(
        self, kind: str = "order", state: str = "live", *, symbol: str, client_id: str = "", created_ms: int
    ) -> str:
        trigger = {} if kind == "order" else {"trigger_price": "90"}
        entry = Entry(symbol=symbol, kind=KINDS[kind], client_id=client_id, created_ms=created_ms, **trigger)
        return self.simulator.add_order(entry, venue=self._venue, state=State(state)).order_id

    def send(self, signed: Signed) -> Answer:
        call = signed.request
        headers = {name.lower().encode(): value.encode() for name, value in signed.headers.items()}
        request = Request(call.method, call.path.encode(), call.query.encode(), headers, call.body)
        reply = self.simulator.call(request)
        told = {name.decode().lower(): value.decode() for name, value in reply.headers}
        return Answer(reply.status, {"content-type": reply.content_type.decode(), **told}, reply.body)

    def state(self, order_id: str) -> str:
        return str(self._truth(order_id)["state"])

    def child(self, order_id: str) -> str:
        return str(self._truth(order_id)["child_id"] or "")

    def refuses_cancels(self, order_id: str) -> None:
        self._set("stuck_ids", order_id)

    def ignores_cancels(self, order_id: str) -> None:
        self._set("deaf_ids", order_id)

    def fills_first(self, order_id: str) -> None:
        self._set("race_fill_ids", order_id)

    def paths(self) -> list[str]:
        return [call["endpoint"] for call in self.simulator.calls().entries]

    def _set(self, setting: str, order_id: str) -> None:
        """Adds an order to those of a setting."""
        self._special[setting].add(order_id)
        self.simulator.configure({setting: self._special[setting]})

    def _truth(self, order_id: str) -> dict[str, Any]:
        (entry,) = self.simulator.truth_of([order_id], venue=self._venue).entries
        return dict(entry)
