"""The installed LightGBM champion: one row scored from the model's text, as fast as its C API can.

All that knows LightGBM's C API is here. `Booster.predict` spends most of its time on checks for
tables; the single-row functions set everything up once and then only walk the trees, to the very
same bits.
"""

import ctypes
import weakref
from collections.abc import Hashable, Mapping
from hashlib import sha256
from math import isnan, nan
from typing import cast

import numpy as np
from numpy.typing import NDArray
from river.base import Classifier
from river.base.typing import ClfTarget

from learners.lean_lightgbm import lightgbm

# Constants of LightGBM's c_api.h.
_FLOAT32 = 0
_PREDICT_NORMAL = 0

# A handle of our own on the library that lightgbm has loaded, so that the argument types declared
# here don't change how lightgbm itself calls it.
_C = ctypes.CDLL(lightgbm.basic._LIB._name)
_C.LGBM_GetLastError.restype = ctypes.c_char_p
_C.LGBM_BoosterFree.argtypes = [ctypes.c_void_p]
_C.LGBM_FastConfigFree.argtypes = [ctypes.c_void_p]
_score = _C.LGBM_BoosterPredictForMatSingleRowFast
_score.argtypes = [ctypes.c_void_p] * 4


class ModelTextError(ValueError):
    """Text that LightGBM can't read as a model. Stop: what was stored is not what was fitted."""


class Scorer:
    """One LightGBM model, ready to score single rows. Not safe to use from two threads at once.

    Parameters
    ----------
    text
        What ``lightgbm.Booster.model_to_string`` gave. `ModelTextError` when it isn't that.
    """

    def __init__(self, text: str) -> None:
        booster, config = ctypes.c_void_p(), ctypes.c_void_p()
        number = ctypes.c_int()
        _check(
            _C.LGBM_BoosterLoadModelFromString(
                text.encode(), ctypes.byref(number), ctypes.byref(booster)
            )
        )
        weakref.finalize(self, _free, config, booster)
        _check(_C.LGBM_BoosterGetNumFeature(booster, ctypes.byref(number)))
        self.columns = number.value
        """How many columns the model was trained on."""
        _check(
            _C.LGBM_BoosterPredictForMatSingleRowFastInit(
                booster,
                _PREDICT_NORMAL,
                0,
                -1,
                _FLOAT32,
                ctypes.c_int32(self.columns),
                b"num_threads=1",
                ctypes.byref(config),
            )
        )
        self._row = np.empty(self.columns, np.float32)
        self._out = np.empty(1)
        self._length = ctypes.c_int64()
        self._arguments = (
            config,
            self._row.ctypes.data,
            ctypes.addressof(self._length),
            self._out.ctypes.data,
        )

    def __call__(self, row: NDArray[np.float64]) -> float:
        """The win probability of `row`, equal to the last bit to ``Booster.predict`` on float32.

        A shorter row is padded with NaN; of a longer one the model's columns are read.
        """
        n = min(len(row), self.columns)
        self._row[:n] = row[:n]
        self._row[n:] = nan
        _check(_score(*self._arguments))
        return float(self._out[0])


class Booster(Classifier):
    """The champion as an expert: abstains until one is installed, and learns only by refits."""

    def __init__(self) -> None:
        self.text: str | None = None
        """The champion's model text."""
        self.refit: str | None = None
        """The ID of the refit that the champion came from."""
        self._scorer: Scorer | None = None

    def install(self, text: str, refit: str) -> None:
        """Make this model the champion. Raises `ModelTextError`, and then changes nothing."""
        self._scorer = Scorer(text)
        self.text = text
        self.refit = refit

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the champion's model text, in hex."""
        return None if self.text is None else sha256(self.text.encode()).hexdigest()

    def predict_proba_row(self, row: NDArray[np.float64]) -> float:
        """The win probability of an encoded row; NaN when no champion is installed."""
        return nan if self._scorer is None else self._scorer(row)

    def learn_row(self, row: NDArray[np.float64], won: bool) -> None:
        """Nothing: a booster learns by being refit."""

    def predict_proba_one(self, x: Mapping[Hashable, float], **_: object) -> dict[ClfTarget, float]:
        """River's form, with features named by their column's number; empty without a champion."""
        columns = 0 if self._scorer is None else self._scorer.columns
        row = np.array([x.get(column, nan) for column in range(columns)])
        p = self.predict_proba_row(row)
        return {} if isnan(p) else {False: 1.0 - p, True: p}

    def learn_one(self, x: Mapping[Hashable, float], y: ClfTarget) -> None:
        """Nothing: a booster learns by being refit."""

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {"text": self.text, "refit": self.refit}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on exactly as the booster whose `state` this is."""
        if state["text"] is None:
            self.text = self.refit = self._scorer = None
        else:
            self.install(cast(str, state["text"]), cast(str, state["refit"]))


def _free(config: ctypes.c_void_p, booster: ctypes.c_void_p) -> None:
    if config:
        _C.LGBM_FastConfigFree(config)
    _C.LGBM_BoosterFree(booster)


def _check(status: int) -> None:
    if status != 0:
        raise ModelTextError(f"LightGBM: {_C.LGBM_GetLastError().decode(errors='replace')}")
