"""The keys to BingX's order stream: a key is got, kept and given up over HTTP, and opens a websocket.

Each is good for an hour from when it was made or last prolonged. To prolong or give up one, the answer is its HTTP
status: 200, 204 if none was named, 404 if there is none such ("Extend Listen Key Validity").
"""

from typing import NamedTuple

import orjson

from cancelq_worker.simulator.bingx.ask import Ask, text
from cancelq_worker.simulator.core import Core
from cancelq_worker.simulator.faults import Reply
from cancelq_worker.simulator.orders import Account

VALID_US = 3_600_000_000


class _Held(NamedTuple):
    account: Account
    until_us: int


class ListenKeys:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._held: dict[str, _Held] = {}

    def create(self, ask: Ask) -> Reply:
        listen_key = f"{self._core.rng.getrandbits(256):064x}"
        self._held[listen_key] = _Held(ask.account, self._core.now_us + VALID_US)
        return Reply(200, orjson.dumps({"listenKey": listen_key}))

    def extend(self, ask: Ask) -> Reply:
        return self._touched(ask, self._core.now_us + VALID_US)

    def delete(self, ask: Ask) -> Reply:
        return self._touched(ask, self._core.now_us)

    def owner_of(self, listen_key: str) -> Account | None:
        """Whose stream the key opens; None if there is no such key (any more)."""
        self._core.tick()
        held = self._held.get(listen_key)
        if held is None:
            return None
        if held.until_us <= self._core.now_us:
            del self._held[listen_key]
            return None
        return held.account

    def forget(self) -> None:
        self._held.clear()

    def _touched(self, ask: Ask, until_us: int) -> Reply:
        listen_key = text(ask.params, "listenKey")
        if not listen_key:
            return Reply(204, b"")
        owner = self.owner_of(listen_key)
        if owner is None or owner.uid != ask.account.uid:
            return Reply(404, b"")
        self._held[listen_key] = _Held(owner, until_us)
        return Reply(200, b"{}")
