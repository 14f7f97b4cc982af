"""Bybit spot, v5, as the simulator speaks it."""
