"""Bitget v2 spot (classic account)."""
