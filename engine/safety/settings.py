"""The settings of the safety system, each part of the core's configuration."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.section import Fraction, Percent, Positive, Section, Share
from streams.events import Mode

State = Literal["ACTIVE", "REDUCING", "HALTED"]
"""ACTIVE: decisions count; REDUCING: at reduced size; HALTED: not at all."""
Answer = Literal["baseline", "skip"]
Minutes = Annotated[float, Field(gt=0.0)]


class TriggerConfig(Section):
    """One trigger of the kill switch."""

    enabled: bool = Field(True, description="whether it is looked at")
    threshold: float = Field(description="past this it fires")
    window: Positive = Field(description="what it looks back on, in what it counts")
    target: State = Field(description="what the engine becomes; ACTIVE: an alert is all")
    cool_down_minutes: Minutes | None = Field(
        None,
        description="event time after which the engine is armed again by itself, if the trigger"
        " doesn't fire any more; without it a person arms it",
    )


def _trigger(
    meaning: str, threshold: float, window: int, target: State, cool_down: float | None = None
) -> Any:
    config = TriggerConfig(
        threshold=threshold, window=window, target=target, cool_down_minutes=cool_down
    )
    return Field(config, description=meaning)


class TriggersConfig(Section):
    """What turns the kill switch."""

    consecutive_losses: TriggerConfig = _trigger(
        "Losses of taken trades in a row: so many, or more. (The window counts trades.)",
        3, 3, "REDUCING", 60.0,
    )  # fmt: skip
    drawdown: TriggerConfig = _trigger(
        "Percent of equity lost since its highest point within the newest taken trades.",
        10.0, 1_000, "HALTED",
    )  # fmt: skip
    accuracy: TriggerConfig = _trigger(
        "Share of the newest closes whose outcome the probability called, beyond doubt below this.",
        0.50, 500, "HALTED",
    )  # fmt: skip
    accuracy_low: TriggerConfig = _trigger(
        "The same, as a warning.", 0.55, 500, "ACTIVE"
    )  # fmt: skip
    win_rate: TriggerConfig = _trigger(
        "Points by which taken trades of the newest closes win more rarely, beyond doubt, than"
        " those that the bots' baseline takes.",
        10.0, 500, "HALTED",
    )  # fmt: skip
    win_rate_low: TriggerConfig = _trigger("The same, as a warning.", 5.0, 500, "ACTIVE")
    absurd_returns: TriggerConfig = _trigger(
        "Usual sizes of a return of its symbol that the newest closes' returns exceed, so many in a"
        " row: who says so doesn't speak of trades.",
        50.0, 3, "HALTED",
    )  # fmt: skip
    latency: TriggerConfig = _trigger(
        "Milliseconds of the 99th percentile of the newest decisions' latency, as the worker"
        " measures it.",
        100.0, 1_000, "REDUCING", 15.0,
    )  # fmt: skip
    late_labels: TriggerConfig = _trigger(
        "Times the usual delay of a close (its 90th percentile) without any close at all, while so"
        " many signals came.",
        3.0, 100, "REDUCING", 60.0,
    )  # fmt: skip
    probability_range: TriggerConfig = _trigger(
        "Share of the newest decisions whose probability lies outside of the middle 98 percent of"
        " those before.",
        0.8, 200, "REDUCING", 240.0,
    )  # fmt: skip
    repeated_drift: TriggerConfig = _trigger(
        "Alarms of the mixture's drift detector within the newest closes: so many, or more.",
        3, 1_000, "REDUCING", 1_440.0,
    )  # fmt: skip
    snapshot_age: TriggerConfig = _trigger(
        "Minutes since the newest snapshot, as the worker measures it while events come. (The"
        " window counts measurements.)",
        60.0, 1, "ACTIVE",
    )  # fmt: skip
    calibration: TriggerConfig = _trigger(
        "Points between the mean probability of the newest closes and the share that won.",
        10.0, 500, "HALTED",
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: object) -> object:
        """What a trigger's table leaves out is as by default."""
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        for name, value in given.items():
            if name in cls.model_fields and isinstance(value, Mapping):
                filled[name] = cls.model_fields[name].default.model_dump() | dict(value)
        return filled


class BotConfig(Section):
    """What holds for the signals of one strategy, whatever the model believes."""

    halted_answer: Answer | None = Field(
        None, description="as below [core.safety]; unset: as there"
    )
    max_position_pct: Percent | None = Field(
        None, description="largest position, percent of equity; unset: the policy's"
    )
    max_positions: Positive | None = Field(None, description="open trades; unset: the policy's")
    max_size: Share = Field(1.0, description="largest size multiplier")


class SafetyConfig(Section):
    """The kill switch, and what no model can exceed."""

    halted_answer: Answer = Field(
        "skip",
        description="what a halted engine answers to every signal: the bot's own baseline, or skip",
    )
    reducing_size: Share = Field(
        0.5, description="what sizes are multiplied by while the engine is REDUCING"
    )
    approve_above: Fraction = Field(
        0.2, description="relative change of a setting, while running, that needs an approval"
    )
    bots: dict[str, BotConfig] = Field(
        default_factory=dict, description="hard limits by the signals' strategy"
    )
    triggers: TriggersConfig = TriggersConfig()


class RolloutConfig(Section):
    """How a model comes to decide: which share of the signals, and what proves that it may."""

    mode: Mode = Field(
        "live",
        description="what a new engine begins with. shadow: the baseline is answered, the model's"
        " own answer stands in the outcome; advisory: the baseline is answered, the model's answer"
        " stands beside it; canary: the model decides its share; live: the model decides",
    )
    stages: tuple[Percent, ...] = Field(
        (10.0, 25.0, 50.0, 100.0),
        min_length=1,
        description="percent of the signals that canary gives to the model, stage by stage; 100 is"
        " live",
    )
    min_closes: Positive = Field(100, description="closes of both arms before a stage may end")
    shadow_min_closes: Positive = Field(50, description="the same in shadow and advisory")
    min_days: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="days of event time before a stage may end"
    )
    error_rate: Annotated[float, Field(gt=0.0, le=0.5)] = Field(
        0.05, description="chance that a rollout of equal arms is ever promoted or demoted"
    )
    promotion: Literal["automatic", "approval"] = Field(
        "approval", description="whether the next stage begins by itself or asks a person"
    )
    demotion: Literal["automatic", "approval"] = Field(
        "automatic", description="the same for going back to shadow"
    )


class AlertsConfig(Section):
    """How often the same is said."""

    repeat_minutes: Minutes = Field(
        60.0, description="event time during which the same alert isn't said again, only counted"
    )
    max_per_hour: Positive = Field(
        60, description="alerts in an hour of event time that aren't critical; past it they wait"
    )
    daily_summary: bool = Field(True, description="whether each day of event time is summed up")
