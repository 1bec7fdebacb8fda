"""The one configuration: `closeloop.toml`, overridden by `CLOSELOOP_…` in the environment.

`CoreConfig` is what the model's answers depend on; its digest stands in every decision and
snapshot. The rest of `Config` says where and how the shell around the core works.
"""

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from learners import RefitParams

DEFAULT_PATH = Path("closeloop.toml")

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Reaction = Literal["alert", "reset", "refit"]


class ConfigError(Exception):
    """A configuration that can't be used; the message names the setting, the value and the mend."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LedgerConfig(_Section):
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


class FeaturesConfig(_Section):
    """How features become a vector."""

    max_columns: Positive = Field(512, description="columns of the vector; later ones are left out")
    max_categories: Positive = Field(32, description="values of one category with their own column")


class ExpertConfig(_Section):
    """One expert: a kind of ours, or any River classifier by its dotted path."""

    kind: str = Field(description="base_rate, logistic, bayes, forest or a path such as river.…")
    params: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="arguments of its constructor"
    )


class RefitConfig(_Section):
    """The LightGBM champion: when it is fit again, on what, and when a challenger takes over."""

    enabled: bool = Field(True, description="whether there is a LightGBM expert at all")
    every: Positive = Field(500, description="closes between refits")
    lag: Positive = Field(100, description="closes from a refit's launch to its installation")
    window: Positive = Field(8_000, description="newest closes it is fit on")
    holdout: Positive = Field(500, description="newest closes of the window that judge it instead")
    tolerance: Annotated[float, Field(ge=0.0)] = Field(
        0.0002, description="log loss by which a challenger may be worse than the champion"
    )
    params: RefitParams = Field(RefitParams(), description="LightGBM's own parameters")


class DriftConfig(_Section):
    """ADWIN on the log loss of the mixture and of each expert, and what happens when it rises."""

    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.002, description="ADWIN's confidence: smaller alarms less"
    )
    on_mixture: tuple[Reaction, ...] = Field(
        ("alert", "refit"), description="alert; reset: even weights; refit: LightGBM now"
    )
    on_expert: tuple[Reaction, ...] = Field(
        ("alert",), description="alert; reset: that expert starts anew; refit: LightGBM now"
    )


class PolicyConfig(_Section):
    """From a probability to an action."""

    take: Fraction = Field(0.60, description="take at this probability or above")
    skip: Fraction = Field(0.40, description="skip below this probability")
    reduced_size: Fraction = Field(0.5, description="size_multiplier of reduce_size")
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
    return {kind: ExpertConfig(kind=kind) for kind in ("base_rate", "logistic", "bayes", "forest")}


class CoreConfig(_Section):
    """Everything that the model's answers depend on."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="of every random draw")
    ledger: LedgerConfig = LedgerConfig()
    features: FeaturesConfig = FeaturesConfig()
    experts: dict[str, ExpertConfig] = Field(default_factory=_default_experts)
    refit: RefitConfig = RefitConfig()
    drift: DriftConfig = DriftConfig()
    policy: PolicyConfig = PolicyConfig()

    @model_validator(mode="after")
    def _has_base_rate(self) -> "CoreConfig":
        if not any(expert.kind == "base_rate" for expert in self.experts.values()):
            raise ValueError("experts: one must be of kind base_rate, so that the mixture does no harm")
        return self

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the canonical JSON."""
        plain = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(plain).hexdigest()


class StreamConfig(_Section):
    """Which Redis, which shard."""

    address: str = Field(
        "redis://127.0.0.1:6379/0", description="redis://, rediss://, unix://, embedded://DIR, memory://"
    )
    prefix: str = Field("closeloop", description="first part of every key")
    shard: Annotated[int, Field(ge=0)] = Field(0, description="the shard this worker owns")
    shards: Positive = Field(1, description="shards in all; a signal's is crc32(symbol) % shards")
    max_outputs: Positive = Field(1_000_000, description="entries kept in each output stream")


class WorkerConfig(_Section):
    """How the worker reads and commits."""

    batch: Positive = Field(512, description="input entries in a commit, at most")
    lease_ms: Annotated[int, Field(ge=100)] = Field(
        10_000, description="how long a silent worker keeps its shard"
    )


class SnapshotConfig(_Section):
    """Where snapshots go and how many are kept."""

    directory: Path = Field(Path("closeloop-data/snapshots"), description="a folder")
    every: Positive = Field(5_000, description="input entries between snapshots")
    keep: Annotated[int, Field(ge=2)] = Field(5, description="newest snapshots kept")
    key: SecretStr | None = Field(
        None, description="signs them; without one a key file is made in the folder"
    )


class HttpConfig(_Section):
    """Metrics and health, for operators."""

    host: str = Field("127.0.0.1", description="the address bound")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        9464, description="/metrics, /healthz and /readyz; 0: any free port"
    )
    enabled: bool = Field(True, description="whether to serve at all")


class LogConfig(_Section):
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least shown")
    format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="auto: pretty on a terminal, JSON elsewhere"
    )


class Config(BaseSettings):
    """All settings of a closeloop process."""

    model_config = SettingsConfigDict(
        env_prefix="CLOSELOOP_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    stream: StreamConfig = StreamConfig()
    worker: WorkerConfig = WorkerConfig()
    snapshots: SnapshotConfig = SnapshotConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()
    control_key: SecretStr | None = Field(None, description="signs control events; without one none is obeyed")
    core: CoreConfig = CoreConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line over environment over file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_config(path: Path | None = None) -> Config:
    """The configuration from `path` (``closeloop.toml`` where there is one) and the environment.

    Raises
    ------
    ConfigError
        In one line: the file or setting, the value, the mend.
    """
    if path is not None and not path.is_file():
        raise ConfigError(f"no config file {path}; write one with `closeloop init {path}`")
    source = path or (DEFAULT_PATH if DEFAULT_PATH.is_file() else None)

    class _FromFile(Config):
        model_config = SettingsConfigDict(toml_file=source)

    try:
        return _FromFile()
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        shown = "" if "key" in where else f"; got {first['input']!r}"
        origin = f"{source} or the environment" if source else "the environment"
        raise ConfigError(
            f"{origin}: setting `{where}`: {first['msg']}{shown};"
            " `closeloop init` prints every setting with its meaning"
        ) from None
