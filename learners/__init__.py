"""Features to rows, experts, their mixture, and LightGBM refits. Pure: the same in, the same out.

`encoding` and `history` make rows of signals, `experts` and `panel` turn rows into win
probabilities, `forecast` makes of them what is believed of a signal (by `mixture`, `calibration`,
`expectation` and `conformal`); `window`, `refit` and `booster` fit, judge and score the LightGBM
champion.
"""

from learners.booster import Booster, ModelTextError, Scorer
from learners.encoding import FeatureEncoder, pad
from learners.experts import BaseRate, ExpertError, ExpertSpec
from learners.forecast import Forecaster, Frozen, Outlook
from learners.gate import Gate
from learners.groups import GroupRate
from learners.history import History
from learners.mixture import Mixture
from learners.panel import ExpertPanel, Votes
from learners.refit import Refit, RefitJob, RefitParams, fit
from learners.returns import Returns
from learners.warming import warm_up
from learners.window import Order, RefitSchedule, RefitWindow

__all__ = [
    "BaseRate",
    "Booster",
    "ExpertError",
    "ExpertPanel",
    "ExpertSpec",
    "FeatureEncoder",
    "Forecaster",
    "Frozen",
    "Gate",
    "GroupRate",
    "History",
    "Mixture",
    "ModelTextError",
    "Order",
    "Outlook",
    "Refit",
    "RefitJob",
    "RefitParams",
    "RefitSchedule",
    "RefitWindow",
    "Returns",
    "Scorer",
    "Votes",
    "fit",
    "pad",
    "warm_up",
]
