"""The private order streams of the simulated venues."""
