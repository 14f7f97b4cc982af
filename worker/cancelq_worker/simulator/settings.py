"""How the simulated venues behave. Everything can be changed while they run."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cancelq_worker.simulator.orders import PLAIN

VenueName = Annotated[str, Field(pattern="^(bitget|bybit|bingx)$")]
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
    cancel_delay_of_ms: dict[VenueName, Millis] = Field(default_factory=dict)
    """The same for single venues, by name, where they differ from that."""
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
    deaf_ids: frozenset[str] = frozenset()
    """Orders of which it acknowledges a cancel that never comes to anything."""
    recancel_gap_ms: Millis = 1_000
    """How soon after a cancel call a second one may name the same order; of the three only Bitget minds."""

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

    bingx_read_only_keys: frozenset[str] = frozenset()
    """Keys that BingX refuses (100004) wherever something is placed or cancelled."""
    bingx_rights_bare: bool = False
    """Whether BingX tells a key's rights without the envelope of its other answers, as in captures."""
    bingx_batch_most: Annotated[int, Field(ge=1, le=10_000)] = 10
    """How many ids BingX's cancelOrders takes; no source states it."""
    bingx_all_failed: Literal["list", "top"] = "list"
    """How BingX answers a batch with `process` 1 of which no item succeeded: with the list, or with the first item's
    error."""
    bingx_order_ids: Literal["number", "text"] = "number"
    """How BingX's rows write order ids: as numbers, as documented, or as texts, as one sample does."""
    bingx_dead_order: Literal["mixed", "100404", "100400", "100421"] = "mixed"
    """How BingX refuses to cancel an order that does not exist or has ended: always with that code, or with 100404 for
    the first and 100400 for the second. Sources show all of them."""
    bingx_unknown_order: Literal["100404", "100204"] = "100404"
    """How BingX answers a look-up of an order it does not know."""
    bingx_query_kept_ms: Annotated[int, Field(ge=0)] | None = None
    """How long BingX's look-up still knows an order that has ended; null: for ever. No source tells."""
    bingx_cancel_all_triggers: bool = True
    """Whether BingX's cancelOpenOrders takes trigger and TP/SL orders along; no source tells."""
    bingx_open_most: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """How many rows BingX's openOrders holds at most."""
    bingx_list_client_ids: bool = True
    """Whether the rows of BingX's lists carry `clientOrderID`, which the tables of their fields lack."""
    bingx_history_order: Literal["newest", "oldest"] = "newest"
    """Which end of BingX's history its first page holds."""
    bingx_partial: Literal["PARTIALLY_FILLED", "PENDING"] = "PARTIALLY_FILLED"
    """BingX's word for an open order of which a part has filled; a sample shows the second one."""
    bingx_cancelled: Literal["CANCELED", "CANCELLED"] = "CANCELED"
    """BingX's word for a cancelled order."""
    bingx_triggered: Annotated[str, Field(pattern=PLAIN)] = "FILLED"
    """BingX's word for a trigger or TP/SL order that fired; no source states it."""
    bingx_error_status: Literal[200, 400] = 200
    """The HTTP status of BingX's refusals; no source states it."""
    bingx_limit_status: Literal[200, 429] = 200
    """The HTTP status of BingX's answer to a call over a UID's limit; over an address' limit it is 429."""
    bingx_limit_headers: bool = True
    """Whether BingX's answers carry `X-RateLimit-Requests-Remain` and `-Expire`."""
    bingx_limit_expiry: Literal["left", "epoch"] = "left"
    """What `X-RateLimit-Requests-Expire` tells: how many ms are left of the window, as captured, or when it ends."""
    bingx_rate_block_ms: Millis = 0
    """How long a call over a UID's limit closes the endpoint for it; 0: not at all, its text is `rate limited`."""
    bingx_error_lock_count: Annotated[int, Field(ge=0)] = 20
    """So many equal errors of a UID at an endpoint lock it for that UID; 0: no number does."""
    bingx_error_lock_window_ms: Millis = 480_000
    """Within what time they have to come."""
    bingx_error_lock_ms: Millis = 300_000
    """How long the lock lasts."""

    stream_loss: Share = 0.0
    """How many pushes of the private order streams never leave."""
    stream_delay_ms: Millis = 0
    """How long after the change a push leaves."""
    stream_jitter_ms: Millis = 0
    """Up to how much longer, drawn for each push: so one may overtake another."""
    stream_repeat: Share = 0.0
    """How many pushes are sent twice."""
    stream_foreign: Share = 0.0
    """How many pushes come behind one about an order of another account."""
    stream_garbage: Share = 0.0
    """How many pushes come behind a frame that no client can read."""
    stream_refuse_logins: bool = False
    """Whether the streams refuse every login. Connections that are logged in stay so."""
    stream_silence: Literal["none", "pushes", "all"] = "none"
    """What open connections no longer say: pushes, or anything at all, pongs included."""

    bitget_stream_hangs_up: bool = True
    """Whether Bitget's stream closes the connection after a refused login, as its page says; a capture of its newer
    stream shows it open."""
    bingx_stream_ping: Literal["json", "text"] = "json"
    """The heartbeat of BingX's stream: an object, as captured on spot, or the text `Ping`, as on swap."""
    bingx_stream_ids: Literal["mixed", "number", "text"] = "mixed"
    """How BingX's stream writes order ids; captures show both."""

    calls_kept: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    """How many calls the log holds before it drops the oldest."""
