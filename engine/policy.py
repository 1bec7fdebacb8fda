"""The decision policy, a pure function: from what is believed of a signal to what to do with it.

The rule says whether to trade, Kelly how big, and caps have the last word. In the order in which
the reasons stand in a verdict:

1. While the model warms up the bot's own baseline is echoed.
2. With `max_positions` open, nothing is taken.
3. The rule: by the lower side of the expected return and by the expected return, each against its
   margin (`expected_value`), or by the probability alone (`thresholds`).
4. A signal that the rule skips is taken small when exploration was drawn for it.
5. The size, of `expected_value` and of exploration. ``size_multiplier`` is a share of the *full
   size*: the largest position that both `max_position_pct` and `max_risk_pct` allow. It is 1 when
   fractional Kelly would risk `max_risk_pct` of equity or more, less in proportion below that.
   Then a volatility above the usual and open trades that correlate cut it.

So a bot whose normal size is at most the full size is over no cap, and no trade is larger than
fractional Kelly's. See ``docs/policy.md`` for the formulas.
"""

from dataclasses import dataclass

from engine.core_config import PolicyConfig
from streams.events import Action, Baseline

REASONS = (
    "halted",
    "shadow",
    "advisory",
    "baseline_arm",
    "warming_up",
    "default_baseline",
    "too_many_positions",
    "probability_at_least_take",
    "probability_between",
    "probability_below_skip",
    "expected_return_low_above_margin",
    "expected_return_above_margin",
    "expected_return_not_above_margin",
    "kelly_not_positive",
    "exploration",
    "kelly_size",
    "wide_interval",
    "capped_risk",
    "capped_position",
    "high_volatility",
    "correlated_open_trade",
    "bot_limit",
    "reducing",
)
"""Every code there is. A verdict's reasons stand in this order, each once."""

NORMAL_90 = 1.645
"""Standard deviations from the middle of a normal distribution to either end of its middle 90 %."""


@dataclass(slots=True)  # not frozen: that takes three times as long to build
class Belief:
    """What the model believes of a signal. All numbers are finite."""

    probability: float
    """Of a win, as published, in [0, 1]."""
    probability_interval: tuple[float, float] | None
    """Its 90 % interval, if there is one."""
    expected_return_pct: float
    """The expected return, percent, net of costs."""
    expected_return_low_pct: float
    """The lower side of that mean: how low the expected return itself may well be."""
    usual_return_pct: float
    """The usual size of a return of such a trade, percent, above 0."""
    mean_win_pct: float
    """Return of a win like this one, percent; anything not above 0 is no payoff."""
    mean_loss_pct: float
    """Return of a loss like this one, percent, at most 0: what is lost at the stop."""
    volatility: float | None
    """The market's volatility relative to its usual, so that 1 is usual; None when not known."""
    explore: bool
    """Whether this signal was drawn for exploration, with probability `exploration_rate`."""


@dataclass(slots=True)
class Exposure:
    """Trades that were taken and are open now."""

    open_positions: int
    same_symbol: int
    """Those on the signal's own symbol."""
    same_strategy_side: int
    """Those of its strategy and side on other symbols."""


@dataclass(slots=True)
class Verdict:
    """What to do, how big, and why."""

    action: Action
    size_multiplier: float
    """In [0, 1]: what the bot's normal size is multiplied by. 0 exactly when skipped."""
    kelly_fraction: float | None
    """The position proposed, as a fraction of equity; None where only the bot knows its size."""
    reasons: tuple[str, ...]
    """Codes of `REASONS`, never none."""
    propensity: float
    """The chance that this signal is taken, at any size, before exploration is drawn for it."""


def decide(
    belief: Belief,
    exposure: Exposure,
    baseline: Baseline | None,
    closes: int,
    config: PolicyConfig,
) -> Verdict:
    """What to do about a signal.

    Parameters
    ----------
    belief
        What the model believes of it.
    exposure
        What is open now.
    baseline
        What the bot's own rules would do; echoed while the model warms up.
    closes
        Closes learned so far.
    config
        Rule, margins, caps.
    """
    reasons: list[str] = []
    action: Action
    echoed = None
    if closes < config.warmup_closes:
        echoed = echo(baseline, config.default_baseline, "warming_up")
        if echoed.action == "skip":
            return echoed
        reasons.extend(echoed.reasons)
    if exposure.open_positions >= config.max_positions:
        reasons.append("too_many_positions")
        return Verdict("skip", 0.0, 0.0, tuple(reasons), 0.0)
    if echoed is not None:
        return echoed
    if config.rule == "thresholds":
        action = _by_thresholds(belief.probability, config, reasons)
        if action != "skip":
            size = 1.0 if action == "take" else config.reduced_size
            return Verdict(action, size, None, tuple(reasons), 1.0)
    else:
        action = _by_expected_value(belief, config, reasons)
    full, position_binds = _full_size(belief, config)
    cut = _cut(belief, exposure, config)
    if action != "skip":
        stake, wide = _kelly(belief)
        budget = 100.0 * config.kelly_fraction * stake / config.max_risk_pct
        if budget > 0.0:
            reasons.append("kelly_size")
            if wide:
                reasons.append("wide_interval")
            if budget > 1.0:
                reasons.append("capped_risk")
            if position_binds:
                reasons.append("capped_position")
            _say_cuts(belief, exposure, config, reasons)
            size = min(budget, 1.0) * cut
            if action == "reduce_size":
                size *= config.reduced_size
            return _sized(action, size, full, reasons, 1.0)
        reasons.append("kelly_not_positive")
    size = config.exploration_size * cut
    rate = config.exploration_rate
    if belief.explore and rate > 0.0:
        reasons.append("exploration")
        _say_cuts(belief, exposure, config, reasons)
        return _sized("reduce_size", size, full, reasons, rate)
    return Verdict("skip", 0.0, 0.0, tuple(reasons), rate if size > 0.0 else 0.0)


def echo(baseline: Baseline | None, default: Baseline, why: str) -> Verdict:
    """What the bot's own rules would do, or what is done for a bot that doesn't say."""
    reasons = (why,) if baseline is not None else (why, "default_baseline")
    if (baseline or default) == "skip":
        return Verdict("skip", 0.0, 0.0, reasons, 0.0)
    return Verdict("take", 1.0, None, reasons, 1.0)


def _sized(
    action: Action, size: float, full: float, reasons: list[str], propensity: float
) -> Verdict:
    """A verdict. Of what the cuts leave nothing, nothing is ever taken."""
    if size > 0.0:
        return Verdict(action, size, size * full, tuple(reasons), propensity)
    return Verdict("skip", 0.0, 0.0, tuple(reasons), 0.0)


def _by_thresholds(probability: float, config: PolicyConfig, reasons: list[str]) -> Action:
    if probability >= config.take:
        reasons.append("probability_at_least_take")
        return "take"
    if probability < config.skip:
        reasons.append("probability_below_skip")
        return "skip"
    reasons.append("probability_between")
    return "reduce_size"


def _by_expected_value(belief: Belief, config: PolicyConfig, reasons: list[str]) -> Action:
    if belief.expected_return_low_pct > config.take_margin_pct:
        reasons.append("expected_return_low_above_margin")
        return "take"
    # Around no edge at all, the sign of what is expected is a matter of luck.
    least = config.least_edge * belief.usual_return_pct
    if belief.expected_return_pct > config.reduce_margin_pct + least:
        reasons.append("expected_return_above_margin")
        return "reduce_size"
    reasons.append("expected_return_not_above_margin")
    return "skip"


def _kelly(belief: Belief) -> tuple[float, bool]:
    """The full Kelly stake, a fraction of equity put at risk, and whether doubt halved it.

    With break-even probability e = loss / (win + loss), Kelly's (1956) f* is (p − e) / (1 − e).
    A probability that is only estimated, with standard error s, earns less than that says: Baker
    and McHale (2013, Decision Analysis 10:3) shrink f* by (p − e)² / ((p − e)² + s²). Written so
    that rounding keeps it monotone in p.
    """
    win = belief.mean_win_pct
    if not win > 0.0:
        return 0.0, False
    even = 1.0 / (1.0 + win / -belief.mean_loss_pct) if belief.mean_loss_pct < 0.0 else 0.0
    edge = belief.probability - even
    if not edge > 0.0:
        return 0.0, False
    stake = edge / (1.0 - even)
    if belief.probability_interval is None:
        return stake, False
    low, high = belief.probability_interval
    doubt = max(high - low, 0.0) / (2.0 * NORMAL_90) / edge
    return stake / (1.0 + doubt * doubt), doubt > 1.0


def _full_size(belief: Belief, config: PolicyConfig) -> tuple[float, bool]:
    """The largest position, a fraction of equity, and whether the position cap sets it."""
    position = config.max_position_pct / 100.0
    loss = -belief.mean_loss_pct
    if loss * position > config.max_risk_pct:
        return config.max_risk_pct / loss, False
    return position, True


def _cut(belief: Belief, exposure: Exposure, config: PolicyConfig) -> float:
    """What volatility and correlated open trades leave of a size.

    Of n + 1 equal bets that all correlate by rho, each is worth 1 / (1 + rho n) of what it is worth
    alone: that is Kelly's stake, solved for normal returns (Thorp 2006, The Kelly criterion).
    """
    correlated = exposure.same_symbol + exposure.same_strategy_side
    cut = 1.0 / (1.0 + config.correlation * correlated)
    if belief.volatility is not None and belief.volatility > 1.0:
        cut /= belief.volatility
    return cut


def _say_cuts(belief: Belief, exposure: Exposure, config: PolicyConfig, reasons: list[str]) -> None:
    if belief.volatility is not None and belief.volatility > 1.0:
        reasons.append("high_volatility")
    if exposure.same_symbol + exposure.same_strategy_side > 0 and config.correlation > 0.0:
        reasons.append("correlated_open_trade")
