"""Measurements, for users and for us: each prints a table, and writes JSON with `--json`."""
