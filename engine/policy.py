"""The decision policy, a pure function: from what is believed of a signal to what to do with it."""

from dataclasses import dataclass

from engine.core_config import PolicyConfig
from streams.events import Action, Baseline


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, how big, and why, in plain codes."""

    action: Action
    size_multiplier: float
    reasons: tuple[str, ...]


def decide(
    probability: float, baseline: Baseline | None, closes: int, config: PolicyConfig
) -> Verdict:
    """What to do about a signal.

    Parameters
    ----------
    probability
        Of a win, as published.
    baseline
        What the bot's own rules would do; echoed while the model warms up.
    closes
        Closes learned so far.
    """
    if closes < config.warmup_closes:
        if baseline is None:
            baseline = config.default_baseline
            reasons: tuple[str, ...] = ("warming_up", "default_baseline")
        else:
            reasons = ("warming_up",)
        return Verdict(baseline, 1.0 if baseline == "take" else 0.0, reasons)
    if probability >= config.take:
        return Verdict("take", 1.0, ("probability_at_least_take",))
    if probability < config.skip:
        return Verdict("skip", 0.0, ("probability_below_skip",))
    return Verdict("reduce_size", config.reduced_size, ("probability_between",))
