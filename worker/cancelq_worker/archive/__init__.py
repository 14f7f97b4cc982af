"""Results kept for good: Parquet segments on disk, one folder a lane, bound together by a chain of hashes.

`archiver` moves events out of the stream, `manifest` is the chain, `segments` the files (the only module that needs
pyarrow), `canonical` what an event is when it is compared or hashed, `fence` keeps two archivers apart, `view` reads an
archive back for the audit. docs/AUDIT.md tells how to do by hand what is done here.
"""
