"""Noticing that the world has changed. Pure: the same in, the same out."""

from drift.feature_drift import FeatureDrift, Health, Moved
from drift.monitor import DriftMonitors
from drift.regimes import REGIMES, Regimes

__all__ = ["REGIMES", "DriftMonitors", "FeatureDrift", "Health", "Moved", "Regimes"]
