"""cancelq: ask for orders to be cancelled, and learn what became of each.

    from cancelq import Client

    with Client("redis://127.0.0.1:6379/0") as client:
        ticket = client.submit("bitget:main", symbol="BTCUSDT", order_id="121211212122")
        event = ticket.wait(timeout_s=30)
        print(event.status, event.evidence, event.filled)

`AsyncClient` is the same for asyncio. An intent has an `id`, given or made: sent again with it, it never
leads to a second cancel. Every intent gets exactly one final event; `FINAL` lists how it can end.
`Guard` and `AsyncGuard` are the dead man's switch: a lane whose guard is no longer kept is flattened.
"""

from cancelq.client import AsyncClient, AsyncTicket, Client, Ticket
from cancelq.contract import FINAL, VENUES, Event, Intent, Lane, Scope, Status
from cancelq.errors import (
    BatchIncomplete,
    BrokerDown,
    BrokerRefused,
    CancelqError,
    Conflicting,
    EventError,
    IntentError,
    LaneError,
    NotAccepted,
    OutcomeTimeout,
    Uncertain,
    Unconfirmed,
)
from cancelq.guard import AsyncGuard, Guard

__all__ = [
    "FINAL",
    "VENUES",
    "AsyncClient",
    "AsyncGuard",
    "AsyncTicket",
    "BatchIncomplete",
    "BrokerDown",
    "BrokerRefused",
    "CancelqError",
    "Client",
    "Conflicting",
    "Event",
    "EventError",
    "Guard",
    "Intent",
    "IntentError",
    "Lane",
    "LaneError",
    "NotAccepted",
    "OutcomeTimeout",
    "Scope",
    "Status",
    "Ticket",
    "Uncertain",
    "Unconfirmed",
]
