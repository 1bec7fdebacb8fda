import pickle

import numpy as np
import pytest

from drift.monitor import DriftMonitor


def losses(seed: int, *levels: float, each: int = 1000) -> list[float]:
    """Noisy losses around one level after another."""
    rng = np.random.default_rng(seed)
    return [float(x) for level in levels for x in rng.gamma(0.5, level / 0.5, each)]


def alarms(monitor: DriftMonitor, series: list[float]) -> list[int]:
    return [i for i, loss in enumerate(series) if monitor.update(loss)]


@pytest.mark.parametrize("seed", range(5))
def test_it_alarms_soon_after_the_losses_rise(seed: int) -> None:
    monitor = DriftMonitor()
    found = alarms(monitor, losses(seed, 0.3, 0.8))
    assert found
    assert 1000 <= found[0] < 1250
    assert monitor.detections == len(found)


@pytest.mark.parametrize("seed", range(5))
def test_falling_losses_are_no_alarm(seed: int) -> None:
    assert alarms(DriftMonitor(), losses(seed, 0.8, 0.3)) == []


def test_steady_losses_are_no_alarm_even_when_a_few_are_huge() -> None:
    rng = np.random.default_rng(0)
    series = [1e9 if x < 0.03 else 0.1 for x in rng.random(20_000)]
    assert alarms(DriftMonitor(), series) == []


@pytest.mark.parametrize("at", [1, 500, 1040, 1500])
def test_a_restored_monitor_goes_on_as_if_it_had_never_stopped(at: int) -> None:
    series = losses(1, 0.3, 0.9, 0.4, 1.2)
    straight = DriftMonitor()
    restored = DriftMonitor()
    alarms(straight, series[:at])
    state = straight.state()
    expected = alarms(straight, series[at:])
    restored.restore(pickle.loads(pickle.dumps(state)))
    assert alarms(restored, series[at:]) == expected
    assert pickle.dumps(restored.state()) == pickle.dumps(straight.state())
