"""Refits: a LightGBM challenger fitted on a window of closes, and judged before the gate.

`fit` is a pure function of its job, the same to the bit in every process, so a refit that was
lost can be done again. It may run anywhere; a job and its result are plain data.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.booster import ModelTextError, Scorer
from learners.gate import Gate, metrics
from learners.lean_lightgbm import lightgbm

_CLIP = 0.001
"""Probabilities are judged as they would be published: within [0.001, 0.999]."""
_FARTHEST = 4.0
"""Returns are cut to this many usual sizes either way: squared error would see little else."""
_STRAGGLERS = 20
"""One held-out close in this many may be left out of judging, those that opened first."""


@dataclass(frozen=True, slots=True)
class RefitParams:
    """LightGBM's parameters, by its names.

    The defaults make a small model, fast to fit, that grows past `rounds` up to `max_rounds` as
    long as that helps on the closes held out. Holding it down further costs more on real structure
    than it saves on noise: harm is the mixture's to stop.
    """

    rounds: int = 30
    max_rounds: int = 200
    patience: int = 10
    num_leaves: int = 15
    learning_rate: float = 0.1
    min_data_in_leaf: int = 50
    feature_fraction: float = 0.7
    bagging_fraction: float = 0.7
    lambda_l2: float = 10.0
    max_bin: int = 63
    bin_construct_sample_cnt: int = 2000


@dataclass(frozen=True, slots=True, eq=False)
class RefitJob:
    """All that one refit is made of.

    Parameters
    ----------
    id
        The refit's name.
    rows
        Encoded rows in the order of their closes, float32, of shape (closes, columns).
    won
        Their labels, bool, of shape (closes,).
    sized
        Their returns in usual sizes, float64; None: no model of returns is fitted.
    opened, closed
        When each trade's signal and close happened, seconds since 1970, float64.
    champion
        The installed model's text, None when there is none.
    unseen
        How many of the newest closes the champion was not fitted on; None: all that judge.
    fresh
        How many of the newest closes came since the world last changed, as far as is known. A model
        of those alone is tried, too, and taken if it is the better one.
    full
        Whether models with half and twice as many leaves are tried, too, and the best is taken.
    holdout
        How many of the newest closes judge and don't train; at most a fifth of the window does.
    gate
        What the challenger must be, to be accepted.
    seed
        For the sampling of rows and columns.
    """

    id: str
    rows: NDArray[np.float32]
    won: NDArray[np.bool_]
    opened: NDArray[np.float64]
    closed: NDArray[np.float64]
    sized: NDArray[np.float64] | None = None
    champion: str | None = None
    unseen: int | None = None
    fresh: int | None = None
    full: bool = False
    holdout: int = 500
    gate: Gate = field(default_factory=Gate)
    seed: int = 1
    params: RefitParams = field(default_factory=RefitParams)


@dataclass(frozen=True, slots=True)
class Refit:
    """What came of a job.

    Parameters
    ----------
    id
        The job's.
    accepted
        Whether the challenger is to be installed.
    reason
        Why, in a sentence.
    text
        The challenger's model text; None when none could be fitted.
    digest
        The SHA-256 of `text`, in hex.
    returns_text
        A second model's text, of the return in usual sizes; None when there is none.
    trained_on, held_out
        Closes that trained it, closes that judged it.
    challenger_log_loss, champion_log_loss, base_rate_log_loss
        In nats, on the held-out closes; None where there is no such model. The base rate is that
        of the closes that trained the challenger.
    metrics, champion_metrics
        `learners.gate.METRICS` on the held-out closes; of the champion, on those it hasn't seen,
        the challenger's being of the same ones then.
    first_close, last_close
        Of the window, seconds since 1970; None when nothing was fitted.
    params
        LightGBM's parameters, as used.
    """

    id: str
    accepted: bool
    reason: str
    text: str | None = None
    digest: str | None = None
    trained_on: int = 0
    held_out: int = 0
    challenger_log_loss: float | None = None
    champion_log_loss: float | None = None
    base_rate_log_loss: float | None = None
    returns_text: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    champion_metrics: Mapping[str, float] = field(default_factory=dict)
    first_close: float | None = None
    last_close: float | None = None
    params: Mapping[str, float] = field(default_factory=dict)


def split(job: RefitJob) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which closes train and which judge, as indices into the job's rows.

    The newest closes judge. Trades that were still open when the first of the judging signals was
    made are purged from training: their labels hold what came after it. So that one very long
    trade can't purge the whole window, the twentieth of the newest closes that opened first
    neither judges nor trains.
    """
    count = len(job.won)
    held = np.arange(count - min(job.holdout, count // 5), count)
    if not len(held):
        return held, held
    first_signal = np.sort(job.opened[held])[len(held) // _STRAGGLERS]
    train = np.flatnonzero(job.closed[: held[0]] < first_signal)
    return train, held[job.opened[held] >= first_signal]


def fit(job: RefitJob) -> Refit:
    """Fit a challenger and judge it against the champion. Never raises for what a window holds.

    Accepted is a challenger that passes the gate, and whose log loss on the held-out closes is at
    most the champion's plus the tolerance; while there is no champion, one that isn't worse than
    the base rate by more than two standard errors of the difference.
    """
    trial = _try(job)
    if isinstance(trial, Refit):
        return trial
    others = _shapes(job) if job.full else []
    if job.fresh is not None and job.fresh < len(job.won):
        others.append(_newest(job, job.fresh))
    for other in map(_try, others):
        if not isinstance(other, Refit) and _is_better(other, trial):
            trial = other
    return _judge(trial, job.unseen)


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """A model that was fitted without the closes held out, and what it says of them."""

    job: RefitJob
    train: NDArray[np.intp]
    held: NDArray[np.intp]
    data: Any
    params: dict[str, object]
    rounds: int
    p: NDArray[np.float64]

    def loss(self, newest: int) -> float:
        """Its mean log loss on the newest of the closes held out."""
        return float(_losses(self.p, self.job.won[self.held])[-newest:].mean())


def _try(job: RefitJob) -> _Trial | Refit:
    """The trial of a job; a refit that says why there can be none."""
    train, held = split(job)
    why = why_not(job, train)
    if why is not None:
        return Refit(job.id, False, why, trained_on=len(train), held_out=len(held))
    data, params = _dataset(job)
    booster = _judged(job, data, params, train, held)
    p = _probabilities(str(booster.model_to_string()), job.rows[held])
    return _Trial(job, train, held, data, params, booster.current_iteration(), p)


def _shapes(job: RefitJob) -> list[RefitJob]:
    """The same job with half and with twice as many leaves."""
    leaves = job.params.num_leaves
    return [
        replace(job, params=replace(job.params, num_leaves=other))
        for other in (max(leaves // 2, 2), 2 * leaves)
    ]


def _newest(job: RefitJob, closes: int) -> RefitJob:
    """The same job with no more than its newest `closes`."""
    cut = {name: getattr(job, name)[-closes:] for name in ("rows", "won", "opened", "closed")}
    sized = None if job.sized is None else job.sized[-closes:]
    return replace(job, **cut, sized=sized)


def _is_better(other: _Trial, trial: _Trial) -> bool:
    """Whether the other model is the better one on the closes that both held out."""
    both = min(len(other.held), len(trial.held))
    return other.loss(both) < trial.loss(both)


def _judge(trial: _Trial, unseen: int | None) -> Refit:
    """The verdict on a trial, and what is installed if it is good."""
    job, held = trial.job, trial.held
    won = job.won[trial.train]
    rate = (int(won.sum()) + 1) / (len(won) + 2)
    judging = len(held) if unseen is None else min(unseen, len(held))
    champion = _champion(job, held[len(held) - judging :])
    if champion is None:
        judging = len(held)
    labels, p = job.won[held][len(held) - judging :], trial.p[len(held) - judging :]
    losses = _losses(p, labels)
    base_rate = _losses(np.full(judging, rate), labels)
    loss = float(losses.mean())
    champion_loss = None
    champion_metrics: dict[str, float] = {}
    if champion is None:
        behind = losses - base_rate
        margin = 2.0 * float(behind.std()) / len(held) ** 0.5
        accepted = float(behind.mean()) <= margin
        against = f"the base rate's {base_rate.mean():.4f} (two standard errors: {margin:.4f})"
    else:
        champion_loss = float(_losses(champion, labels).mean())
        champion_metrics = metrics(champion, labels)
        accepted = loss <= champion_loss + job.gate.tolerance
        against = f"the champion's {champion_loss:.4f} (tolerance {job.gate.tolerance:g})"
    verdict = "is no worse than" if accepted else "is worse than"
    found = metrics(p, labels)
    refusal = job.gate.refusal(found, champion_metrics, judging)
    text, returns_text = _final(job, trial.data, trial.params, trial.rounds)
    return Refit(
        id=job.id,
        accepted=accepted and refusal is None,
        reason=f"The challenger's log loss {loss:.4f} on {judging} held-out closes "
        f"{verdict} {against}." + (f" But {refusal}." if refusal else ""),
        text=text,
        digest=sha256(text.encode()).hexdigest(),
        trained_on=len(won),
        held_out=len(held),
        challenger_log_loss=loss,
        champion_log_loss=champion_loss,
        base_rate_log_loss=float(base_rate.mean()),
        returns_text=returns_text,
        metrics=found,
        champion_metrics=champion_metrics,
        first_close=float(job.closed[0]),
        last_close=float(job.closed[-1]),
        params=asdict(job.params) | {"rounds": trial.rounds},
    )


def why_not(job: RefitJob, train: NDArray[np.intp]) -> str | None:
    """Why nothing can be fitted on these closes, in a sentence; None when it can."""
    enough = 2 * job.params.min_data_in_leaf
    if len(train) < enough:
        why = f"{len(train)} closes are left to train on, at least {enough} are needed"
        return f"No challenger: {why}."
    wins = int(job.won[train].sum())
    if wins in (0, len(train)):
        what = "a win" if wins else "a loss"
        return f"No challenger: each of the {len(train)} closes to train on is {what}."
    return None


def judged_text(job: RefitJob) -> str:
    """The text of the model that is judged: it knows nothing of the closes held out.

    There must be something to fit it on (`why_not`).
    """
    train, held = split(job)
    data, params = _dataset(job)
    return str(_judged(job, data, params, train, held).model_to_string())


def _dataset(job: RefitJob) -> tuple[Any, dict[str, object]]:
    """All rows, binned once, and LightGBM's parameters."""
    chosen = job.params
    params: dict[str, object] = {
        "num_leaves": chosen.num_leaves,
        "learning_rate": chosen.learning_rate,
        "min_data_in_leaf": chosen.min_data_in_leaf,
        "feature_fraction": chosen.feature_fraction,
        "bagging_fraction": chosen.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": chosen.lambda_l2,
        "max_bin": chosen.max_bin,
        "bin_construct_sample_cnt": chosen.bin_construct_sample_cnt,
        "seed": job.seed,
        # LightGBM promises the same model only with all of these.
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    # Columns keep LightGBM's own names: a feature may be called what its model text can't hold.
    data = lightgbm.Dataset(
        job.rows, job.won.astype(np.float32), params=params, free_raw_data=False
    )
    return data.construct(), params


def _judged(
    job: RefitJob,
    data: Any,
    params: dict[str, object],
    train: NDArray[np.intp],
    held: NDArray[np.intp],
) -> Any:
    """A model of the closes that train, as long as it gets better on those that judge.

    It has `rounds` rounds in any case: on noise, where the best number is a matter of luck, so few
    do no harm. Where there is more to learn, it goes on until `patience` rounds have not helped.
    """
    chosen = job.params
    booster = lightgbm.Booster(params | {"objective": "binary"}, data.subset(train.tolist()))
    booster.add_valid(data.subset(held.tolist()), "held")
    best, best_rounds, done = float("inf"), 0, 0
    while done < chosen.max_rounds:
        if done >= chosen.rounds and done - best_rounds >= chosen.patience:
            break
        stuck = booster.update()
        done = booster.current_iteration()
        loss = booster.eval_valid()[0][2]
        if loss < best:
            best, best_rounds = loss, done
        if stuck:
            break
    for _ in range(done - max(best_rounds, min(chosen.rounds, done))):
        booster.rollback_one_iter()
    return booster


def _final(
    job: RefitJob, data: Any, params: dict[str, object], rounds: int
) -> tuple[str, str | None]:
    """The models to install, of wins and of returns: fitted on every close there is.

    The newest closes, which judged, are worth most. That trades overlap doesn't matter any more.
    """
    won = lightgbm.train(params | {"objective": "binary"}, data, rounds)
    if job.sized is None:
        return str(won.model_to_string()), None
    sized = np.clip(job.sized, -_FARTHEST, _FARTHEST)
    data.set_label(sized.astype(np.float32))
    returns = lightgbm.train(params | {"objective": "regression"}, data, job.params.rounds)
    return str(won.model_to_string()), str(returns.model_to_string())


def _probabilities(text: str, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The win probability of each row, by the scorer that decisions are made with."""
    score = Scorer(text)
    return np.clip([score(row) for row in rows], _CLIP, 1.0 - _CLIP)


def _losses(p: NDArray[np.float64], won: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The log loss of each close, nats."""
    return -np.log(np.where(won, p, 1.0 - p))


def _champion(job: RefitJob, held: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """What it says of closes that it has not seen; None when there is nothing to defend."""
    if job.champion is None or not len(held):
        return None
    try:
        return _probabilities(job.champion, job.rows[held])
    except ModelTextError:  # a champion that can't be read can't be defended
        return np.where(job.won[held], _CLIP, 1.0 - _CLIP)
