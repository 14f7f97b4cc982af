"""Spans of time as people write them."""

import pytest

from cancelq_worker.cli.spans import span_ms
from cancelq_worker.exits import CommandFailed, Exit


@pytest.mark.parametrize(
    ("text", "ms"),
    [("10s", 10_000), ("10", 10_000), ("500ms", 500), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)],
)
def test_what_is_read(text: str, ms: int) -> None:
    assert span_ms(text, "--in", least_ms=0, most_ms=3_600_000) == ms


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 s", "1d", "2h", "1e3", "0.5", "\u0661s"])
def test_what_is_refused_names_the_option_and_the_bounds(text: str) -> None:
    with pytest.raises(CommandFailed, match="--ttl wants a time") as caught:
        span_ms(text, "--ttl", least_ms=1000, most_ms=3_600_000)
    assert caught.value.code is Exit.USAGE
    assert "1s to 1h" in caught.value.remedy
