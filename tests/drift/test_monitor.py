import math
import pickle

import numpy as np
import pytest

from drift.monitor import DriftMonitors


class DriftMonitor(DriftMonitors):
    """The same over a single series."""

    def __init__(self, delta: float = 0.002) -> None:
        super().__init__(["loss"], delta)

    def see(self, loss: float) -> bool:
        return bool(self.update(np.array([loss])))


def losses(seed: int, *levels: float, each: int = 1000) -> list[float]:
    """Noisy losses around one level after another."""
    rng = np.random.default_rng(seed)
    return [float(x) for level in levels for x in rng.gamma(0.5, level / 0.5, each)]


def alarms(monitor: DriftMonitor, series: list[float]) -> list[int]:
    return [i for i, loss in enumerate(series) if monitor.see(loss)]


@pytest.mark.parametrize("seed", range(5))
def test_it_alarms_soon_after_the_losses_rise(seed: int) -> None:
    monitor = DriftMonitor()
    found = alarms(monitor, losses(seed, 0.3, 0.8))
    assert found
    assert 1000 <= found[0] < 1250
    assert monitor.detections == {"loss": len(found)}


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


def test_monitors_side_by_side_alarm_as_each_would_alone_and_skip_what_is_missing() -> None:
    series = np.column_stack([losses(1, 0.3, 0.9), losses(2, 0.5, 0.5), losses(3, 0.8, 1.6)])
    series[np.random.default_rng(4).random(series.shape) < 0.2] = np.nan
    together = DriftMonitors(["a", "b", "c"])
    alone = {name: DriftMonitor() for name in together.names}
    for row in series:
        risen = [
            n
            for n, x in zip(alone, row.tolist(), strict=True)
            if math.isfinite(x) and alone[n].see(x)
        ]
        assert together.update(row) == risen
    assert together.detections == {
        name: monitor.detections["loss"] for name, monitor in alone.items()
    }
    assert together.detections["a"] > 0
    assert together.detections["c"] > 0


@pytest.mark.parametrize("at", [0, 500, 1040, 1500])
def test_restored_monitors_go_on_as_if_they_had_never_stopped(at: int) -> None:
    series = np.column_stack([losses(1, 0.3, 0.9, 0.4), losses(2, 0.5, 0.2, 1.0)])
    straight, restored = DriftMonitors(["a", "b"]), DriftMonitors(["a", "b"])
    for row in series[:at]:
        straight.update(row)
    state = straight.state()
    expected = [straight.update(row) for row in series[at:]]
    for _ in range(2):
        restored.restore(pickle.loads(pickle.dumps(state)))
        assert [restored.update(row) for row in series[at:]] == expected
    assert pickle.dumps(restored.state()) == pickle.dumps(straight.state())


def test_losses_of_another_number_of_series_are_refused() -> None:
    with pytest.raises(ValueError, match="3 losses for 2 series"):
        DriftMonitors(["a", "b"]).update(np.zeros(3))
