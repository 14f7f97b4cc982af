"""The jobs: work with a long breath, carried by RQ. They hold no exchange key and act through inboxes and results.

Nothing that must be true depends on one of them having run; docs/JOBS.md tells what each does, and why RQ is held so
short.
"""
