"""BingX spot, v1, as the simulator speaks it."""
