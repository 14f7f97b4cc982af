"""What a change of settings means for a running worker: which lanes go on, which are opened anew, and when the whole
process has to start again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cancelq_worker.settings import Account, Settings

#: What a lane is built with beside its account.
FOR_LANES: Final = ("lease_ms", "urgent_reserve", "max_attempts", "lookup_budget_ms")
#: What may change while the process runs: the above, and what is read when it is used or by other commands alone.
LIVE: Final = frozenset(
    (*FOR_LANES, "accounts", "secrets_dir", "results_keep_days", "dedup_hours", "archive_dir", "rq_lanes", "jobs")
)


def restart_for(before: Settings, after: Settings) -> list[str]:
    """The settings for whose change the process has to start again; none: the lanes can be changed in place."""
    names = Settings.model_fields.keys() - LIVE
    return sorted(name for name in names if getattr(before, name) != getattr(after, name))


def same_for_lanes(before: Settings, after: Settings) -> bool:
    """Whether a lane whose account did not change goes on as it is."""
    return all(getattr(before, name) == getattr(after, name) for name in FOR_LANES)


#: What decides whether the venue and we take a key.
_OF_KEYS: Final = ("api_key", "api_secret", "passphrase", "allow_withdraw_key")


def same_key(before: Account, after: Account) -> bool:
    """Whether two accounts sign alike, and a key that was refused still would be."""
    return all(getattr(before, name) == getattr(after, name) for name in _OF_KEYS)


def compared(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, list[str]]:
    """The names that are new, gone and changed."""
    return {
        "new": sorted(after.keys() - before.keys()),
        "gone": sorted(before.keys() - after.keys()),
        "changed": sorted(name for name in before.keys() & after.keys() if before[name] is not after[name]),
    }
