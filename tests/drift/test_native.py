import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from drift.adwin import SIZE, watch
from drift.native import ready

ROOT = Path(__file__).parents[2]


def run(program: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_read_only_arrays_are_taken_and_other_types_refused_rather_than_compiled() -> None:
    ready(watch)
    windows, values = np.zeros(SIZE), np.zeros(1)
    values.flags.writeable = False
    assert watch(windows, values, 1.0, 0.1) == 0
    for wrong in (np.zeros(1, np.float32), np.zeros(4)[::2], np.zeros((1, 1)), [0.0]):
        with pytest.raises(TypeError):
            watch(windows, wrong, 1.0, 0.1)  # type: ignore[arg-type]
    assert len(watch.signatures) == 1  # type: ignore[attr-defined]


def test_nothing_is_compiled_at_import_and_everything_by_the_warm_up() -> None:
    program = (
        "import learners; from drift.native import _signatures as kernels\n"
        "print([len(k.signatures) for k in kernels])\n"
        "learners.warm_up()\n"
        "print([len(k.signatures) for k in kernels])\n"
    )
    before, after = run(program).splitlines()
    assert set(eval(before)) == {0}
    assert set(eval(after)) == {1}


def test_where_no_cache_can_be_kept_kernels_work_all_the_same() -> None:
    program = (
        "import drift.native, numba\n"
        "from numba.core.caching import FunctionCache\n"
        "class Nowhere(FunctionCache):\n"
        "    def __init__(self, kernel): raise RuntimeError('cannot cache: no locator')\n"
        "import numba.core.dispatcher as d; d.FunctionCache = Nowhere\n"
        "kernel = drift.native.entry(drift.native.NUMBER, drift.native.NUMBER)(lambda x: x + 1)\n"
        "drift.native.ready(kernel)\n"
        "print(kernel(1.0))\n"
    )
    assert run(program).strip() == "2.0"
