"""BingX's own dead man's switch, `trade/cancelAllAfter`: unless it is set anew in time, the venue cancels everything.

Facts from BingX's documents: `type` ACTIVATE or CLOSE, `timeOut` 10 to 120 seconds, 2 calls a second for a user,
counted per address in group 2; while it fires, both are refused, and the orders go in batches over some seconds.
"""

from __future__ import annotations

from typing import Final

from cancelq_worker.venues.bingx.signing import query
from cancelq_worker.venues.port import Answer, Request
from cancelq_worker.venues.reading import object_of, word

PATH: Final = "/openApi/spot/v1/trade/cancelAllAfter"


class BingxTimer:
    """The timer of an account; it holds nothing itself."""

    shortest_s: Final = 10.0
    longest_s: Final = 120.0

    def set_request(self, seconds: int) -> Request:
        """Sets the timer anew. `seconds`: within the venue's bounds."""
        return Request("POST", PATH, query({"type": "ACTIVATE", "timeOut": str(seconds)}))

    def close_request(self) -> Request:
        """Ends the timer, if it has not begun to fire."""
        return Request("POST", PATH, query({"type": "CLOSE", "timeOut": "0"}))

    def refusal(self, answer: Answer) -> str:
        """What the venue said instead of doing it, "" if it did."""
        said = object_of(answer.body)
        if said is None:
            return f"HTTP {answer.status}, and nothing readable"
        code = word(said, "code", 16)
        if code == "0" and answer.status == 200:
            return ""
        return f"HTTP {answer.status} {code} {word(said, 'msg')}".strip()
