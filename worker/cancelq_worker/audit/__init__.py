"""The audit: proves from streams and archive alone that each intent has one outcome, and names what is wrong.

Nothing of the workers' own bookkeeping is read. `sources` reads, `rules` judges one event by itself, `books` joins what
belongs together, `numbers` counts, `report` and `export` write; `auditor` is the order in which all of it happens.
"""
