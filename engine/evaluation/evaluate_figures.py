"""An evaluation for programs: everything that was found, as plain values for JSON."""

from collections import Counter
from dataclasses import asdict

from engine.evaluation import judgement, scores
from engine.evaluation.evaluate import Evaluation, Judgements
from engine.evaluation.slices import Slice
from engine.evaluation.walk_forward import Judged


def figures(evaluation: Evaluation) -> dict[str, object]:
    """Everything, for JSON."""
    passed = evaluation.run
    plan = evaluation.plan
    return {
        "closes": len(passed.outcomes),
        "warm_up_closes": evaluation.warm_up,
        "resamples": plan.resamples,
        "seed": plan.seed,
        "prequential": _judgements(evaluation.prequential)
        | {
            "ece_if_calibrated": evaluation.calibrated_ece,
            "probability_interval_held": evaluation.probability_held,
            "return_interval_coverage": evaluation.return_coverage.figures(),
        },
        "walk_forward": None
        if evaluation.forward is None
        else _judgements(evaluation.forward)
        | {
            "train": plan.train,
            "step": plan.step,
            "embargo": plan.embargo,
            "windows": [_window_figures(each) for each in evaluation.windows],
        },
        "slices": [_slice_figures(each) for each in evaluation.slices],
        "correction": "holm",
        "censored": _censored_figures(evaluation),
        "alerts": Counter(mark.kind for mark in passed.marks),
        "weights": dict(zip(passed.names, passed.core.model.mixture.weights, strict=True)),
        "decisions_digest": passed.core.decisions_digest,
    }


def _judgements(those: Judgements) -> dict[str, object]:
    return {
        "closes": len(those.outcomes),
        "taken": int(those.outcomes.taken.sum()),
        "block_length": those.block,
        "scores": judgement.figures(those.scores),
    }


def _window_figures(each: Judged) -> dict[str, object]:
    outcomes = each.outcomes
    taken, returns = outcomes.taken, outcomes.return_pct
    return {
        "lines": asdict(each.window),
        "closes": len(outcomes),
        "taken": int(taken.sum()),
        "purged": each.purged,
        "embargoed": each.embargoed,
        "published": scores.probability_scores(outcomes.probability, outcomes.won),
        "base_rate": scores.probability_scores(each.base_rate, outcomes.won),
        "taken_trades": scores.trade_scores(returns[taken]),
        "offered_trades": scores.trade_scores(returns),
    }


def _slice_figures(each: Slice) -> dict[str, object]:
    return {
        "kind": each.kind,
        "name": each.name,
        "closes": each.closes,
        "taken": each.taken,
        "scores": each.scores,
        "log_loss_published_minus_base_rate": each.log_loss_gain.figures()
        | {"p_corrected": each.log_loss_gain_p},
        "taken_mean_return_pct": each.taken_return.figures(),
        "offered_mean_return_pct": each.offered_return.figures(),
        "taken_minus_offered_pct": each.advantage.figures() | {"p_corrected": each.advantage_p},
    }


def _censored_figures(evaluation: Evaluation) -> dict[str, object]:
    found = evaluation.censored
    return {
        "offered": found.offered,
        "observed": found.observed,
        "effective": found.effective,
        "impossible": found.impossible,
        "unpublished": found.unpublished,
        "lost": found.lost,
        "log_loss": {name: each.figures() for name, each in found.log_loss.items()},
        "mean_return_pct": {name: each.figures() for name, each in found.mean_return_pct.items()},
    }
