"""What a forged job would like to have run; the mark it leaves is named by the job's description."""

from pathlib import Path

from rq.job import Job


def touch(job: Job, *_: object) -> None:
    """Leaves a mark."""
    Path(job.description or "").touch()
