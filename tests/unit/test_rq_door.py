"""RQ's door on the producers' side: no need of RQ, ids that follow from jobs, a plain word outside `cancelq jobs`."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq import Client, Lane
from cancelq.contract import wire_fields
from cancelq.errors import CancelqError
from cancelq.rq import Door, id_of, submit


def test_neither_producers_nor_readers_need_rq() -> None:
    program = "import sys; sys.modules['rq'] = None; import cancelq, cancelq.rq, cancelq.results; print('well')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "well\n"


def test_another_worker_than_ours_is_told_where_the_job_belongs() -> None:
    with pytest.raises(CancelqError, match="enqueue it on the queue 'cancelq'"):
        submit("bitget:main", {"symbol": "BTCUSDT", "order_id": "1"})


@given(st.text(max_size=200))
def test_every_job_has_an_id_that_an_intent_can_have(job_id: str) -> None:
    fields = {"id": id_of(job_id), "symbol": "BTCUSDT", "order_id": "1"}
    assert wire_fields(fields) == fields
    assert id_of(job_id) == id_of(job_id)


def test_different_jobs_have_different_ids() -> None:
    jobs = ["a", "b", "a" * 61, "a" * 62, "a" * 63, "a b", "a  b", "1-1"]
    assert len({id_of(job) for job in jobs}) == len(jobs)


def test_a_field_that_is_null_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the id: that of the job stands in for it, so that a job that is run again asks for nothing twice."""
    sent: list[dict[str, str]] = []

    class Heard(Client):
        def submit(self, lane: object, fields: object = None, /, **_: object) -> Any:
            sent.append(cast("dict[str, str]", fields))
            return SimpleNamespace(id="")

    lane = Lane.parse("bitget:main")
    with Heard("redis://127.0.0.1:1/0") as client:
        Door(client, [lane]).submit("job-1", "bitget:main", {"symbol": "BTCUSDT", "order_id": "1", "id": None})
    assert sent == [{"id": "rq-job-1", "symbol": "BTCUSDT", "order_id": "1"}]
