"""LightGBM without the packages it imports only for its wrappers, where those are installed.

`import lightgbm` takes up scikit-learn and pandas when it finds them, a second or more at every
start of a worker and of the process that refits. Nothing here uses its scikit-learn classes or
gives it a data frame. Who wants those in the same process imports scikit-learn before this.
"""

import sys
from importlib import import_module
from typing import Any

_FOR_WRAPPERS = ("sklearn", "pandas")


def _lean() -> Any:
    hidden = [name for name in _FOR_WRAPPERS if name not in sys.modules]
    # None says to the import system that there is no such module.
    sys.modules.update(dict.fromkeys(hidden, None))  # type: ignore[arg-type]  # as documented
    try:
        return import_module("lightgbm")
    finally:
        for name in hidden:
            del sys.modules[name]


lightgbm = _lean()
"""The package."""
