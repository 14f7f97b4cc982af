"""A dossier: what the suite must know of a venue to hold its adapter to the rules of the port.

Most of it is facts from the venue's documents (`Papers`, read from `answers/<venue>/`), so that an adapter is held
against what the venue writes, never against our own simulation of it. The simulation comes in only where orders have to
live and die: `World`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from pydantic import SecretStr

from cancelq_worker.venues.kind import VenueKind
from cancelq_worker.venues.port import Answer, Route, Signed, Target, Venue
from tests.conformance.suite.papers import Papers, papers_of

Fields = dict[str, str]


@dataclass(frozen=True, slots=True)
class TestAccount:
    """An account's settings with keys that belong to nobody."""

    __test__ = False

    base_url: str
    api_key: SecretStr
    api_secret: SecretStr
    passphrase: SecretStr | None
    demo: bool = False
    batch_size: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)


class World(Protocol):
    """A simulated venue in process, on a clock that stands still, with one account under the dossier's keys.

    Kinds are `order`, `tpsl` and `stop`; states `live`, `partially_filled`, `filled`, `cancelled`, `triggered`.
    """

    def move_to(self, utc_us: int) -> None:
        """Moves the clock forward to that time."""
        ...

    def now_ms(self) -> int:
        """The venue's own clock."""
        ...

    def add(
        self, kind: str = "order", state: str = "live", *, symbol: str, client_id: str = "", created_ms: int
    ) -> str:
        """Enters an order; returns its id."""
        ...

    def send(self, signed: Signed) -> Answer:
        """The answer to a call that arrives now."""
        ...

    def state(self, order_id: str) -> str:
        """What has truly become of an order."""
        ...

    def child(self, order_id: str) -> str:
        """The order that a trigger placed, "" if none."""
        ...

    def refuses_cancels(self, order_id: str) -> None:
        """From now on the venue will not cancel this order, and says so."""
        ...

    def ignores_cancels(self, order_id: str) -> None:
        """From now on the venue acknowledges cancels of this order and does not carry them out."""
        ...

    def fills_first(self, order_id: str) -> None:
        """The next cancel of this order loses against a fill, or against the trigger."""
        ...

    def paths(self) -> list[str]:
        """The paths of all calls so far."""
        ...


@dataclass(frozen=True, slots=True)
class Names:
    """The venue's names for what a call is about, wherever in query or body they stand. `id_lists`: parameters whose
    value is several ids between commas."""

    ids: frozenset[str]
    symbols: frozenset[str]
    id_lists: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, repr=False)
class Dossier:
    """One venue under test.

    `names_by`: for each scope it serves, by which fields an order can be named; `sweeps`: which kinds of orders its
    sweeps take; `needs_symbol`: of the scopes that the contract lets through without a pair, those that do not work so;
    `only_if`: whether it offers that. `symbol` and `other_symbol` are two pairs in its spelling, `foreign_symbols` the
    first of them in the spelling of others. `bulk`: the paths that cancel without naming orders. `pads`: notes this
    venue's looks may have left, besides those every venue has. `ws_url`: an address of its order stream.
    """

    name: str
    kind: VenueKind
    names: Names
    world: Callable[[Dossier], World]
    symbol: str
    other_symbol: str
    foreign_symbols: tuple[str, ...]
    names_by: Mapping[str, tuple[str, ...]]
    sweeps: tuple[str, ...] = ("order", "tpsl", "stop")
    needs_symbol: frozenset[str] = frozenset()
    only_if: bool = False
    order_id: str = "1735964079647111281"  # does not survive a double
    other_id: str = "1735965127519326209"
    client_id: str = "mine_1"
    other_client_id: str = "mine_2"
    bulk: frozenset[str] = frozenset()
    pads: tuple[Mapping[str, Any], ...] = ()
    ws_url: str = "wss://stream.example/private"

    def __repr__(self) -> str:
        return self.name

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As hypothesis prints it."""
        printer.text(self.name)

    @property
    def papers(self) -> Papers:
        return papers_of(self.name)

    @cached_property
    def venue(self) -> Venue:
        """One for all tests: an adapter holds no state."""
        return self.open()

    def open(self, **settings: Any) -> Venue:
        """The venue with test keys."""
        keys = self.papers.keys
        passphrase = SecretStr(keys.passphrase) if keys.passphrase else None
        base_url = self.kind.place.base_url
        account = TestAccount(base_url, SecretStr(keys.key), SecretStr(keys.secret), passphrase, **settings)
        return self.kind.open(account)

    def route(self, name: str) -> Route:
        """A route by name. An error names those there are, for whoever wrote a recorded answer."""
        routes = {route.name: route for route in self.venue.routes}
        assert name in routes, f"{self.name} has no route {name!r}; there are {', '.join(routes)}"
        return routes[name]

    # -- intents ------------------------------------------------------------------------------------------------

    def intent(self, scope: str = "order", by: str = "order_id", **more: str) -> Fields:
        """The fields of an intent as admission passes them on. `by`: order_id, client_order_id, both, or ""."""
        fields = {"scope": scope, "priority": "normal", **more}
        if scope == "symbol" or (scope != "account" and "symbol" not in more):
            fields.setdefault("symbol", self.symbol)
        if scope in ("symbol", "account"):
            return {"kinds": "order", **fields}
        if by in ("order_id", "both"):
            fields.setdefault("order_id", self.order_id)
        if by in ("client_order_id", "both"):
            fields.setdefault("client_order_id", self.client_id)
        return fields

    def intents(self) -> list[Fields]:
        """One intent of every sort this venue serves."""
        made = [self.intent(scope, by) for scope, names in self.names_by.items() for by in names]
        made += [self.intent(scope, kinds=kinds) for scope in ("symbol", "account") for kinds in self.sweep_kinds()]
        made += [self.intent("symbol", older_than_ms="1"), self.intent("account", client_prefix="mm-")]
        if self.only_if:
            made += [self.intent(by=by, only_if="NEW") for by in self.names_by["order"]]
        return made

    def sweep_kinds(self) -> list[str]:
        """What `kinds` may say here."""
        return [*self.sweeps, ",".join(self.sweeps)] if len(self.sweeps) > 1 else list(self.sweeps)

    def target(self, fields: Mapping[str, str], notes: Mapping[str, Any] | None = None) -> Target:
        return Target(fields, dict(notes or {}))
