"""From what the model would do to what is done: rollout, hard limits, kill switch. Pure functions.

The kill switch has the last word, then the rollout's arm, then the bot's hard limits, then the
model.
"""

from dataclasses import replace
from typing import NamedTuple

from engine.policy import Verdict, echo
from engine.safety.settings import BotConfig, SafetyConfig, State
from streams.events import Arm, Baseline, Mode

_BASELINE_REASON: dict[Mode, str] = {
    "shadow": "shadow",
    "advisory": "advisory",
    "canary": "baseline_arm",
}


class Answer(NamedTuple):
    """What is done about a signal, and whose decision that is.

    Parameters
    ----------
    done
        The answer. Its propensity is the chance of it being taken before any draw.
    arm
        Whose it is; None: the kill switch's.
    advised
        What the model would do, within the limits.
    """

    done: Verdict
    arm: Arm | None
    advised: Verdict


def answer(
    wanted: Verdict,
    arm: Arm,
    mode: Mode,
    share: float,
    state: State,
    baseline: Baseline | None,
    default_baseline: Baseline,
    bot: BotConfig | None,
    open_trades: int,
    config: SafetyConfig,
) -> Answer:
    """What is done about a signal.

    Parameters
    ----------
    wanted
        What the model wants to do.
    arm, mode, share
        Of the rollout: whose signal it is, and the share of the model's.
    state
        The kill switch's.
    baseline, default_baseline
        What the bot's own rules would do; and for bots that don't say.
    bot, open_trades
        The hard limits of its strategy, if there are any, and that strategy's open trades.
    config
        What a halted engine answers.
    """
    advised = wanted if bot is None else limited(wanted, bot, open_trades)
    if state == "REDUCING":
        advised = reduced(advised, config.reducing_size)
    if state == "HALTED":
        asked = config.halted_answer
        if bot is not None and bot.halted_answer is not None:
            asked = bot.halted_answer
        if asked == "skip":
            return Answer(Verdict("skip", 0.0, 0.0, ("halted",), 0.0), None, advised)
        return Answer(echo(baseline, default_baseline, "halted"), None, advised)
    if share == 1.0:
        return Answer(advised, "model", advised)
    own = echo(baseline, default_baseline, _BASELINE_REASON[mode])
    propensity = share * advised.propensity + (1.0 - share) * own.propensity
    done = advised if arm == "model" else own
    return Answer(replace(done, propensity=propensity), arm, advised)


def limited(wanted: Verdict, bot: BotConfig, open_trades: int) -> Verdict:
    """The verdict within a bot's hard limits."""
    if wanted.action == "skip":
        return wanted
    reasons = (*wanted.reasons, "bot_limit")
    if bot.max_positions is not None and open_trades >= bot.max_positions:
        return Verdict("skip", 0.0, 0.0, reasons, 0.0)
    size, position = wanted.size_multiplier, wanted.kelly_fraction
    scale = min(bot.max_size / size, 1.0) if size > 0.0 else 1.0
    if bot.max_position_pct is not None and position is not None and position > 0.0:
        scale = min(scale, bot.max_position_pct / 100.0 / position)
    if scale >= 1.0:
        return wanted
    return Verdict(
        "reduce_size",
        min(size * scale, bot.max_size),
        None if position is None else position * scale,
        reasons,
        wanted.propensity,
    )


def reduced(wanted: Verdict, share: float) -> Verdict:
    """The verdict at a share of its size."""
    if wanted.action == "skip":
        return wanted
    position = wanted.kelly_fraction
    return Verdict(
        "reduce_size",
        wanted.size_multiplier * share,
        None if position is None else position * share,
        (*wanted.reasons, "reducing"),
        wanted.propensity,
    )
