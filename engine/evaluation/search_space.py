"""What `closeloop tune` may change: settings of the core, their ranges, and the file they end in.

Only what moves the log loss stands here. Settings that trade speed for it without end (more trees)
and those that don't touch the probability (the policy, the ledger) are the user's own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import orjson
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from engine.core_config import CoreConfig
from learners.experts import ExpertSpec, build

Number = int | float


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting and the range it is searched in.

    Parameters
    ----------
    name
        Its path under ``core``, parts joined by dots.
    low, high
        Both included; whole numbers make it one.
    log
        Whether it is searched by its logarithm.
    """

    name: str
    low: Number
    high: Number
    log: bool = True

    def distribution(self, value: Number) -> BaseDistribution:
        """The range, widened to hold the configured `value`."""
        low, high = min(self.low, value), max(self.high, value)
        if isinstance(self.low, int):
            return IntDistribution(int(low), int(high), log=self.log)
        return FloatDistribution(low, high, log=self.log)


SPACE = (
    Setting("refit.every", 250, 2_000),
    Setting("refit.window", 2_000, 32_000),
    Setting("refit.params.rounds", 10, 120),
    Setting("refit.params.num_leaves", 4, 63),
    Setting("refit.params.learning_rate", 0.02, 0.3),
    Setting("refit.params.min_data_in_leaf", 20, 400),
    Setting("refit.params.feature_fraction", 0.3, 1.0, log=False),
    Setting("refit.params.bagging_fraction", 0.4, 1.0, log=False),
    Setting("refit.params.lambda_l2", 0.1, 100.0),
    Setting("drift.delta", 1e-5, 0.05),
    Setting("experts.logistic.params.lr", 0.001, 0.1),
    Setting("experts.forest.params.grace_period", 20, 400),
    Setting("experts.forest.params.delta", 1e-4, 0.3),
    Setting("experts.forest.params.rate", 1.0, 10.0),
    Setting("experts.forest.params.drift_delta", 1e-5, 0.02),
)
"""All that is searched. Ranges hold the defaults well inside."""


def configured(config: CoreConfig) -> dict[Setting, Number]:
    """The settings of `SPACE` that this configuration has, with their values.

    Without refits theirs are left out, and so are those of an expert that isn't there. What an
    expert's ``params`` don't name has the value that its constructor gives it.
    """
    found = {}
    for setting in SPACE:
        section, _, rest = setting.name.partition(".")
        if section == "experts":
            name, _, parameter = rest.partition(".params.")
            expert = config.experts.get(name)
            if expert is not None and expert.kind == name:
                model = build(ExpertSpec(name, expert.kind, expert.params))
                found[setting] = cast(Number, getattr(model, parameter))
        elif section != "refit" or config.refit.enabled:
            found[setting] = cast(Number, reduce(getattr, setting.name.split("."), config))
    return found


def with_settings(config: CoreConfig, values: Mapping[str, Number]) -> CoreConfig:
    """`config` with other values at the dotted paths. Raises pydantic's `ValidationError`."""
    plain = config.model_dump()
    for name, value in values.items():
        *path, last = name.split(".")
        table: dict[str, Any] = reduce(dict.__getitem__, path, plain)
        table[last] = value
    return CoreConfig.model_validate(plain)


def core_toml(config: CoreConfig) -> str:
    """The ``[core]`` of a `closeloop.toml`: every setting that isn't closeloop's default.

    `engine.config.load_config` makes an equal `CoreConfig` of it.
    """
    changed = config.model_dump(mode="json", exclude_defaults=True)
    return "\n".join(_tables(changed, "core")).strip() + "\n"


def _tables(table: Mapping[str, object], name: str) -> Iterator[str]:
    """A table's own settings, then the tables in it: TOML wants them in that order."""
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    if len(tables) < len(table) or not table:
        yield f"\n[{name}]"
    for key, value in table.items():
        if key not in tables and value is not None:
            # TOML writes scalars and lists of them as JSON does.
            yield f"{_key(key)} = {orjson.dumps(value).decode()}"
    for key, inner in tables.items():
        yield from _tables(inner, f"{name}.{_key(key)}")


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else orjson.dumps(name).decode()
