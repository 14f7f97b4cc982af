"""What a run's calls and events come to, in words and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rate.fleet import Fleet, Ledger
from rate.rules import CANCELS, Arrival, Over, Rule, Window, windows

SHOWN = 8


@dataclass(slots=True)
class Verdict:
    """What a scenario found. `figures`: by name, for those who count; `broken`: what must not be."""

    name: str
    lines: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def must(self, holds: bool, line: str) -> None:
        """A promise, kept or broken."""
        self.lines.append(f"{'ok      ' if holds else 'BROKEN  '}{line}")
        if not holds:
            self.broken.append(line)

    def aim(self, holds: bool, line: str) -> None:
        """A figure that was aimed at, reached or missed; a miss breaks no promise."""
        self.lines.append(f"{'ok      ' if holds else 'MISSED  '}{line}")

    def text(self) -> str:
        return "\n".join([f"== {self.name}", *(f"   {line}" for line in self.lines)])


class Load:
    """How busy the machine was while a scenario ran, and with whose work."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._before = _machine_ticks()
        fleet.venue.ask("lag")

    def told(self) -> str:
        busy, whole = (now - then for now, then in zip(_machine_ticks(), self._before, strict=True))
        lag = self._fleet.venue.ask("lag")
        cpu = ", ".join(f"{seconds:.1f}" for seconds in self._fleet.cpu_s())
        return (
            f"machine busy {busy / max(1, whole):.0%}; venue's own lateness p50 {lag['p50']:.1f}, "
            f"p99 {lag['p99']:.1f}, most {lag['most']:.1f} ms; worker CPU {cpu} s"
        )


def _machine_ticks() -> tuple[int, int]:
    """Busy and all ticks of all processors since the machine started."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def judge_windows(
    verdict: Verdict,
    calls: Sequence[Arrival],
    limits: Sequence[Rule],
    ledgers: Iterable[Ledger],
    *,
    shown: int = SHOWN,
    promised: bool = True,
) -> list[Window]:
    """Tells every limit's worst window; one call over a limit is a promise broken, with the evidence. `promised` False:
    nobody can promise it for such ways, so it is only told."""
    found = windows(calls, limits)
    verdict.say(f"calls {len(calls)}: " + ", ".join(f"{name} {n}" for name, n in _counted(calls)))
    words = Counter(call.word for call in calls if call.word != "ok")
    verdict.say("refused: " + (", ".join(f"{word} {n}" for word, n in words.items()) or "none"))
    for window in found:
        _tell_window(verdict, window)
    overs = [over for window in found for over in window.over]
    verdict.figures["over"] = len(overs)
    (verdict.must if promised else verdict.aim)(not overs, f"calls over a limit: {len(overs)}")
    who = _by_order(ledgers)
    for over in overs[:shown]:
        verdict.say(_evidence(over, who))
    return found


def _tell_window(verdict: Verdict, window: Window) -> None:
    """What comes nowhere near its limit is left out."""
    rule = window.rule
    if not window.over and window.worst <= rule.units // 2:
        return
    who = "" if window.account == "*" else f" {window.account}"
    used = "" if window.used is None else f", {window.used:.1%} of the budget used"
    over = f"; {len(window.over)} over, by at most {_most_ms(window.over):.1f} ms" if window.over else ""
    verdict.say(f"{rule.venue}{who} {rule.name}: worst window {window.worst} of {rule.units}{used}{over}")
    waits = window.waits_ms
    if window.worst >= rule.units and len(waits) >= 20 and rule.endpoints and rule.endpoints[0] in CANCELS:
        shares = ", ".join(f"p{share} {waits[len(waits) * share // 100]:.1f}" for share in (10, 50, 90))
        verdict.say(f"    sent after the answer that made room, less the window: {shares}, least {waits[0]:.1f} ms")


def _counted(calls: Sequence[Arrival]) -> list[tuple[str, int]]:
    return sorted(Counter(f"{call.venue} {call.endpoint}" for call in calls).items())


def _most_ms(overs: Sequence[Over]) -> float:
    return max(over.early_us for over in overs) / 1000


def _by_order(ledgers: Iterable[Ledger]) -> Callable[[Arrival], str]:
    """Who made a call, where the events of its orders still tell: the last attempt's worker."""
    found = {order: events[-1] for ledger in ledgers for order, events in ledger.finals.items()}

    def who(call: Arrival) -> str:
        event = next((found[order] for order in call.ids if order in found), None)
        return "?" if event is None else f"{event.get('worker', '?')} ({event.get('batch_id', '?')})"

    return who


def _evidence(over: Over, who: Callable[[Arrival], str]) -> str:
    late, first = over.arrival, over.behind
    waited_ms = (late.read_us - first.back_us) / 1000 if first.back_us else float("nan")
    return (
        f"  early by {over.early_us / 1000:.1f} ms: {late.endpoint} #{late.number}, {len(late.ids)} orders, door "
        f"{late.door}, sent {waited_ms:.1f} ms after the answer of #{first.number}; ways there "
        f"{(late.at_us - late.read_us) / 1000:.1f}, of the other {(first.at_us - first.read_us) / 1000:.1f} and back "
        f"{(first.back_us - first.at_us) / 1000:.1f} ms; by {who(late)} after {who(first)}"
    )


def judge_outcomes(verdict: Verdict, fleet: Fleet, ledgers: Iterable[Ledger], orders: dict[str, list[str]]) -> None:
    """One final event for each intent, and none called cancelled that the venue's books hold open."""
    none, many, false, other = 0, 0, 0, Counter[str]()
    for ledger in ledgers:
        ledger.read()
        truth = fleet.venue.ended(ledger.lane)
        for order in orders[str(ledger.lane)]:
            events = ledger.finals.get(order, [])
            none += not events
            many += len(events) > 1
            for event in events:
                false += event["status"] == "cancelled" and order not in truth
                if event["status"] != "cancelled":
                    other[event["status"]] += 1
    verdict.must(
        not (none or many or false), f"intents without a final event {none}, with several {many}, false {false}"
    )
    if other:
        verdict.say("other outcomes: " + ", ".join(f"{status} {n}" for status, n in other.items()))


def drain(calls: Sequence[Arrival]) -> tuple[float, int]:
    """Seconds from the first cancel's arrival to the last one's, by the machine's clock; and how many there were."""
    times = [call.at_us for call in calls if call.is_cancel]
    return (max(times) - min(times)) / 1e6, len(times)


def best_drain_s(orders: int, per_window: int) -> float:
    """The least time between the first and the last arrival, if a window of one second takes `per_window` orders: what
    goes in the last burst needs no window after it."""
    return float(-(-orders // per_window) - 1)
