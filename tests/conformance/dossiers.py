"""The venues the suite holds to its rules: those of the registry, and the example of docs/ADDING-A-VENUE.md."""

from __future__ import annotations

from typing import Final

from cancelq_worker.venues.bingx.kind import KIND as BINGX
from cancelq_worker.venues.bitget.kind import KIND as BITGET
from cancelq_worker.venues.bybit.kind import KIND as BYBIT
from tests.conformance.example_venue.adapter import KIND as EXAMPLE
from tests.conformance.example_venue.exchange import ToyExchange
from tests.conformance.suite.dossier import Dossier, Names
from tests.conformance.suite.simulated import SimulatedWorld

_ONE_ID: Final = ("order_id", "client_order_id", "both")
_TRIGGERS: Final = frozenset({"tpsl", "stop"})

DOSSIERS: Final = (
    Dossier(
        name="bitget",
        kind=BITGET,
        names=Names(ids=frozenset({"orderId", "clientOid"}), symbols=frozenset({"symbol"})),
        world=SimulatedWorld,
        symbol="BTCUSDT",
        other_symbol="ETHUSDT",
        foreign_symbols=("BTC-USDT", "BTC_USDT", "btcusdt"),
        names_by={"order": _ONE_ID, "tpsl": ("order_id",), "stop": _ONE_ID},
        bulk=frozenset({"/api/v2/spot/trade/cancel-symbol-order", "/api/v2/spot/trade/batch-cancel-plan-order"}),
        pads=({"walk": {"walk-open": {"end": True}, "walk-history": {"pages": 1, "at": "1735964079647111281"}}},),
    ),
    Dossier(
        name="bybit",
        kind=BYBIT,
        names=Names(ids=frozenset({"orderId", "orderLinkId"}), symbols=frozenset({"symbol"})),
        world=SimulatedWorld,
        symbol="BTCUSDT",
        other_symbol="ETHUSDT",
        foreign_symbols=("BTC-USDT", "BTC_USDT", "btcusdt"),
        names_by={"order": _ONE_ID, "tpsl": _ONE_ID, "stop": _ONE_ID},
        needs_symbol=_TRIGGERS,
        bulk=frozenset({"/v5/order/cancel-all"}),
    ),
    Dossier(
        name="bingx",
        kind=BINGX,
        names=Names(
            ids=frozenset({"orderId", "clientOrderID", "orderIds", "clientOrderIDs"}),
            symbols=frozenset({"symbol"}),
            id_lists=frozenset({"orderIds", "clientOrderIDs"}),
        ),
        world=SimulatedWorld,
        symbol="BTC-USDT",
        other_symbol="ETH-USDT",
        foreign_symbols=("BTCUSDT", "BTC_USDT", "btc-usdt"),
        names_by={"order": _ONE_ID, "tpsl": _ONE_ID, "stop": _ONE_ID},
        needs_symbol=_TRIGGERS,
        only_if=True,
        bulk=frozenset({"/openApi/spot/v1/trade/cancelOpenOrders"}),
        pads=(
            {"mute": 1},
            {"paged": 1},
            {"cut": 1},
            {"walk": {"by": "i", "at": 2}},
            {"walk": {"by": "c", "at": 2}},
            {"walk": {"by": "c", "at": 101}},
        ),
    ),
    Dossier(
        name="example",
        kind=EXAMPLE,
        names=Names(ids=frozenset({"id", "mine"}), symbols=frozenset({"pair"})),
        world=ToyExchange,
        symbol="btc_usdt",
        other_symbol="eth_usdt",
        foreign_symbols=("BTCUSDT", "BTC-USDT", "BTC_USDT"),
        names_by={"order": _ONE_ID},
        sweeps=("order",),
    ),
)
