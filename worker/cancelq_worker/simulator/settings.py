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

    bybit_environment: Literal["any", "main", "demo"] = "any"
    """Which of Bybit's hosts this one stands for. Keys of another environment are refused (10003) by the last two."""
    bybit_read_only_keys: frozenset[str] = frozenset()
    """Keys that Bybit refuses (10005) wherever something is placed or cancelled."""
    bybit_closed_code: Literal["170213", "170142", "170139", "170143", "170190", "110001", "by_state"] = "170213"
    """How Bybit refuses to cancel an order that has ended: always with that code, or with 170139 for a filled one and
    170142 for a cancelled one. No source states which it is."""
    bybit_pending_code: Literal["0", "170212", "170190", "170035"] = "170212"
    """How Bybit answers a second cancel while the first one is not executed yet; 0: acknowledges it again."""
    bybit_failed_ids: Literal["empty", "echo"] = "empty"
    """What a failed item of a Bybit batch holds as its `orderId`: nothing, or the one it was sent with."""
    bybit_batch_spent: Literal["items", "whole"] = "items"
    """How Bybit answers a batch for none of whose orders there is room: item by item, or as a whole."""
    bybit_cancel_all_list: bool = True
    """Whether Bybit's cancel-all lists what it cancels; older answers held `success` only."""
    bybit_limit_headers: bool = True
    """Whether Bybit's answers carry `X-Bapi-Limit` and its kin."""
    bybit_trigger_keeps_id: bool = True
    """Whether a TP/SL or conditional order that fired lives on at Bybit under its own id, as in unified accounts, or
    as a new order, as in classic ones."""
    bybit_race_marks: bool = True
    """Whether Bybit's row of an order that filled after its cancel was acknowledged reads `CancelByUser`."""
    bybit_recent_closed: Annotated[int, Field(ge=0, le=1_000_000)] = 500
    """How many of the orders that ended last Bybit's /v5/order/realtime still knows."""
    bybit_restarted_ms: Annotated[int, Field(ge=0)] = 0
    """When Bybit restarted (venue time, epoch ms): what ended before is not known to /v5/order/realtime."""
    bybit_cancelled_kept_ms: Annotated[int, Field(ge=0)] = 86_400_000
    """How long Bybit's history knows an order that ended without a fill."""

    calls_kept: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    """How many calls the log holds before it drops the oldest."""
