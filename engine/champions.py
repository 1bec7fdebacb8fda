"""Champions: when a refit is launched, who is installed when it is done, and what people change.

A refit launched at close k is settled at close k + lag exactly. The fit is a pure function of the
job, so where and when it is computed (another process, after a crash) changes nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from engine.core_config import CoreConfig
from engine.finding import Finding
from engine.safety.registry import Change, Kept, Registry, RegistryError, change, facts_of
from engine.safety.timetable import Timetable
from learners import (
    Booster,
    ExpertPanel,
    FeatureEncoder,
    Refit,
    RefitJob,
    RefitSchedule,
    RefitWindow,
)
from streams.events import ModelChange, Severity

CHAMPION = "lightgbm"
"""The name of the refit expert."""


class Fitter(Protocol):
    """Computes refits, wherever it likes: `collect` gives what `learners.fit(job)` would."""

    def submit(self, job: RefitJob) -> None:
        """Start on `job`; returns at once."""

    def collect(self, job_id: str) -> Refit:
        """The result of a submitted job; waits for it."""


class Champions:
    """The LightGBM expert's models: one installed, some kept, one perhaps under way.

    Parameters
    ----------
    config
        When refits are made, and what the gate asks.
    panel
        Has the expert that a champion is installed in.
    window
        The closes that refits are fitted on.
    encoder
        Knows the columns' names.
    fitter
        Computes refits.
    """

    def __init__(
        self,
        config: CoreConfig,
        panel: ExpertPanel,
        window: RefitWindow,
        encoder: FeatureEncoder,
        fitter: Fitter,
    ) -> None:
        self._config = config
        self._panel = panel
        self._window = window
        self._encoder = encoder
        self._fitter = fitter
        self.refits = {"launched": 0, "installed": 0, "rejected": 0}
        self.schedule = RefitSchedule(config.refit.every, config.refit.lag)
        self.timetable = Timetable(config.refit.daily_at, config.refit.weekly_at)
        self.registry = Registry(config.refit.keep)
        # The champion's twin: returns in usual sizes.
        self.return_booster = Booster()
        # Columns of the window at the launch of the refit under way.
        self._columns = 0
        # Closes since the mixture's loss last changed, at that launch.
        self._fresh = 0

    @property
    def id(self) -> str | None:
        """The ID of the installed model."""
        return self._booster.refit if self._config.refit.enabled else None

    @property
    def closes(self) -> int:
        """Closes learned so far."""
        return self._window.closes

    @property
    def _booster(self) -> Booster:
        booster = self._panel[CHAMPION]
        assert isinstance(booster, Booster)
        return booster

    def step(self, ts: datetime, now: datetime, fresh: int) -> list[Finding | ModelChange]:
        """A close of `ts` was learned: settle the refit that is due, launch the one that is.

        Parameters
        ----------
        ts
            The close's.
        now
            Event time.
        fresh
            Closes since the world last changed, as far as is known.
        """
        for order in self.timetable.due(now):
            self.schedule.ask(order)
        findings: list[Finding | ModelChange] = []
        due = self.schedule.step(self.closes)
        if due.install is not None:
            self._settle(due.install, ts, findings)
        if due.launch is not None:
            self._columns = self._window.columns
            self._fresh = fresh
            self.registry.defender = self.id
            self._fitter.submit(self._job(due.launch))
            self.refits["launched"] += 1
        return findings

    def _settle(self, launched: int, ts: datetime, findings: list[Finding | ModelChange]) -> None:
        """Install the refit launched at that close, or say why not."""
        refit = self._fitter.collect(_refit_id(launched))
        order, registry = self.schedule.done, self.registry
        columns = tuple(self._encoder.columns[: self._columns])
        facts = facts_of(refit, order, launched, columns)
        registry.defender = None
        forced = order.forced and refit.text is not None
        installed = forced or (refit.accepted and refit.text is not None and not registry.pinned)
        # Every decision of a model that the gate didn't let in says so.
        model = f"{refit.id}-forced" if forced else refit.id
        reason = refit.reason
        if refit.accepted and registry.pinned and not forced:
            reason += f" But {registry.champion} is pinned."
        if forced:
            reason += f" It was forced in by {order.cause}."
        if refit.text is not None:
            registry.keep(refit, model)
        record = partial(change, registry, ts, model=model, update=self.closes, by=order.cause)
        findings.append(record("fitted", reason=refit.reason, digest=refit.digest, facts=facts))
        if not installed:
            self.refits["rejected"] += 1
            findings.append(record("rejected", reason=reason))
            findings.append(Finding("info", "refit_rejected", refit.id, reason))
            return
        parent = self._put_in(model)
        self.refits["installed"] += 1
        findings.append(record("installed", reason=reason, parent=parent, forced=forced))
        severity: Severity = "warning" if forced else "info"
        findings.append(Finding(severity, "refit_installed", model, reason))

    def _put_in(self, model: str, back: bool = False) -> str | None:
        """Make a kept model champion; returns the one until now."""
        kept = self.registry[model]
        self._booster.install(kept.text, model)
        if kept.returns_text is None:
            self.return_booster = Booster()
        else:
            self.return_booster.install(kept.returns_text, model)
        return self.registry.install(model, back)

    def lose(self, ts: datetime) -> list[Finding | ModelChange]:
        """The champion was made to start afresh: there is none until the next refit."""
        self.return_booster = Booster()
        lost = self.registry.lose()
        if lost is None:
            return []
        reason = "its log loss has risen, and `drift.on_expert` says reset"
        return [change(self.registry, ts, "lost", lost, self.closes, "drift", reason, lost)]

    # What people do with models

    def install(self, model: str, forced: bool, by: str, reason: str, ts: datetime) -> ModelChange:
        """Make a kept model champion. Raises `RegistryError` when that can't be.

        What the gate refused must be `forced`.
        """
        kept = self.registry[model]
        if model == self.id:
            raise RegistryError(f"{model} is champion already; nothing was changed")
        if not kept.accepted and not forced:
            raise RegistryError(
                f"the gate refused {model}; give `force` to install it all the same"
            )
        skipped = not kept.accepted
        parent = self._put_in(model)
        return self._changed("installed", model, by, reason, ts, parent, skipped)

    def roll_back(self, model: str | None, by: str, reason: str, ts: datetime) -> ModelChange:
        """Go back to a kept model, or to the champion before. Raises `RegistryError`."""
        kept = self.registry.previous if model is None else self._let_in(model)
        if kept.id == self.id:
            raise RegistryError(f"{kept.id} is champion already; nothing was changed")
        parent = self._put_in(kept.id, back=True)
        return self._changed("rolled_back", kept.id, by, reason, ts, parent, not kept.accepted)

    def pin(self, model: str, by: str, reason: str, ts: datetime) -> ModelChange:
        """Make a kept model champion, and keep it. Raises `RegistryError`."""
        kept = self._let_in(model)
        parent = self._put_in(model) if model != self.id else model
        self.registry.pinned = True
        return self._changed("pinned", model, by, reason, ts, parent, not kept.accepted)

    def unpin(self, by: str, reason: str, ts: datetime) -> ModelChange:
        """Let refits replace the champion again. Raises `RegistryError` when it isn't pinned."""
        champion = self.id
        if not self.registry.pinned or champion is None:
            raise RegistryError("no model is pinned; nothing was changed")
        self.registry.pinned = False
        return self._changed("unpinned", champion, by, reason, ts, champion)

    def _let_in(self, model: str) -> Kept:
        """A kept model that the gate let in, or a person by force. Raises `RegistryError`."""
        kept = self.registry[model]
        if not kept.accepted and not self.registry.was_champion(model):
            raise RegistryError(
                f"the gate refused {model}, and it never was champion; `install` it with `force` to"
                " have it all the same"
            )
        return kept

    def _changed(
        self,
        what: Change,
        model: str,
        by: str,
        reason: str,
        ts: datetime,
        parent: str | None,
        forced: bool = False,
    ) -> ModelChange:
        return change(
            self.registry, ts, what, model, self.closes, by, reason, parent, forced,
            digest=self._booster.digest,
        )  # fmt: skip

    def _job(self, launched: int) -> RefitJob:
        """The job of the refit launched at that close, the same whenever it is made."""
        view, config = self._window.at(launched), self._config.refit
        defender = self.registry.defender
        return RefitJob(
            id=_refit_id(launched),
            rows=view.rows[:, : self._columns],
            won=view.won,
            sized=view.sized,
            opened=view.opened,
            closed=view.closed,
            champion=None if defender is None else self.registry[defender].text,
            fresh=self._fresh,
            unseen=None if defender is None else launched - _launched(defender),
            full=self.schedule.order.full,
            holdout=config.holdout,
            gate=config.gate,
            seed=self._config.seed,
            params=config.params,
        )

    def figures(self) -> dict[str, object]:
        """How refits stand, for people."""
        return {
            **self.refits,
            "pending": self.schedule.pending,
            "cause": None if self.schedule.pending is None else self.schedule.order.cause,
            "next": self.schedule.every * (self.closes // self.schedule.every + 1),
            "lag": self.schedule.lag,
        }

    def state(self) -> dict[str, object]:
        """All that `restore` needs."""
        return {
            "refits": dict(self.refits),
            "columns": self._columns,
            "fresh": self._fresh,
            "schedule": self.schedule.state(),
            "timetable": self.timetable.state(),
            "registry": self.registry.state(),
            "return_booster": self.return_booster.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, after panel and window. A refit under way is made again."""
        self.refits = dict(state["refits"])
        self._columns, self._fresh = state["columns"], state["fresh"]
        self.schedule.restore(state["schedule"])
        self.timetable.restore(state["timetable"])
        self.registry.restore(state["registry"])
        self.return_booster.restore(state["return_booster"])
        if self.schedule.pending is not None:
            self._fitter.submit(self._job(self.schedule.pending))


def _refit_id(launched: int) -> str:
    return f"refit-{launched}"


def _launched(refit_id: str) -> int:
    return int(refit_id.split("-")[1])
