"""Of which version a lane's data are, and who may touch them.

Every script of a lane looks at the lane's key `version` before anything else (`lua/prelude.lua`) and does nothing if
that is newer than what it was written for, so an older worker cannot harm newer data at any moment. A newer worker
reads older data, and raises the version before it writes anything of its own; but only once no older worker is alive.
Until then it stands by: each version has a roster of its own, so that a worker which stands by watches no lane.
"""

from __future__ import annotations

from typing import Final

from redis.exceptions import ResponseError

#: What this program writes, and the newest it reads. It rises with every change of a lane's data that the program
#: before would misread; then a golden file of the data before is kept (tests/wire/golden/lane-vN.json).
DATA_VERSION: Final = 1

#: How a script's refusal begins, as `lua/prelude.lua` says it; the rest is for people.
NEWER: Final = "NEWER "


class NewerDataError(Exception):
    """The lane's data are of a newer version than this program reads: the lane is left to newer workers."""


class OlderWorkersError(Exception):
    """The lane's data are of an older version, and workers of that version are alive: the lane is theirs until then."""


def is_newer(reply: object) -> bool:
    """Whether a script refused because the lane's data are newer than the script."""
    return isinstance(reply, ResponseError) and str(reply).startswith(NEWER)
