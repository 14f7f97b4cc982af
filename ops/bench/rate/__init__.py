"""The promise about rates, judged from outside: a venue of its own, which shares no code with the workers or with
`cancelq simulate`, and real workers that know it by address alone.
"""
