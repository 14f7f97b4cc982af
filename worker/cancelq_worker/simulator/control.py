"""The control API under /sim/: prepare accounts and orders, order misbehaviour, read the truth. No
signature.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from cancelq_worker.simulator.core import DuplicateOrderError, Entry, ImpossibleMoveError
from cancelq_worker.simulator.faults import HUGE_BYTES, Fault, UnknownFaultError
from cancelq_worker.simulator.limits import UnknownBucketError
from cancelq_worker.simulator.orders import PLAIN, Account, Kind, Order, Right, State
from cancelq_worker.simulator.simulator import (
    DEMO_UID,
    Page,
    Simulator,
    UnknownOrderError,
    UnknownPairError,
    UnknownVenueError,
)

PAGE = 10_000
# In 2084; the ids hold the time a little longer.
LATEST_MS = 3_600_000_000_000

Name = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=128)]
Id = Annotated[str, Field(max_length=64, pattern=PLAIN)]
Amount = Annotated[str, Field(pattern=r"^\d{1,24}(\.\d{1,18})?$")]

REFUSALS = (
    ValidationError,
    orjson.JSONDecodeError,
    DuplicateOrderError,
    ImpossibleMoveError,
    UnknownBucketError,
    UnknownFaultError,
    UnknownOrderError,
    UnknownPairError,
    UnknownVenueError,
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AccountBody(_Body):
    """POST /sim/accounts: adds a key, or replaces it."""

    venue: Name = "bitget"
    key: Name
    secret: Name
    passphrase: Text = ""
    uid: Annotated[str, Field(min_length=1, max_length=32, pattern=PLAIN)]
    demo: bool = False
    uta: bool = False
    rights: frozenset[Right] = frozenset({Right.trade})
    addresses: tuple[Id, ...] = ()
    expires_ms: Annotated[int, Field(ge=0, le=LATEST_MS)] | None = None


class OrderBody(_Body):
    """One order of POST /sim/orders. `created_ms` and `closed_ms` are venue time."""

    symbol: Name = "BTCUSDT"
    kind: Kind = Kind.order
    state: State = State.live
    side: Annotated[str, Field(pattern="^(buy|sell)$")] = "buy"
    order_type: Annotated[str, Field(pattern="^(limit|market)$")] = "limit"
    price: Amount = "100"
    size: Amount = "1"
    filled: Amount | None = None
    trigger_price: Amount = "90"
    order_id: Annotated[str, Field(pattern=r"^([1-9]\d{0,18})?$")] = ""
    client_id: Id = ""
    created_ms: Annotated[int, Field(ge=0, le=LATEST_MS)] | None = None
    closed_ms: Annotated[int, Field(ge=0, le=LATEST_MS)] | None = None


class OrdersBody(_Body):
    """POST /sim/orders: `orders` one by one, or `count` copies of `like`; their client ids grow from
    `client_prefix`.
    """

    venue: Name = "bitget"
    uid: Name = DEMO_UID
    orders: list[OrderBody] = Field(default_factory=list, max_length=1_000_000)
    count: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    like: OrderBody = OrderBody()
    client_prefix: Annotated[str, Field(max_length=32, pattern=PLAIN)] = ""


class MoveBody(_Body):
    order_id: Name
    state: State
    filled: Amount | None = None


class MovesBody(_Body):
    """POST /sim/moves: what the market does to open orders."""

    venue: Name = "bitget"
    uid: Name = DEMO_UID
    moves: list[MoveBody]


class StreamsBody(_Body):
    """POST /sim/streams: breaks the connections of private order streams, of one venue or of all."""

    drop: Literal[True]
    venue: Name | None = None


class FaultBody(_Body):
    """POST /sim/faults: see `Fault` for the meaning of each field."""

    kind: Name
    endpoint: Text = ""
    order_id: Text = ""
    uid: Text = ""
    count: Annotated[int, Field(ge=1)] | None = 1
    probability: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    execute: bool | None = None
    delay_ms: Annotated[int, Field(ge=0, le=600_000)] | None = None
    size_bytes: Annotated[int, Field(ge=0, le=1_000_000_000)] = HUGE_BYTES


Handler = Callable[[HttpRequest], Awaitable[Any]]


def control_app(simulator: Simulator) -> Starlette:
    """The ASGI app for the paths under /sim/."""
    control = _Control(simulator)
    return Starlette(
        routes=[
            _route("POST", "accounts", control.add_account),
            _route("POST", "orders", control.add_orders),
            _route("POST", "moves", control.move_orders),
            _route("GET", "settings", control.settings),
            _route("POST", "settings", control.configure),
            _route("GET", "faults", control.faults),
            _route("POST", "faults", control.add_fault),
            _route("DELETE", "faults", control.clear_faults),
            _route("GET", "truth", control.truth),
            _route("GET", "calls", control.calls),
            _route("GET", "rates", control.rates),
            _route("GET", "streams", control.streams),
            _route("POST", "streams", control.drop_streams),
            _route("POST", "reset", control.reset),
        ]
    )


def _route(method: str, name: str, handler: Handler) -> Route:
    async def answer(request: HttpRequest) -> Response:
        try:
            data = await handler(request)
        except REFUSALS as error:
            return _json({"error": _told(error)}, 400)
        return _json(data, 200)

    return Route(f"/sim/{name}", answer, methods=[method], name=f"{method} {name}")


def _json(data: Any, status: int) -> Response:
    return Response(orjson.dumps(data), status, media_type="application/json")


def _told(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    told = ("{}: {}".format(".".join(str(part) for part in one["loc"]), one["msg"]) for one in error.errors())
    return "; ".join(told)


class _Control:
    """One method per path; what it returns is the answer."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def add_account(self, request: HttpRequest) -> Any:
        body = AccountBody.model_validate_json(await request.body())
        self._simulator.add_account(Account(**body.model_dump()))
        return {"venue": body.venue, "uid": body.uid}

    async def add_orders(self, request: HttpRequest) -> Any:
        body = OrdersBody.model_validate_json(await request.body())
        orders = [self._add(body, one, one.client_id) for one in body.orders]
        for number in range(body.count):
            client_id = f"{body.client_prefix}{number}" if body.client_prefix else ""
            orders.append(self._add(body, body.like, client_id))
        return {
            "orders": [
                {
                    "order_id": order.order_id,
                    "client_id": order.client_id,
                    "symbol": order.symbol,
                    "child_id": order.child_id,
                }
                for order in orders
            ]
        }

    def _add(self, body: OrdersBody, one: OrderBody, client_id: str) -> Order:
        entry = Entry(
            symbol=one.symbol,
            kind=one.kind,
            side=one.side,
            order_type=one.order_type,
            price=one.price,
            size=one.size,
            client_id=client_id,
            trigger_price="" if one.kind is Kind.order else one.trigger_price,
            order_id=one.order_id,
            created_ms=one.created_ms,
        )
        return self._simulator.add_order(
            entry, venue=body.venue, uid=body.uid, state=one.state, filled=one.filled, closed_ms=one.closed_ms
        )

    async def move_orders(self, request: HttpRequest) -> Any:
        body = MovesBody.model_validate_json(await request.body())
        orders = [
            self._simulator.move_order(move.order_id, move.state, venue=body.venue, uid=body.uid, filled=move.filled)
            for move in body.moves
        ]
        return {
            "orders": [
                {"order_id": order.order_id, "state": order.state, "child_id": order.child_id} for order in orders
            ]
        }

    async def settings(self, request: HttpRequest) -> Any:
        return self._simulator.core.settings.model_dump(mode="json")

    async def configure(self, request: HttpRequest) -> Any:
        changes = orjson.loads(await request.body())
        return self._simulator.configure(changes if isinstance(changes, dict) else {"": changes}).model_dump(
            mode="json"
        )

    async def add_fault(self, request: HttpRequest) -> Any:
        body = FaultBody.model_validate_json(await request.body())
        return {"id": self._simulator.add_fault(Fault(**body.model_dump()))}

    async def faults(self, request: HttpRequest) -> Any:
        return {
            "faults": [
                {
                    "id": fault.id,
                    "kind": fault.kind,
                    "endpoint": fault.endpoint,
                    "order_id": fault.order_id,
                    "uid": fault.uid,
                    "left": fault.count,
                    "hits": fault.hits,
                }
                for fault in self._simulator.core.faults.listed()
            ]
        }

    async def clear_faults(self, request: HttpRequest) -> Any:
        self._simulator.core.faults.clear()
        return {}

    async def truth(self, request: HttpRequest) -> Any:
        query = request.query_params
        ids = query.get("ids")
        if ids is not None:
            page = self._simulator.truth_of(
                ids.split(","), venue=query.get("venue", "bitget"), uid=query.get("uid", DEMO_UID)
            )
        else:
            page = self._simulator.truth(
                venue=query.get("venue"),
                uid=query.get("uid"),
                after=_count(request, "after", 0),
                limit=_count(request, "limit", PAGE),
            )
        return _paged("orders", page)

    async def calls(self, request: HttpRequest) -> Any:
        page = self._simulator.calls(after=_count(request, "after", 0), limit=_count(request, "limit", PAGE))
        return _paged("calls", page)

    async def rates(self, request: HttpRequest) -> Any:
        return {"rates": self._simulator.rates()}

    async def streams(self, request: HttpRequest) -> Any:
        return self._simulator.streams.report()

    async def drop_streams(self, request: HttpRequest) -> Any:
        body = StreamsBody.model_validate_json(await request.body())
        return {"dropped": self._simulator.drop_streams(body.venue)}

    async def reset(self, request: HttpRequest) -> Any:
        self._simulator.reset()
        return {}


def _paged(name: str, page: Page) -> dict[str, Any]:
    return {name: page.entries, "next": page.next, "dropped": page.dropped}


def _count(request: HttpRequest, name: str, default: int) -> int:
    value = request.query_params.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() else default
