"""What `cancelq doctor` looks at: the server, the lanes, the keys, the settings; each finding with its remedy.

`checkup.py` runs the checks, every one within a deadline. A check reads and never writes: what it asks of the server is
told in docs/DOCTOR.md, and where the user may not ask it, the finding says so instead of guessing.
"""
