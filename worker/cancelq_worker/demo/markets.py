"""The lanes the demo serves: which account stands behind each, and how its venue wants to be spoken to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cancelq.contract import Lane
from cancelq_worker.venues.registry import KINDS


@dataclass(frozen=True, slots=True)
class Market:
    """One lane, with an account of its own at its simulated venue. Pairs are written BASE-QUOTE, as in `trades`;
    `spelled` writes them as the venue does."""

    lane: Lane
    uid: str
    #: What strategies trade here. Each other pair has one use, so that the cancel of a whole pair hits nobody else.
    trades: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"demo-key-{self.uid}"

    @property
    def secret(self) -> str:
        return f"demo-secret-{self.uid}"

    @property
    def passphrase(self) -> str:
        """Text where the venue wants one, else ""."""
        return f"demo-pass-{self.uid}" if KINDS[self.lane.venue].place.needs_passphrase else ""

    @property
    def stream_path(self) -> str:
        """The path of the venue's private order stream, on whatever host; "" if it has none."""
        return urlsplit(KINDS[self.lane.venue].place.ws_url or "").path

    @property
    def hyphen(self) -> bool:
        """Whether the venue writes a hyphen into its pairs (and none into client ids)."""
        return self.lane.venue == "bingx"

    @property
    def reply_proves(self) -> bool:
        """Whether an answer to a cancel can state the order's end. Elsewhere it is an acknowledgement."""
        return self.lane.venue == "bingx"

    @property
    def keeps_ids(self) -> bool:
        """Whether the order that a trigger places goes by the trigger's own id."""
        return self.lane.venue == "bybit"

    @property
    def locked_at(self) -> int:
        """So many equal errors within eight minutes lock an endpoint; 0: no number does."""
        return 20 if self.lane.venue == "bingx" else 0

    def spelled(self, pair: str) -> str:
        return pair if self.hyphen else pair.replace("-", "")

    def misspelled(self, pair: str) -> str:
        """As another venue writes it."""
        return pair.replace("-", "") if self.hyphen else pair

    def client_id(self, desk: str, number: int) -> str:
        """A client id that the venue takes; those of one desk begin alike."""
        return f"{self.client_prefix(desk)}{number}"

    def client_prefix(self, desk: str) -> str:
        return desk + ("_" if self.hyphen else "-")


SIX: Final = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT", "DOGE-USDT", "ADA-USDT")
WHOLE_PAIR: Final = "LTC-USDT"
OWN_ORDERS_PAIR: Final = "TRX-USDT"
ALL_KINDS_PAIR: Final = "BGB-USDT"
QUIET_PAIR: Final = "ETH-BTC"
NO_PAIR: Final = "NOSUCH-USDT"

BITGET: Final = Market(Lane("bitget", "main"), "2001", SIX)
BYBIT: Final = Market(Lane("bybit", "main"), "2002", SIX)
# A call is about one pair there: with fewer of them the batches are fuller.
BINGX: Final = Market(Lane("bingx", "main"), "2003", SIX[:3])
# The cancel of everything there is must hit nobody else.
SECOND: Final = Market(Lane("bitget", "second"), "2004", SIX)

MARKETS: Final = (BITGET, BYBIT, BINGX, SECOND)
