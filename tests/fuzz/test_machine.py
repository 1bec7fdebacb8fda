"""The core under any interleaving, for a short while; the long form is `bench/fuzz.py`."""

from hypothesis import HealthCheck, settings

from tests.fuzz.machine import CoreMachine

TestCore = CoreMachine.TestCase
TestCore.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
