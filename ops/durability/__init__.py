"""Durability: what is left of a lane after its server's file was torn, its power cut, its disk or memory full.

    make durability ARGS="--parts torn,power,disk,memory --cuts 1000" SEED=7

Each part runs a real worker against the simulated venues on a real server, does the harm, and judges from keys alone.
Nothing here is shipped. Each part exists as a short sample in `tests/integration/test_durability.py`.
"""
