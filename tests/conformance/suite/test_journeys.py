"""Whatever has become of an order, and however an intent names it: its outcome is the truth."""

from __future__ import annotations

import pytest

from cancelq.contract import Status
from cancelq_worker.venues.port import Answer, Request, Stage, Word
from tests.conformance.suite.cases import NEVER_CANCELLED, Fate, Naming
from tests.conformance.suite.dossier import Dossier, World
from tests.conformance.suite.journeys import OLD_MS, TRUE_END, Spoil, travel
from tests.conformance.suite.test_routes import serving

#: What may come instead of the answer to the first cancel, which was executed.
UNREADABLE = {
    "a gateway's page": lambda said: Answer(502, {}, b"<html><h1>502 Bad Gateway</h1></html>"),
    "nothing": lambda said: Answer(200, {}, b""),
    "an empty object": lambda said: Answer(200, {}, b"{}"),
    "half of it": lambda said: Answer(said.status, said.headers, said.body[: len(said.body) // 2]),
    "another status": lambda said: Answer(302, said.headers, said.body),
}


def test_the_outcome_is_what_became_of_the_order(dossier: Dossier, fate: Fate) -> None:
    check_outcome(dossier, fate)


@pytest.mark.parametrize("instead", UNREADABLE)
def test_an_answer_that_cannot_be_read_does_not_change_the_outcome(dossier: Dossier, fate: Fate, instead: str) -> None:
    first: list[Request] = []

    def spoil(request: Request, said: Answer) -> Answer:
        if request.method == "GET" or first:
            return said
        first.append(request)
        return UNREADABLE[instead](said)

    check_outcome(dossier, fate, spoil)


def check_outcome(dossier: Dossier, fate: Fate, spoil: Spoil | None = None) -> None:
    world = dossier.world(dossier)
    others = [world.add(symbol=pair, created_ms=OLD_MS) for pair in (dossier.symbol, dossier.other_symbol)]
    client_id = "" if fate.by == "order_id" else dossier.client_id
    order_id = enter(dossier, world, fate.scope, fate.life, client_id=client_id)
    fields = {**dossier.intent(fate.scope, fate.by), **_named(fate.by, order_id)}
    end, journey = travel(dossier, world, fields, spoil)
    truth = world.state(order_id)
    assert end.status is TRUE_END[truth], f"{truth}, but {end.status}: {end.detail}"
    assert (truth == "live") == (fate.life in NEVER_CANCELLED), "what could be cancelled was cancelled"
    if end.status is Status.triggered:
        assert world.state(world.child(order_id)) == "live", "what it placed was not touched"
    assert {world.state(other) for other in others} == {"live"}, "nothing else was touched"
    assert len(journey.cancels()) <= journey.judge.policy.max_attempts


def test_an_order_that_never_existed_is_not_found(dossier: Dossier, naming: Naming) -> None:
    world = dossier.world(dossier)
    bystander = world.add(symbol=dossier.symbol, created_ms=OLD_MS)
    end, journey = travel(dossier, world, dossier.intent(naming.scope, naming.by))
    assert end.status is Status.not_found, f"{end.status}: {end.detail}"
    assert world.state(bystander) == "live"
    assert journey.calls[-1].back_us - journey.calls[0].sent_us >= journey.judge.policy.lookup_budget_us


def test_an_order_that_cannot_be_looked_for_is_unresolved(dossier: Dossier, naming: Naming) -> None:
    """It is gone, and every list and look-up is down: nobody knows."""
    world = dossier.world(dossier)
    gone = enter(dossier, world, naming.scope, "cancelled", client_id=dossier.client_id)
    fields = {**dossier.intent(naming.scope, naming.by), **_named(naming.by, gone)}
    end, _ = travel(dossier, world, fields, lambda call, said: Answer(502, {}, b"") if call.method == "GET" else said)
    assert end.status is Status.unresolved, end


@pytest.mark.parametrize("by", ["order_id", "client_order_id"])
def test_a_dead_order_in_a_batch_keeps_no_other_from_being_cancelled(dossier: Dossier, by: str) -> None:
    venue = dossier.venue
    kind = venue.cancel_class(dossier.target(dossier.intent(by=by)))
    for route in (route for route in serving(venue, Stage.CANCEL, kind) if route.most > 1):
        world = dossier.world(dossier)
        states = ("live", "cancelled", "live", "filled")
        made = [(state, f"mine_{n}") for n, state in enumerate(states)]
        ids = [world.add("order", s, symbol=dossier.symbol, client_id=c, created_ms=OLD_MS) for s, c in made]
        names = ids if by == "order_id" else [client_id for _, client_id in made]
        named = [dossier.target(dossier.intent(by=by, **{by: name})) for name in names]
        said = world.send(venue.sign(venue.encode(route, named), world.now_ms()))
        words = [reply.word for reply in venue.decode(route, named, said)]
        assert [world.state(order_id) for order_id in ids] == ["cancelled", "cancelled", "cancelled", "filled"]
        assert {words[0], words[2]} <= {Word.ACKNOWLEDGED, Word.CANCELLED}
        assert {words[1], words[3]} <= {Word.GONE, Word.UNCLEAR}, "which end they had, a look tells"


@pytest.mark.parametrize("by", ["order_id", "client_order_id"])
def test_an_order_of_another_pair_is_never_touched(dossier: Dossier, by: str) -> None:
    """The intent names the wrong pair. No venue may be said to have cancelled, or to know nothing, without a look."""
    world = dossier.world(dossier)
    other = world.add(symbol=dossier.other_symbol, client_id=dossier.client_id, created_ms=OLD_MS)
    end, _ = travel(dossier, world, {**dossier.intent(by=by), **_named(by, other)})
    if world.state(other) == "live":
        assert end.status in (Status.not_found, Status.rejected, Status.unresolved), end
    else:
        assert end.status is TRUE_END[world.state(other)], "found by its id alone"


@pytest.mark.parametrize("life", ["live", "partially_filled", "cancelled", "filled", "fills first"])
@pytest.mark.parametrize("scope", ["symbol", "account"])
def test_a_sweep_ends_when_nothing_is_open(dossier: Dossier, scope: str, life: str) -> None:
    world = dossier.world(dossier)
    ids = [enter(dossier, world, "order", life) for _ in range(3)]
    end, _ = travel(dossier, world, dossier.intent(scope))
    assert (end.status, end.open_orders) == (Status.cancelled, 0)
    assert not {"live", "partially_filled"} & {world.state(order_id) for order_id in ids}


@pytest.mark.parametrize("life", NEVER_CANCELLED)
@pytest.mark.parametrize("scope", ["symbol", "account"])
def test_a_sweep_tells_how_many_it_could_not_cancel(dossier: Dossier, scope: str, life: str) -> None:
    world = dossier.world(dossier)
    stuck = [enter(dossier, world, "order", life) for _ in range(2)]
    others = [enter(dossier, world, "order", "live") for _ in range(3)]
    end, _ = travel(dossier, world, dossier.intent(scope))
    assert (end.status, end.open_orders) == (Status.unresolved, 2)
    assert {world.state(order_id) for order_id in stuck} == {"live"}
    assert {world.state(order_id) for order_id in others} == {"cancelled"}


def enter(dossier: Dossier, world: World, kind: str, life: str, client_id: str = "") -> str:
    """An order older than the intent, and what is to become of it."""
    state = life if life in TRUE_END else "live"
    order_id = world.add(kind, state, symbol=dossier.symbol, client_id=client_id, created_ms=OLD_MS)
    if life == "cancels refused":
        world.refuses_cancels(order_id)
    if life == "cancels ignored":
        world.ignores_cancels(order_id)
    if life == "fills first":
        world.fills_first(order_id)
    return order_id


def _named(by: str, order_id: str) -> dict[str, str]:
    return {} if by == "client_order_id" else {"order_id": order_id}
