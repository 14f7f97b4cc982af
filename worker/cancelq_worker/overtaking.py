"""Urgent entries overtake in the inbox.

Entries are admitted in their order, some ten thousand a second: behind a burst of a hundred thousand an urgent one
would wait ten seconds for its turn. So while the inbox is long, each round looks through a part of what lies ahead for
entries that say they are urgent, which costs a fraction of admitting it, and the next round admits them at once. The
ledger remembers which, and the cursor passes them later. An admission that leaves out others than these is refused and
told them: also one that leaves out more, as the server may have lost its last writes, and these entries with them.
"""

from __future__ import annotations

import structlog
from redis.exceptions import RedisError

from cancelq_worker.intake import Intake, entry_order
from cancelq_worker.records import Admitted, Overtaking, Scanned
from cancelq_worker.trips import RawEntry

log = structlog.get_logger("cancelq.lane")

AHEAD_MOST = 500  # entries admitted ahead that the cursor has yet to pass: more would make it no exception


class Overtaker:
    """One lane's view of what lies ahead in its inbox."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._found: list[RawEntry] = []
        self._scanned = "0-0"
        #: Entries ahead of the cursor that were admitted, as far as this worker has heard.
        self.overtaken: set[str] = set()

    @property
    def found(self) -> bool:
        """Whether there is something to be admitted ahead."""
        return bool(self._found)

    def forget(self) -> None:
        """Nothing of what was found is certain any more."""
        self._found, self._scanned = [], "0-0"

    def scan_after(self, admitted: str) -> str | None:
        """Where to look on, with more behind the entry that the admission comes to next; None if enough was found."""
        if self._found or len(self.overtaken) >= AHEAD_MOST:
            return None
        return max(admitted, self._scanned, key=entry_order)

    def scanned(self, result: Scanned | RedisError | None) -> None:
        """What the ledger found ahead."""
        if isinstance(result, Scanned):
            self._scanned, self._found = result.last, result.urgent
        elif result is not None:
            log.error("the inbox could not be looked through", error=str(result)[:200])

    def wanted(self) -> Overtaking | None:
        """What shall be admitted ahead now."""
        if not self._found:
            return None
        overtaking = self._intake.overtake(self._found)
        if not overtaking.entries:
            self._found = []
            return None
        return overtaking

    def overtook(self, wanted: Overtaking, result: Admitted | RedisError | None) -> None:
        """What became of it. Refused by Redis, as when its memory is full, they keep their turn."""
        self._found = []
        if isinstance(result, Admitted):
            self.overtaken.update(wanted.entries)
        else:
            log.error("urgent entries could not be admitted ahead", error=str(result)[:200])

    def passed(self, cursor: str) -> None:
        """The cursor stands there now."""
        if self.overtaken:
            at = entry_order(cursor)
            self.overtaken = {id_ for id_ in self.overtaken if entry_order(id_) > at}
