"""One place that makes all compiled code ready, so that no event has to wait for a compiler."""

from drift import native
from learners import forest


def warm_up() -> None:
    """Compile all kernels, or load them from the cache: seconds the first time, else a fraction."""
    native.warm_up()
    forest.warm_up()
