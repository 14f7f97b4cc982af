"""BingX spot, v1."""
