"""Bybit's endpoints that tell of the venue and of the caller: what clients read before they start."""

from datetime import UTC, datetime

from cancelq_worker.simulator.bybit import codes
from cancelq_worker.simulator.bybit.ask import Answer, Ask, check_category, optional_symbol, symbols_of, text
from cancelq_worker.simulator.bybit.codes import Refusal
from cancelq_worker.simulator.core import Core
from cancelq_worker.simulator.orders import Right

# "Get API Key Information": permissions of wallet.
WALLET = {Right.transfer: "AccountTransfer", Right.withdraw: "Withdraw"}


class About:
    """One method per endpoint; each returns an `Answer` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def time(self, ask: Ask) -> Answer:
        now_us = self._core.venue_us()
        return Answer({"timeSecond": str(now_us // 1_000_000), "timeNano": str(now_us * 1000)})

    def instruments(self, ask: Ask) -> Answer:
        check_category(ask.params)
        wanted = optional_symbol(ask.params, self._core.settings.pairs)
        rows = [
            {
                "symbol": symbol,
                "baseCoin": base,
                "quoteCoin": quote,
                "innovation": "0",
                "symbolType": "",
                "status": "Trading",
                "marginTrading": "none",
                "stTag": "0",
                "lotSizeFilter": {
                    "basePrecision": "0.000001",
                    "quotePrecision": "0.00000001",
                    "minOrderQty": "0.000001",
                    "maxOrderQty": "1000000",
                    "minOrderAmt": "1",
                    "maxOrderAmt": "100000000",
                },
                "priceFilter": {"tickSize": "0.01"},
            }
            for symbol, (base, quote) in symbols_of(self._core.settings.pairs).items()
            if wanted in (None, symbol)
        ]
        return Answer({"category": "spot", "list": rows})

    def coins(self, ask: Ask) -> Answer:
        pairs = symbols_of(self._core.settings.pairs).values()
        wanted = text(ask.params, "coin")
        names = [name for name in dict.fromkeys(coin for pair in pairs for coin in pair) if wanted in ("", name)]
        return Answer({"rows": [{"name": name, "coin": name, "remainAmount": "0", "chains": []} for name in names]})

    def key_info(self, ask: Ask) -> Answer:
        """Of the key that asks. A unified account (`uta`), as spot batches need; demo accounts have no such page."""
        account = ask.account
        if account.demo:
            raise Refusal(codes.NOT_ON_DEMO)
        read_only = account.key in self._core.settings.bybit_read_only_keys
        spot = ["SpotTrade"] if Right.trade in account.rights else []
        wallet = [word for right, word in WALLET.items() if right in account.rights]
        return Answer(
            {
                "id": ask.book.uid,
                "note": "simulated",
                "apiKey": account.key,
                "readOnly": int(read_only),
                "secret": "",
                "permissions": {"Spot": spot, "Wallet": wallet, "ContractTrade": [], "Options": []},
                "ips": list(account.addresses) or ["*"],
                "type": 1,
                "deadlineDay": 90,
                "expiredAt": _utc(account.expires_ms) if account.expires_ms is not None else "2099-01-01T00:00:00Z",
                "createdAt": "2024-01-01T00:00:00Z",
                "unified": 0,
                "uta": 1,
                "userID": int(ask.book.uid) if ask.book.uid.isdecimal() else 0,
                "inviterID": 0,
                "vipLevel": "No VIP",
                "mktMakerLevel": "0",
                "affiliateID": 0,
                "rsaPublicKey": "",
                "isMaster": True,
                "parentUid": "0",
            }
        )

    def account_info(self, ask: Ask) -> Answer:
        return Answer(
            {
                "marginMode": "REGULAR_MARGIN",
                "updatedTime": "1700000000000",
                # A unified account 2.0.
                "unifiedMarginStatus": 5,
                "dcpStatus": "OFF",
                "timeWindow": 10,
                "smpGroup": 0,
                "isMasterTrader": False,
                "spotHedgingStatus": "OFF",
            }
        )


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
