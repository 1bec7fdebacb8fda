"""Garbage collection under control: never in the middle of a batch.

What is there when work begins stays for good, so the collector needn't look at it again
(`gc.freeze`). The work itself makes no cycles to speak of; what there are is collected between
batches, at a moment the worker chooses.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

BATCHES = 1_000
"""Batches between two collections while work never pauses."""


@contextmanager
def quiet_heap() -> Iterator[None]:
    """No automatic collection inside."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def tidy() -> None:
    """Collect what is new since the last time."""
    gc.collect(1)
