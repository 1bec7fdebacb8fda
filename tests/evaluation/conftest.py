"""The command line, as the engine's tests run it."""

from tests.engine.conftest import closeloop

__all__ = ["closeloop"]
