"""Canaries: secrets made for one run, which must not be found anywhere afterwards.

    make canaries SECONDS=60 SEED=7

Real workers, jobs and commands run between a real server and the simulated venues under chaos, and are provoked: by
answers that repeat the request, refused keys, exceptions with keys in their local variables, logs at DEBUG, bad
settings, a crash at the start. Then everything they left behind is searched for every secret, in every spelling: logs,
errors and tracebacks, health and metrics pages, command lines, Redis' files, keys and commands, archives, reports. The
exit status is 1 if there is a find.
"""

from ops.canaries.searching import Artefact, Find, search
from ops.canaries.secrets_made import Canary, make_canaries
from ops.canaries.spellings import spellings

__all__ = ["Artefact", "Canary", "Find", "make_canaries", "search", "spellings"]
