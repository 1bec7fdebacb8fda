"""Settings that can be changed while running: the policy's numbers, by signed commands.

They are part of the state, so a replay changes them at the same event; the digest in every decision
tells with which settings it was made.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from engine.core_config import CoreConfig, PolicyConfig

PREFIX = "policy."


class SettingError(Exception):
    """A setting that can't be changed so; the message names it and the mend."""


class LiveSettings:
    """The policy as it stands.

    Parameters
    ----------
    config
        As configured.
    """

    def __init__(self, config: CoreConfig) -> None:
        self._config = config
        self._changed: dict[str, float] = {}
        self.policy: PolicyConfig = config.policy
        self.digest = config.digest[:12]
        """The first 12 hex digits of the digest of all settings as they stand."""

    def value(self, setting: str) -> float:
        """A number of the policy's as it stands. Raises `SettingError` when it is none."""
        name = setting.removeprefix(PREFIX)
        value = getattr(self.policy, name, None) if name in PolicyConfig.model_fields else None
        if not setting.startswith(PREFIX) or isinstance(value, bool | str | None):
            raise SettingError(
                f"{setting!r} can't be changed while running; these can: {', '.join(changeable())}"
            )
        return float(value)

    def with_change(self, setting: str, value: float) -> PolicyConfig:
        """The policy with a setting changed. Raises `SettingError` when it can't be."""
        self.value(setting)
        try:
            return _changed(self.policy, {setting: value})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise SettingError(f"{setting} can't be {value:g}: {first['msg']}") from None

    def relative_change(self, setting: str, value: float) -> float:
        """How much a value would change the setting, as a share of what it is now."""
        now = self.value(setting)
        if now == value:
            return 0.0
        return abs(value - now) / abs(now) if now else float("inf")

    def change(self, setting: str, value: float) -> None:
        """Change a setting. Raises `SettingError`, and then changes nothing."""
        self.policy = self.with_change(setting, value)
        self._changed[setting] = value
        self._take_digest()

    def _take_digest(self) -> None:
        self.digest = self._config.model_copy(update={"policy": self.policy}).digest[:12]

    def figures(self) -> dict[str, float]:
        """What was changed, for people."""
        return dict(self._changed)

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return dict(self._changed)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        # All at once: on the way from one to the other they needn't go together.
        self._changed = dict(state)
        self.policy = _changed(self._config.policy, self._changed)
        self._take_digest()


def _changed(policy: PolicyConfig, changes: Mapping[str, float]) -> PolicyConfig:
    """A policy with settings changed. Raises `ValidationError`."""
    numbers: dict[str, float] = {}
    for setting, value in changes.items():
        name = setting.removeprefix(PREFIX)
        whole = PolicyConfig.model_fields[name].annotation is int
        numbers[name] = int(value) if whole and value == int(value) else value
    return PolicyConfig.model_validate({**policy.model_dump(), **numbers})


def changeable() -> list[str]:
    """The settings that can be changed while running."""
    policy = PolicyConfig()
    numbers = [
        name
        for name in PolicyConfig.model_fields
        if isinstance(getattr(policy, name), int | float)
        and not isinstance(getattr(policy, name), bool)
    ]
    return [PREFIX + name for name in numbers]
