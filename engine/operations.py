"""What people tell the engine: each command, once its signature holds, done between two events."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias, cast

from engine.champions import Champions
from engine.commands import problem
from engine.finding import Finding
from engine.live_settings import LiveSettings, SettingError
from engine.safety.guard import Guard
from engine.safety.registry import RegistryError
from learners import Order
from streams.events import Control, Mode, ModelChange, Severity

Done: TypeAlias = list[Finding | ModelChange]
Args: TypeAlias = dict[str, float | bool | str | None]


class Refused(Exception):
    """A command that isn't obeyed; the message says why, for a person."""


class Operations:
    """Obeys commands.

    Parameters
    ----------
    champions, guard, settings
        What commands act on.
    """

    def __init__(self, champions: Champions, guard: Guard, settings: LiveSettings) -> None:
        self._champions = champions
        self._guard = guard
        self._settings = settings
        self._how: dict[str, Callable[[Control, Args, datetime], Done]] = {
            "halt": self._halt,
            "arm": self._arm,
            "refit": self._refit,
            "mode": self._mode,
            "install": self._install,
            "rollback": self._rollback,
            "pin": self._pin,
            "unpin": self._unpin,
            "set": self._set,
            "approve": self._approve,
            "reject": self._reject,
            "measure": self._measure,
        }

    def obey(self, control: Control, now: datetime) -> Done:
        """Do what a command says; returns what there is to tell. Raises `Refused`.

        `now` is event time.
        """
        why = problem(control, self._guard.revision)
        if why is not None:
            raise Refused(why)
        args = {name: v for name, v in (control.args or {}).items() if name != "revision"}
        return self._do(control, args, now)

    def _do(self, control: Control, args: Args, now: datetime) -> Done:
        try:
            done = self._how[control.command](control, args, now)
        except (RegistryError, SettingError, LookupError) as error:
            raise Refused(str(error.args[0])) from None
        if control.command == "measure":
            return done
        self._guard.revision += 1
        return [replace(one, always=True) if isinstance(one, Finding) else one for one in done]

    # The kill switch

    def _halt(self, control: Control, args: Args, now: datetime) -> Done:
        if not self._guard.switch.halt(now):
            raise Refused("the engine is halted by a person already; nothing was changed")
        return [Finding("critical", "halt", "engine", f"halted {_why(control)}")]

    def _arm(self, control: Control, args: Args, now: datetime) -> Done:
        lifted = self._guard.switch.arm()
        if lifted is None:
            raise Refused("the engine is armed already; nothing was changed")
        told: Done = [Finding("warning", "arm", "engine", f"armed {_why(control)}")]
        told += self._guard.switch.resolved(lifted)
        return told

    def _measure(self, control: Control, args: Args, now: datetime) -> Done:
        name, value = str(args["name"]), float(cast(float, args["value"]))
        return list(self._guard.switch.measured(name, value, now))

    # The rollout

    def _mode(self, control: Control, args: Args, now: datetime) -> Done:
        mode, rollout = args["mode"], self._guard.rollout
        if mode not in ("shadow", "advisory", "canary", "live"):
            raise Refused(f"mode {mode!r} is none; it is shadow, advisory, canary or live")
        first = min(rollout.config.stages)
        percent = float(cast(float, args.get("percent", first)))
        if mode == "canary" and not 0.0 < percent < 100.0:
            raise Refused(f"canary takes a percent between 0 and 100, not {percent:g}")
        self._guard.move(cast(Mode, mode), percent, self._champions.closes, now)
        where = f"{mode} {percent:g} %" if mode == "canary" else str(mode)
        return [Finding("warning", "mode", "rollout", f"{where}, {_why(control)}")]

    # Models

    def _refit(self, control: Control, args: Args, now: datetime) -> Done:
        full, forced = bool(args.get("full")), bool(args.get("force"))
        self._champions.schedule.ask(Order(control.by, full, forced))
        kind = " in full" if full else ""
        kind += ", to be installed whatever the gate says," if forced else ""
        severity: Severity = "warning" if forced else "info"
        return [Finding(severity, "refit", "model", f"refit{kind} asked for {_why(control)}")]

    def _install(self, control: Control, args: Args, now: datetime) -> Done:
        model, forced = str(args["model"]), bool(args.get("force"))
        change = self._champions.install(model, forced, control.by, control.reason, control.ts)
        word = "forced in" if change.forced else "installed"
        return [_told(control, "install", model, f"{model} {word}"), change]

    def _rollback(self, control: Control, args: Args, now: datetime) -> Done:
        named = args.get("model")
        model = None if named is None else str(named)
        change = self._champions.roll_back(model, control.by, control.reason, control.ts)
        return [_told(control, "rollback", change.model, f"back to {change.model}"), change]

    def _pin(self, control: Control, args: Args, now: datetime) -> Done:
        model = str(args["model"])
        change = self._champions.pin(model, control.by, control.reason, control.ts)
        return [_told(control, "pin", model, f"{model} pinned"), change]

    def _unpin(self, control: Control, args: Args, now: datetime) -> Done:
        change = self._champions.unpin(control.by, control.reason, control.ts)
        return [
            _told(control, "unpin", change.model, f"{change.model} not pinned any more"),
            change,
        ]

    # Settings and approvals

    def _set(self, control: Control, args: Args, now: datetime) -> Done:
        setting, value = str(args["setting"]), float(cast(float, args["value"]))
        before = self._settings.value(setting)
        self._settings.with_change(setting, value)
        change = f"{setting} from {before:g} to {value:g}"
        limit = self._guard.approve_above
        if self._settings.relative_change(setting, value) > limit:
            proposal = self._guard.approvals.propose("set", args, control.by, control.reason)
            message = (
                f"{change} is a change of more than {limit:.0%}: it waits as proposal"
                f" {proposal.number}, asked {_why(control)}"
            )
            return [Finding("warning", "approval_asked", setting, message)]
        self._settings.change(setting, value)
        return [Finding("warning", "set", setting, f"{change} {_why(control)}")]

    def _approve(self, control: Control, args: Args, now: datetime) -> Done:
        proposal = self._guard.approvals.take(float(cast(float, args["proposal"])))
        told: Done = [
            Finding("info", "approve", f"proposal {proposal.number}", f"approved {_why(control)}")
        ]
        if proposal.command == "set":
            setting = str(proposal.args["setting"])
            value = float(cast(float, proposal.args["value"]))
            before = self._settings.value(setting)
            self._settings.change(setting, value)
            message = f"{setting} from {before:g} to {value:g} {_why(control)}"
            return [*told, Finding("warning", "set", setting, message)]
        return told + self._how[proposal.command](control, proposal.args, now)

    def _reject(self, control: Control, args: Args, now: datetime) -> Done:
        proposal = self._guard.approvals.take(float(cast(float, args["proposal"])))
        message = f"dropped {_why(control)}"
        return [Finding("info", "reject", f"proposal {proposal.number}", message)]


def _why(control: Control) -> str:
    return f"by {control.by}: {control.reason}"


def _told(control: Control, code: str, model: str, what: str) -> Finding:
    return Finding("warning", code, model, f"{what} {_why(control)}")
