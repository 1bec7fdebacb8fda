"""Noticing that the world has changed. Pure: the same in, the same out."""

from drift.monitor import DriftMonitors

__all__ = ["DriftMonitors"]
