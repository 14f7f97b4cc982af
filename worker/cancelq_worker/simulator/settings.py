"""How the simulated venues behave. Everything can be changed while they run."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cancelq_worker.simulator.orders import PLAIN

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Millis = Annotated[int, Field(ge=0, le=3_600_000)]
Limit = Annotated[int, Field(ge=0)] | tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(gt=0)]] | None
Range = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]

DEFAULT_PAIRS = (
    "BTC-USDT",
    "ETH-USDT",
    "SOL-USDT",
    "XRP-USDT",
    "DOGE-USDT",
    "ADA-USDT",
    "TRX-USDT",
    "LTC-USDT",
    "ETH-BTC",
    "BGB-USDT",
)


class Settings(BaseModel):
    """All times in milliseconds. A range is (lowest, highest), drawn evenly. Shares are probabilities, 0 to
    1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pairs: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}-[A-Z0-9]{1,20}$")], ...] = DEFAULT_PAIRS
    """The pairs that are traded, written BASE-QUOTE; each venue spells them its own way."""

    limits: dict[str, Limit] = Field(default_factory=dict)
    """Bucket (`bitget/batch-cancel-order`, or `*` for all that are not named) to a number per the venue's own
    window, to [number, window in ms], or to null: no limit."""

    latency_before_ms: Range = (0, 0)
    """The way to the venue: before a call arrives."""
    latency_after_ms: Range = (0, 0)
    """The way back: before its answer leaves."""
    clock_offset_ms: Annotated[int, Field(ge=-86_400_000, le=86_400_000)] = 0
    """How far the venue's clock is ahead of this machine's."""

    cancel_delay_ms: Millis = 0
    """A cancel is acknowledged at once and executed that much later."""
    symbol_cancel_delay_ms: Millis = 150
    """The same for the cancel of a whole pair: it takes what is open when it is executed."""
    symbol_cancel_miss: Share = 0.0
    """How much of a pair such a cancel leaves open."""
    race_fill: Share = 0.0
    """How many of the orders that are cancelled fill first: within the delay, or just before without one."""
    race_partial: Share = 0.0
    """How many of the others fill by half before they are cancelled."""
    race_fill_ids: frozenset[str] = frozenset()
    """Orders (order or client ids) that always fill first."""
    stuck_ids: frozenset[str] = frozenset()
    """Orders the venue will not cancel although they are open."""
    recancel_gap_ms: Millis = 1_000
    """How soon after a cancel call a second one may name the same order."""

    open_lag_ms: Millis = 0
    """How old the lists of open orders are."""
    history_lag_ms: Millis = 0
    """How long a closed order takes to appear in the history."""
    info_lag_ms: Millis = 0
    """How old the look-up of a single order is."""
    client_id_horizon_ms: Annotated[int, Field(ge=0)] = 7_200_000
    """How old an order may be to be looked up by its client id."""
    history_days: Annotated[int, Field(ge=0, le=3650)] = 90

    bitget_all_failed: Literal["list", "top"] = "list"
    """How Bitget answers a batch of which no item succeeded: with the list, or with the first item's
    error.
    """
    bitget_error_codes: bool = True
    """Whether Bitget's failed items carry `errorCode`, which its own example lacks."""
    bitget_remain_header: bool = True
    """Whether Bitget's answers carry `x-mbx-used-remain-limit`."""
    bitget_query_signed: Literal["either", "raw", "decoded"] = "either"
    """Which form of the query a signature must cover where percent-encoding makes two of it."""
    bitget_tpsl_triggered: Annotated[str, Field(pattern=PLAIN)] = "executed"
    """Bitget's word for a TP/SL order that fired; no source states it."""

    calls_kept: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    """How many calls the log holds before it drops the oldest."""
