"""The configuration of the core: everything that the model's answers depend on.

Its digest stands in every decision and every snapshot.
"""

import hashlib
from typing import Annotated, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from engine.safety.settings import AlertsConfig, RolloutConfig, SafetyConfig
from engine.safety.timetable import time_of_day, time_of_week
from engine.section import Fraction, Percent, Positive, Section, Share
from learners import Gate, RefitParams
from learners.gate import Metric

Reaction = Literal["alert", "reset", "refit", "recalibrate"]


class LedgerConfig(Section):
    """Open signals, waiting for their closes."""

    max_open: Positive = Field(10_000, description="open signals kept; past it the oldest expires")
    expire_days: Annotated[float, Field(gt=0)] = Field(
        60.0, description="event time after which a signal without a close expires"
    )
    max_parked: Positive = Field(1_000, description="closes kept that came before their signal")
    park_minutes: Annotated[float, Field(gt=0)] = Field(
        60.0, description="event time after which a close without a signal is given up"
    )
    remember: Positive = Field(50_000, description="ended signals remembered, to know duplicates")


class FeaturesConfig(Section):
    """How features become a vector."""

    max_columns: Positive = Field(512, description="columns of the vector; later ones are left out")
    max_categories: Positive = Field(32, description="values of one category with their own column")


class ExpertConfig(Section):
    """One expert: a kind of ours, or any River classifier by its dotted path."""

    kind: str = Field(description="base_rate, group_rate, logistic, bayes, forest or river.…")
    params: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="arguments of its constructor"
    )


class RefitConfig(Section):
    """The LightGBM champion: when it is fit again, on what, and when a challenger takes over."""

    enabled: bool = Field(True, description="whether there is a LightGBM expert at all")
    every: Positive = Field(500, description="closes between refits")
    lag: Positive = Field(200, description="closes from a refit's launch to its installation")
    window: Positive = Field(8_000, description="newest closes it is fit on")
    holdout: Positive = Field(500, description="newest closes of the window that judge it instead")
    tolerance: Annotated[float, Field(ge=0.0)] = Field(
        0.0002, description="log loss by which a challenger may be worse than the champion"
    )
    guarded: tuple[Metric, ...] = Field(
        ("log_loss", "brier", "auc", "accuracy"),
        description="metrics of which none may be worse than the champion's by more than `guard`",
    )
    guard: Fraction = Field(0.1, description="by which share of the champion's")
    floor_accuracy: Fraction | None = Field(
        None, description="least accuracy of a challenger, such as 0.70"
    )
    floor_f1: Fraction | None = Field(None, description="least F1 of a challenger, such as 0.65")
    min_closes: Positive = Field(10, description="held-out closes below which nobody is judged")
    keep: Annotated[int, Field(ge=4)] = Field(
        6, description="models kept in the state, to go back to"
    )
    daily_at: str | None = Field(
        None, description="event time of a refit every day, UTC, such as 02:00"
    )
    weekly_at: str | None = Field(
        None, description="of a refit in full every week, such as Sunday 03:00"
    )
    params: RefitParams = Field(RefitParams(), description="LightGBM's own parameters")

    @field_validator("daily_at")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            time_of_day(value)
        return value

    @field_validator("weekly_at")
    @classmethod
    def _is_a_time_of_the_week(cls, value: str | None) -> str | None:
        if value is not None:
            time_of_week(value)
        return value

    @property
    def gate(self) -> Gate:
        """What a challenger must be."""
        floors = {"accuracy": self.floor_accuracy, "f1": self.floor_f1}
        asked = {name: floor for name, floor in floors.items() if floor is not None}
        return Gate(self.tolerance, self.guarded, self.guard, asked, self.min_closes)


class DriftConfig(Section):
    """ADWIN on the log loss of the mixture and of each expert, and what happens when it rises."""

    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.002, description="ADWIN's confidence: smaller alarms less"
    )
    on_mixture: tuple[Reaction, ...] = Field(
        ("alert", "refit", "recalibrate"),
        description="alert; reset: even weights; refit: LightGBM now; recalibrate: quickly",
    )
    features: bool = Field(True, description="whether features are watched for drift, too")
    feature_reference: Positive = Field(1_000, description="signals that newer ones are held to")
    feature_window: Positive = Field(500, description="newest signals; checked once as often")
    feature_level: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.01, description="false discovery rate over all features of a check"
    )
    on_expert: tuple[Reaction, ...] = Field(
        ("alert",),
        description="alert; reset: that expert starts anew; refit, recalibrate: as above",
    )


class PolicyConfig(Section):
    """From what is believed of a signal to an action and a size."""

    rule: Literal["expected_value", "thresholds"] = Field(
        "expected_value",
        description="expected_value: by the expected return, sized by Kelly; thresholds: by the "
        "probability alone, at full or reduced size",
    )
    take_margin_pct: float = Field(
        0.0, description="take when the lower side of the expected return is above this, percent"
    )
    reduce_margin_pct: float = Field(
        0.0,
        description="reduce the size when the expected return is above this, percent, and"
        " stands out",
    )
    least_edge: Annotated[float, Field(ge=0.0)] = Field(
        0.01,
        description="to stand out, the expected return must exceed that margin by this share of "
        "a return's usual size",
    )
    take: Fraction = Field(0.60, description="thresholds: take at this probability or above")
    skip: Fraction = Field(0.40, description="thresholds: skip below this probability")
    reduced_size: Share = Field(0.5, description="what the size of reduce_size is multiplied by")
    kelly_fraction: Share = Field(
        0.25, description="the share of the full Kelly stake that is put at risk"
    )
    max_position_pct: Percent = Field(10.0, description="largest position, percent of equity")
    max_risk_pct: Percent = Field(
        1.0, description="most that a mean loss may cost, percent of equity"
    )
    max_positions: Annotated[int, Field(ge=1)] = Field(
        20, description="open trades; with so many open no other is taken"
    )
    correlation: Fraction = Field(
        0.5, description="assumed of open trades on the same symbol, or of a strategy and side"
    )
    exploration_rate: Fraction = Field(
        0.01, description="share of the skipped signals that are taken all the same, to learn"
    )
    exploration_size: Share = Field(0.25, description="the size of such a trade")
    warmup_closes: Annotated[int, Field(ge=0)] = Field(
        100, description="closes during which the bot's own baseline is echoed"
    )
    default_baseline: Literal["take", "skip"] = Field(
        "take", description="the baseline of a bot that names none: it did make the signal"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "PolicyConfig":
        if self.skip > self.take:
            raise ValueError(f"skip ({self.skip}) must not be above take ({self.take})")
        return self


def _default_experts() -> dict[str, ExpertConfig]:
    alone = {kind: ExpertConfig(kind=kind) for kind in ("logistic", "bayes", "forest")}
    return {
        "base_rate": ExpertConfig(kind="base_rate"),
        "strategy_side": ExpertConfig(kind="group_rate", params={"by": "strategy+side"}),
        "symbol": ExpertConfig(kind="group_rate", params={"by": "symbol", "min_closes": 20}),
        "regime": ExpertConfig(kind="group_rate", params={"by": "regime", "min_closes": 50}),
        **alone,
    }


class CoreConfig(Section):
    """Everything that the model's answers depend on."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="of every random draw")
    ledger: LedgerConfig = LedgerConfig()
    features: FeaturesConfig = FeaturesConfig()
    experts: dict[str, ExpertConfig] = Field(default_factory=_default_experts)
    refit: RefitConfig = RefitConfig()
    drift: DriftConfig = DriftConfig()
    policy: PolicyConfig = PolicyConfig()
    rollout: RolloutConfig = RolloutConfig()
    safety: SafetyConfig = SafetyConfig()
    alerts: AlertsConfig = AlertsConfig()

    @model_validator(mode="after")
    def _has_base_rate(self) -> "CoreConfig":
        if not any(expert.kind == "base_rate" for expert in self.experts.values()):
            raise ValueError(
                "experts: one must be of kind base_rate, so that the mixture does no harm"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the canonical JSON."""
        plain = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(plain).hexdigest()
