"""Deliberate breakages of the product, each of which the suite must notice (`make mutants`)."""

from ops.mutants import in_calls, in_lua, in_operations, in_outskirts, in_python, in_venues

ALL = (
    *in_lua.MUTANTS,
    *in_python.MUTANTS,
    *in_calls.MUTANTS,
    *in_venues.MUTANTS,
    *in_outskirts.MUTANTS,
    *in_operations.MUTANTS,
)

__all__ = ["ALL"]
