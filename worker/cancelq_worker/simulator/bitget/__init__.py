"""Bitget spot, classic v2, as the simulator speaks it."""
