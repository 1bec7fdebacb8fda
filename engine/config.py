"""The one configuration: `closeloop.toml`, overridden by `CLOSELOOP_…` in the environment.

`core` is what the model's answers depend on; the rest says where and how the shell around it works.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from engine.core_config import CoreConfig
from engine.section import Positive, Section
from snapshots.format import MIN_KEY_BYTES
from streams.events import Severity

DEFAULT_PATH = Path("closeloop.toml")


class ConfigError(Exception):
    """A configuration that can't be used; the message names the setting, the value and the mend."""


class StreamConfig(Section):
    """Which Redis, which shard."""

    address: str = Field(
        "redis://127.0.0.1:6379/0",
        description="redis://, rediss://, unix://, embedded://DIR, memory://",
    )
    prefix: str = Field("closeloop", description="first part of every key")
    shard: Annotated[int, Field(ge=0)] = Field(0, description="the shard this worker owns")
    shards: Positive = Field(1, description="shards in all; a signal's is crc32(symbol) % shards")
    max_outputs: Positive = Field(200_000, description="entries kept in each output stream")
    max_dead_bytes: Positive = Field(
        64 * 2**20, description="bytes kept of dead letters, each as large as what came"
    )


class WorkerConfig(Section):
    """How the worker reads and commits."""

    batch: Positive = Field(512, description="input entries in a commit, at most")
    lease_ms: Annotated[int, Field(ge=100)] = Field(
        1_500, description="how long a silent worker keeps its shard from a standby"
    )


class SnapshotConfig(Section):
    """Where snapshots go and how many are kept."""

    directory: Path = Field(Path("closeloop-data/snapshots"), description="a folder")
    every: Positive = Field(5_000, description="input entries between snapshots")
    keep: Annotated[int, Field(ge=2)] = Field(5, description="newest snapshots kept")
    retain: Positive = Field(
        200_000, description="input entries kept even when the oldest snapshot covers them"
    )
    key: SecretStr | None = Field(
        None,
        min_length=MIN_KEY_BYTES,
        description="signs them; without one a key file is made in the folder",
    )


class HttpConfig(Section):
    """Metrics, health and control, for operators."""

    host: str = Field("127.0.0.1", description="the address bound")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        9464, description="/metrics, /healthz and /readyz; 0: any free port"
    )
    enabled: bool = Field(True, description="whether to serve at all")
    token: SecretStr | None = Field(
        None,
        min_length=MIN_KEY_BYTES,
        description="asked of whoever changes anything; without one nothing can be changed here",
    )


class WebhookConfig(Section):
    """Alerts to a webhook, in Slack's format."""

    url: SecretStr | None = Field(None, description="where to; without one nothing is sent")
    least: Severity = Field("warning", description="the least severity sent")


class EmailConfig(Section):
    """Alerts by e-mail."""

    host: str | None = Field(None, description="the SMTP server; without one nothing is sent")
    port: Annotated[int, Field(ge=1, le=65_535)] = Field(587, description="its port")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="how the connection is encrypted"
    )
    user: str | None = Field(None, description="who logs in; without one nobody does")
    password: SecretStr | None = Field(None, description="and with which password")
    sender: str = Field("closeloop@localhost", description="who the mail is from")
    recipients: tuple[str, ...] = Field((), description="who gets it")
    least: Severity = Field("critical", description="the least severity sent")


class NotifyConfig(Section):
    """Alerts to where people look. None of it ever waits in a decision's way."""

    timeout_s: Annotated[float, Field(gt=0.0)] = Field(
        5.0, description="how long a receiver may take"
    )
    attempts: Positive = Field(5, description="tries for an alert; then it is only logged")
    webhook: WebhookConfig = WebhookConfig()
    email: EmailConfig = EmailConfig()


class LogConfig(Section):
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least shown"
    )
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
    notify: NotifyConfig = NotifyConfig()
    control_key: SecretStr | None = Field(
        None,
        min_length=MIN_KEY_BYTES,
        description="signs control events; without one none is obeyed",
    )
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
    except SettingsError:
        raise ConfigError(
            "a table of settings in the environment is not JSON: write `{...}`, or one variable a"
            " setting, as in CLOSELOOP_STREAM__ADDRESS"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        value = first["input"]
        # A secret may also stand where it doesn't belong.
        misplaced = first["type"] in ("extra_forbidden", "model_type")
        secret = misplaced or where.endswith(("key", "address", "token", "password", "url"))
        shown = f"; got {value!r}" if isinstance(value, str | int | float) and not secret else ""
        origin = f"{source} or the environment" if source else "the environment"
        raise ConfigError(
            f"{origin}: setting `{where}`: {first['msg']}{shown};"
            " `closeloop init` prints every setting with its meaning"
        ) from None
