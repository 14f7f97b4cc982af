"""Bitget's private stream, /v2/ws/private: login, subscriptions, and the channels `orders` and `orders-algo`.

After its pages "Websocket API", "Order Channel" and "Trigger Order Channel". Where captures of clients differ from
them, the captures are followed: codes are numbers, an `unsubscribe` is answered with an event for each channel.
"""

import hmac
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import orjson

from cancelq_worker.simulator.bitget.ask import symbols_of
from cancelq_worker.simulator.bitget.rows import ORDER_WORDS, PLAN_WORDS, traded_at, worth
from cancelq_worker.simulator.happenings import Happening, What
from cancelq_worker.simulator.limits import Rule, Window
from cancelq_worker.simulator.orders import Account, Kind, Order, State, Trade
from cancelq_worker.simulator.streams.session import POLICY, Session, read_object

NAME = "bitget"
PATH = b"/v2/ws/private"
CONNECTS = "bitget/ws-connect"
OPEN = "bitget/ws-open"
MESSAGES = "bitget/ws-messages"
# 300 connections of an IP address in 5 minutes and 100 that are open at once, 10 messages a second of a connection.
RULES = {CONNECTS: Rule(300, 300_000_000), OPEN: Rule(100, 0), MESSAGES: Rule(10, 1_000_000)}
LOGIN_WINDOW_MS = 30_000
# "Websocket server will disconnect the connection if there is no string ping received for 2 min."
IDLE_US = 120_000_000
EVERY_SYMBOL = "default"

# The classic stream's codes, as clients list them; texts of 30001, 30012 and 30015 are captured ones.
NO_CHANNEL = 30001
ILLEGAL = 30002
NO_OP = 30003
NO_LOGIN = 30004
LOGIN_FAILED = 30005
TOO_MANY = 30007
KEY_WRONG = 30011
PASSPHRASE_WRONG = 30012
TIMESTAMP_WRONG = 30013
TIMESTAMP_EXPIRED = 30014
SIGN_WRONG = 30015
PARAMETER_WRONG = 30016
TEXTS = {
    ILLEGAL: "Illegal request",
    NO_OP: "Invalid op",
    NO_LOGIN: "User needs to log in",
    LOGIN_FAILED: "error",
    TOO_MANY: "Request over limit,connection close",
    KEY_WRONG: "Invalid ACCESS_KEY",
    PASSPHRASE_WRONG: "Invalid ACCESS_PASSPHRASE",
    TIMESTAMP_WRONG: "Invalid ACCESS_TIMESTAMP",
    TIMESTAMP_EXPIRED: "Request timestamp expired",
    SIGN_WRONG: "Invalid sign",
    PARAMETER_WRONG: "Param error",
}


class BitgetSession(Session):
    """A topic is `channel/instId`."""

    venue = NAME

    def start_timers(self) -> None:
        super().start_timers()
        self._window = Window(self.core.limiter.rule(MESSAGES))
        self._watch(self.core.now_us + IDLE_US, IDLE_US, "no ping")

    def _heard(self, text: str) -> None:
        if not self._window.admit(self.core.now_us):
            self._error(TOO_MANY)
            self.close(POLICY, TEXTS[TOO_MANY])
            return
        if text == "ping":
            self.heard_us = self.core.now_us
            self.say("pong")
            return
        message = read_object(text)
        args = message.get("args") if message else None
        if message is None or not isinstance(args, list) or not all(isinstance(one, dict) for one in args):
            self._error(ILLEGAL)
            return
        match message.get("op"):
            case "login":
                self._login(args)
            case "subscribe":
                self._subscribe(args)
            case "unsubscribe":
                self._unsubscribe(args)
            case _:
                self._error(NO_OP)

    def _error(self, code: int, text: str = "") -> None:
        self.say({"event": "error", "code": code, "msg": text or TEXTS[code]})

    # ---- login

    def _login(self, args: list[dict[str, Any]]) -> None:
        found = self._proven(args[0]) if args else PARAMETER_WRONG
        if isinstance(found, Account):
            self.admit(found)
            self.say({"event": "login", "code": 0})
            return
        self.admit(None)
        self._error(found)
        if self.core.settings.bitget_stream_hangs_up:
            self.close(POLICY, TEXTS[found])

    def _proven(self, claim: dict[str, Any]) -> Account | int:
        """The account whose login this is, or the code of what is wrong with it.

        The time is read in seconds, as in Bitget's examples, or in milliseconds, as its text has it.
        """
        key, passphrase, stamp, sign = (claim.get(name) for name in ("apiKey", "passphrase", "timestamp", "sign"))
        if not (isinstance(key, str) and isinstance(passphrase, str) and isinstance(sign, str)):
            return PARAMETER_WRONG
        stamp = str(stamp)
        if not (stamp.isascii() and stamp.isdecimal() and len(stamp) in (10, 13)):
            return TIMESTAMP_WRONG
        stamp_ms = int(stamp) * 1000 if len(stamp) == 10 else int(stamp)
        if abs(stamp_ms - self.core.venue_us() // 1000) > LOGIN_WINDOW_MS:
            return TIMESTAMP_EXPIRED
        account = self.core.accounts.get((NAME, key))
        if account is None:
            return KEY_WRONG
        digest = hmac.digest(account.secret.encode(), f"{stamp}GET/user/verify".encode(), "sha256")
        if not hmac.compare_digest(b64encode(digest), sign.encode()):
            return SIGN_WRONG
        if not hmac.compare_digest(passphrase.encode(), account.passphrase.encode()):
            return PASSPHRASE_WRONG
        # What the classic stream tells an account that left for the unified one is not known.
        if account.uta or self.core.settings.stream_refuse_logins:
            return LOGIN_FAILED
        return account

    # ---- subscriptions

    def _subscribe(self, args: list[dict[str, Any]]) -> None:
        if self.account is None:
            self._error(NO_LOGIN)
            return
        for arg in args:
            topic = self._topic(arg)
            if topic is None:
                self._error(NO_CHANNEL, _absent(arg))
            else:
                self.join(topic)
                self.say({"event": "subscribe", "arg": arg})

    def _unsubscribe(self, args: list[dict[str, Any]]) -> None:
        for arg in args:
            topic = self._topic(arg)
            if topic is None:
                self._error(NO_CHANNEL, _absent(arg))
            else:
                self.topics.pop(topic, None)
                self.say({"event": "unsubscribe", "arg": arg})

    def _topic(self, arg: dict[str, Any]) -> str | None:
        channel, inst_id = arg.get("channel"), arg.get("instId", EVERY_SYMBOL)
        if arg.get("instType") != "SPOT" or channel not in ("orders", "orders-algo") or not isinstance(inst_id, str):
            return None
        if inst_id != EVERY_SYMBOL and inst_id not in symbols_of(self.core.settings.pairs):
            return None
        return f"{channel}/{inst_id}"

    # ---- pushes

    def _told(self, happening: Happening) -> Iterator[Any]:
        order = happening.order
        if happening.what is What.cancel_too_late:
            return
        normal = order.kind is Kind.order
        channel = "orders" if normal else "orders-algo"
        for topic, since_us in self.topics.items():
            if happening.at_us < since_us or topic not in (f"{channel}/{order.symbol}", f"{channel}/{EVERY_SYMBOL}"):
                continue
            yield {
                "action": "snapshot",
                "arg": {"instType": "SPOT", "channel": channel, "instId": topic.partition("/")[2]},
                "data": [self._order(order, happening.trade) if normal else self._algo(order)],
                "ts": self.core.venue_us() // 1000,
            }

    def _order(self, order: Order, trade: Trade | None) -> dict[str, Any]:
        buys, limit = order.side == "buy", order.order_type == "limit"
        price = traded_at(order)
        cost = _scaled(worth(order.size, price).rstrip("0").rstrip("."))
        base, quote = symbols_of(self.core.settings.pairs).get(order.symbol, ("", ""))
        coin = base if buys else quote
        return {
            "instId": order.symbol,
            "orderId": order.order_id,
            "clientOid": order.client_id,
            **({"price": order.price} if limit else {}),
            # "When side=buy, it represents the amount of quote coin"; `newSize` does so for market buys only.
            "size": cost if buys else _scaled(order.size),
            "newSize": cost if buys and not limit else _scaled(order.size),
            **({"notional": cost} if buys else {}),
            "orderType": order.order_type,
            "force": "gtc",
            "side": order.side,
            **(_fill(trade, price, coin) if trade is not None else {}),
            "accBaseVolume": _scaled(order.filled),
            "priceAvg": "0.0000" if order.filled == "0" else _scaled(price),
            "status": ORDER_WORDS[order.state],
            "cTime": str(order.created_us // 1000),
            "uTime": str(order.updated_us // 1000),
            "stpMode": "none",
            "feeDetail": [] if order.filled == "0" else [{"feeCoin": coin, "fee": "-0.001"}],
            "enterPointSource": "API",
        }

    def _algo(self, order: Order) -> dict[str, str]:
        fired = order.kind is Kind.tpsl and order.state is State.triggered
        return _algo(order, self.core.settings.bitget_tpsl_triggered if fired else PLAN_WORDS[order.state])


def _fill(trade: Trade, price: str, coin: str) -> dict[str, str]:
    return {
        "fillPrice": _scaled(price),
        "tradeId": str(trade.number),
        "baseVolume": _scaled(trade.size),
        "fillTime": str(trade.at_us // 1000),
        "fillFee": "-0.001",
        "fillFeeCoin": coin,
        "tradeScope": "M",
    }


def _algo(order: Order, status: str) -> dict[str, str]:
    return {
        "instId": order.symbol,
        "orderId": order.order_id,
        "clientOid": order.client_id,
        "triggerPrice": _scaled(order.trigger_price),
        "triggerType": "fill_price",
        "planType": "amount",
        "price": _scaled(order.trigger_price),
        "size": _scaled(order.size),
        "actualSize": _scaled("0"),
        "orderType": order.order_type,
        "side": order.side,
        "status": status,
        "executePrice": _scaled(order.price),
        "enterPointSource": "API",
        "cTime": str(order.created_us // 1000),
        "uTime": str(order.updated_us // 1000),
        "stpMode": "none",
    }


def _scaled(number: str) -> str:
    """At least four decimals, as in captures: nothing filled is "0.0000", never "0"."""
    whole, _, decimals = number.partition(".")
    return f"{whole}.{decimals:0<4}"


def _absent(arg: dict[str, Any]) -> str:
    return f"{orjson.dumps(arg).decode()} doesn't exist"
