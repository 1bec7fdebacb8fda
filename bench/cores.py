"""Cores as the benches run them: the engine's own, with its outputs made bytes as a worker must."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from bench.tapes import generated
from engine.bootstrap import process_fitter
from engine.champions import Fitter
from engine.core import Core
from engine.core_config import CoreConfig, RefitConfig
from engine.fitting import InlineFitter
from streams import Entry, Output, encode, read_entry


class EncodingCore(Core):
    """A core that also encodes its outputs, which a replay of figures alone needn't."""

    def apply(self, entry: Entry) -> list[Output]:
        """As the core's, and every output's bytes are made."""
        outputs = super().apply(entry)
        encoded(outputs)
        return outputs


def encoded(outputs: list[Output]) -> list[bytes]:
    """The outputs' bytes."""
    return [encode(output) for output in outputs]


def configured(refits: bool) -> CoreConfig:
    """The default configuration, with or without the LightGBM champion."""
    return CoreConfig(refit=RefitConfig(enabled=refits))


@contextmanager
def fitting(config: CoreConfig) -> Iterator[Fitter]:
    """What computes a core's refits: a process as live, or nobody when there are none."""
    if not config.refit.enabled:
        yield InlineFitter()
        return
    with process_fitter() as fitter:
        yield fitter


def warm_up(signals: int = 300) -> None:
    """Run everything once on events that don't matter, so that nothing compiles while measured."""
    core = EncodingCore(configured(refits=False), InlineFitter())
    for number, event in zip(count(1), generated(signals), strict=False):
        core.apply(read_entry(f"0-{number}", encode(event)))
