"""A simulation that finds nothing proves nothing: with one line of a script spoilt, some seed breaks its promise."""

import pytest

from tests.simulation.run import run
from tests.simulation.world import Plan

#: What is spoilt: the line as it is, what stands in its place, and the promise that some seed breaks then.
SPOILT = {
    "a repeated id is a new intent": ("local known, digest = e.known, e.known_digest", "local known, digest", "2"),
    "a permit is free as soon as it was answered": (
        "free = steady - ago + window - fastest_us",
        "free = steady - ago - fastest_us",
        "6",
    ),
    "a permit is not written down": ("if units > 0 then redis.call('ZADD', bucket.key, unpack(permits)) end", "", "6"),
    "an attempt is not counted": ("w[ATTEMPTS], w[CALL] = text(w[ATTEMPTS] + 1), told", "w[CALL] = told", "5"),
    "what goes on is queued nowhere": ("queue_later(queue, id, due)", "", "1"),
}
SEEDS = 60


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_spoilt_is_found(what: str) -> None:
    line, instead, promise = SPOILT[what]
    hits = 0

    def spoil(source: bytes) -> bytes:
        nonlocal hits
        hits += source.count(line.encode())
        return source.replace(line.encode(), instead.encode())

    for seed in range(SEEDS):
        plan = Plan.of_rate(seed, 4.0) if promise == "6" else Plan.of(seed, 0.5)
        broken = {one.promise for one in run(plan, loading_as=spoil).broken}
        if promise in broken:
            break
    else:
        pytest.fail(f"{SEEDS} seeds did not see that {what}")
    assert hits, "the scripts have no such line any more"
