"""What a worker measures about itself, in Prometheus's form. Nothing here is read by the core."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from engine.core import COUNTS, Core
from engine.safety.switch import STATES

LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip

FIGURES = {
    "expert_weight": "Weight of an expert in the mixture",
    "expert_log_loss": "Mean log loss of an expert, nats, over the closes for which it spoke",
    "regret": "Nats by which all that was published is behind an expert since the beginning",
    "calibration_weight": "Weight of a correction of the mixture in what is published",
    "return_weight": "Weight of a forecast in the expected return",
    "stop_weight": "Weight of a forecast in the probability of the stop",
    "interval_coverage": "Share of intervals that held what came, of those made for 0.9",
}
"""What the model says of itself: `Forecaster.figures`."""


class Metrics:
    """The worker's instruments, in a registry of their own.

    What the core counts anyway is read when someone asks (`watch`), not written at every batch.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counts = Gauge(
            "closeloop_count",
            "Counters of the core since its first event, by kind; they survive restarts",
            ["kind"],
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "closeloop_batch_seconds",
            "From a batch read to its commit acknowledged",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "closeloop_commit_seconds",
            "The commit's round trip",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.lag = Gauge(
            "closeloop_lag_entries", "Input entries not committed yet", registry=self.registry
        )
        self.epoch = Gauge(
            "closeloop_lease_epoch",
            "Fencing epoch of the lease held; 0: none",
            registry=self.registry,
        )
        self.last_commit = Gauge(
            "closeloop_last_commit_timestamp_seconds",
            "Unix time of the last commit",
            registry=self.registry,
        )
        self.last_snapshot = Gauge(
            "closeloop_last_snapshot_timestamp_seconds",
            "Unix time of the last snapshot",
            registry=self.registry,
        )
        self.snapshot_pause_seconds = Histogram(
            "closeloop_snapshot_pause_seconds",
            "Worker time taken by a snapshot",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.refit_wait_seconds = Gauge(
            "closeloop_refit_wait_seconds_total",
            "Time spent waiting for refits that were not ready",
            registry=self.registry,
        )
        self.figures = {
            name: Gauge(f"closeloop_{name}", meaning, ["of"], registry=self.registry)
            for name, meaning in FIGURES.items()
        }
        self.safety_state = Gauge(
            "closeloop_safety_state",
            "The kill switch: 0 ACTIVE, 1 REDUCING, 2 HALTED",
            registry=self.registry,
        )
        self.fired = Gauge(
            "closeloop_fired",
            "How often a trigger of the kill switch has fired; it survives restarts",
            ["trigger"],
            registry=self.registry,
        )
        self.model_share = Gauge(
            "closeloop_model_share",
            "Share of the signals that the rollout gives to the model",
            registry=self.registry,
        )
        self.reconnects = Counter(
            "closeloop_reconnects",
            "Times the server was lost and tried again",
            registry=self.registry,
        )
        self.recoveries = Counter(
            "closeloop_recoveries",
            "Times the state was rebuilt from a snapshot and the stream",
            registry=self.registry,
        )
        self.notifications = Counter(
            "closeloop_notifications",
            "Alerts for a receiver, by result: sent; undelivered (given up); summed_up (told in a"
            " sum only)",
            ["receiver", "result"],
            registry=self.registry,
        )

    def watch(self, core: Callable[[], Core]) -> None:
        """Show the counters and weights of `core()`, the one at work at that moment."""
        for kind in COUNTS:
            self.counts.labels(kind).set_function(partial(_count, core, kind))
        self.safety_state.set_function(lambda: STATES.index(core().guard.switch.state_now))
        self.model_share.set_function(lambda: core().guard.rollout.share)
        for trigger in core().guard.switch.fired:
            self.fired.labels(trigger).set_function(partial(_fired, core, trigger))
        for name, values in core().model.forecaster.figures().items():
            for of in values:
                show = partial(_figure, core, name, of)
                self.figures[name].labels(of).set_function(show)


def _count(core: Callable[[], Core], kind: str) -> float:
    return core().counts[kind]


def _fired(core: Callable[[], Core], trigger: str) -> float:
    return core().guard.switch.fired[trigger]


def _figure(core: Callable[[], Core], name: str, of: str) -> float:
    return core().model.forecaster.figures()[name][of]
