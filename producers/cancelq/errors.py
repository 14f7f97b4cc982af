"""Everything that can go wrong on the asking side; the first line of each docstring is the message in short.

All of them are `CancelqError`s. What matters after a failed submit is whether the intent may have been
queued:

    `IntentError`, `LaneError`            no: it was never sent
    `NotAccepted`, `BrokerRefused`        no: the server said so
    `BrokerDown`                          no: no connection, so nothing was sent
    `Uncertain`, `Unconfirmed`            perhaps: send it again with the same id
    `BatchIncomplete`                     it tells which of the batch are which
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cancelq.tls import advice


class CancelqError(Exception):
    """Base of every error of this package. All of them can be pickled, as pools of processes do; tickets cannot."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[CancelqError], args: tuple[Any, ...], held: Mapping[str, Any]) -> CancelqError:
    error = kind.__new__(kind, *args)
    error.args = args  # those that are an OSError, too, take them only from `__init__`
    error.__dict__.update(held)
    return error


class LaneError(CancelqError, ValueError):
    """This is no lane; a lane is written venue:account, like bitget:main."""


class UrlError(CancelqError, ValueError):
    """This URL names no server that can be used; the message says how it should be written, and holds no secret."""


class IntentError(CancelqError):
    """The intent can never work as written; `field` names what to change and `detail` says how.

    It is deliberately no `ValueError`: pydantic would fold those into an error of its own.
    """

    def __init__(self, field: str, detail: str, position: int | None = None) -> None:
        self.field = field
        self.detail = detail
        # Which intent of a batch, from 0; None outside a batch.
        self.position = position
        super().__init__(detail if position is None else f"intent {position} of the batch: {detail}")


class EventError(CancelqError, ValueError):
    """This results entry is no event that this version can read; `entry_id` says which."""

    def __init__(self, entry_id: str, detail: str) -> None:
        self.entry_id = entry_id
        self.detail = detail
        super().__init__(f"event {entry_id}: {detail}")


class NotAccepted(CancelqError):
    """The lane has no inbox, so nothing was queued: no worker has ever served it, or its name is mistyped."""

    def __init__(self, lane: str) -> None:
        self.lane = lane
        super().__init__(
            f"{lane}: nothing was queued, this lane has no inbox on this server; "
            "check the name, or start a worker that serves it"
        )


class BrokerDown(CancelqError):
    """The server cannot be reached; nothing was sent."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"no connection to the server, nothing was sent ({_words(cause)})")


class BrokerRefused(CancelqError):
    """The server was reached and refused; nothing was queued. `code` is its word, like `OOM` or `NOPERM`, `said` the
    rest of its words."""

    def __init__(self, cause: BaseException) -> None:
        said = str(cause)
        self.code: str | None = getattr(cause, "status_code", None)
        if self.code is None:
            # redis-py takes apart only the refusals it knows.
            word, _, rest = said.partition(" ")
            if word.isupper():
                self.code, said = word, rest
        self.said = said
        super().__init__(f"the server refused: {self.code or ''} {said}{_remedy(self.code)}")


class Uncertain(CancelqError):
    """The reply was lost, so the intent may or may not be queued: send it again with the same id.

    `fields` holds it as it was sent, with its id, so that `client.submit(error.lane, error.fields)` is safe:
    the same id never leads to a second cancel.
    """

    def __init__(self, lane: str, fields: Mapping[str, str], cause: BaseException | None) -> None:
        self.lane = lane
        self.fields = fields
        self.id = fields["id"]
        super().__init__(self._say(cause))

    def _say(self, cause: BaseException | None) -> str:
        return (
            f"{self.lane}: the reply was lost ({_words(cause)}), so {self.id} may or may not be queued; "
            "send it again with the same id"
        )


class Unconfirmed(Uncertain):
    """The intent is queued, but too few replicas have it, so a failover may lose it: send it again with the same id."""

    def _say(self, cause: BaseException | None) -> str:
        return (
            f"{self.lane}: {self.id} is queued, but too few replicas confirmed it ({_words(cause)}), so whether it "
            "outlives a failover is uncertain; send it again with the same id"
        )


class BatchIncomplete(CancelqError):
    """Not every intent of the batch was confirmed: some are queued, some may be, the rest are not.

    queued       tickets of the intents the server confirmed, in the order of the batch
    uncertain    fields of those whose reply was lost: they may or may not be queued; or which too few replicas have
    not_queued   fields of those the server refused, or that were not sent any more

    `client.submit_many(error.lane, [*error.uncertain, *error.not_queued])` completes the batch: each has its
    id.
    """

    # The tickets are `Ticket` or `AsyncTicket`; naming the types would tie this module to the client's.
    queued: Sequence[Any]

    def __init__(
        self,
        lane: str,
        *,
        queued: Sequence[Any],
        uncertain: Sequence[Mapping[str, str]],
        not_queued: Sequence[Mapping[str, str]],
        cause: BaseException | None,
    ) -> None:
        self.lane = lane
        self.queued = queued
        self.uncertain = uncertain
        self.not_queued = not_queued
        super().__init__(
            f"{lane}: {len(queued)} queued, {len(uncertain)} uncertain, {len(not_queued)} not queued "
            f"({_words(cause)}); send the uncertain and the unqueued again with their ids"
        )


class NoResults(CancelqError):
    """The lane has no results on this server: no worker has ever served it, or its name is mistyped."""

    def __init__(self, lane: str) -> None:
        self.lane = lane
        super().__init__(
            f"{lane}: this lane has no results on this server; check the name, or start a worker that serves it"
        )


class GroupMissing(CancelqError):
    """The consumer group does not exist and this user may not make it: an operator has to run `command` once."""

    def __init__(self, lane: str, group: str, command: str) -> None:
        self.lane = lane
        self.group = group
        self.command = command
        super().__init__(
            f"{lane}: there is no consumer group {group}, and this user may not make it; "
            f"an operator has to run: {command}"
        )


class Conflicting(CancelqError):
    """These intents bore ids that were queued before with other content: nothing of them was done, and what became of
    the ids is told of the first ones. `ids` says which; send them under new ids."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        more = f" and {len(self.ids) - 1} more" if len(self.ids) > 1 else ""
        super().__init__(
            f"{self.ids[0]}{more}: this id was queued before with other content, so nothing of this entry was done; "
            "send it under a new id"
        )


class OutcomeTimeout(CancelqError, TimeoutError):
    """No final event came in time; the intents named in `ids` are still under way, they are not given up."""

    def __init__(self, ids: Sequence[str], timeout_s: float, hint: str = "") -> None:
        self.ids = tuple(ids)
        some = ", ".join(self.ids[:5])
        rest = f" and {len(self.ids) - 5} more" if len(self.ids) > 5 else ""
        super().__init__(f"no final event within {timeout_s:g} s for {some}{rest}{hint}")


def _words(cause: BaseException | None) -> str:
    if cause is None:
        return "no reason known"
    if isinstance(cause, CancelqError):
        return str(cause)
    said = f"{type(cause).__name__}: {cause}"
    about_tls = advice(said)
    return f"{said}; {about_tls}" if about_tls else said


def _remedy(code: str | None) -> str:
    """What to do about the refusals that a producer meets in practice."""
    return {
        "OOM": "; its memory is full, so the intake is closed while the workers go on with what was queued: raise its "
        "maxmemory, or keep results for fewer days",
        "MISCONF": "; it cannot write to its disk, so nothing is queued or sent: make room there",
        "NOPERM": "; this user of the server lacks a permission on the lane's keys",
        "NOAUTH": "; the url needs a user and a password",
        "READONLY": "; this is a replica, connect to the primary",
        "LOADING": "; it is still starting, try again",
        "NOREPLICAS": "; too few of its replicas are connected, try again when they are",
        "TRYAGAIN": "; the lane is being moved to another node, try again",
        "CLUSTERDOWN": "; a part of the cluster is missing, try again",
    }.get(code or "", "")
