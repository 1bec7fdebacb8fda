"""The kill switch: halted between two events, learning on, armed again, as if never halted."""

from time import monotonic

from engine.drills.processes import Worker
from engine.drills.reference import Reference
from engine.drills.report import Report
from engine.drills.shadow_copy import ShadowCopy
from streams import Decision, Signal, order, read_entry

BELIEFS = (
    "probability", "expected_return_pct", "risk", "probability_interval", "return_interval_pct",
)  # fmt: skip
"""What a decision believes, whatever is done about it."""


def drill(copy: ShadowCopy) -> Report:
    """Halt the engine after a third of the input, arm it after two."""
    report, third = Report(), copy.events // 3
    worker = copy.start()
    copy.progress(f"deciding the first third of {copy.events:,} events")
    copy.publish_and_wait(third, worker)
    never = Reference(copy)
    never.catch_up()
    ours = set()
    if never.core.guard.switch.state_now != "ACTIVE":
        state = never.core.guard.switch.state_now
        report.notes.append(f"the copy was {state} when it was to be halted: it was armed first")
        ours.add(copy.tell("arm"))

    halted = _tell(copy, worker, "halt", report)
    copy.progress("halted; going on")
    copy.publish_and_wait(2 * third, worker)
    armed = _tell(copy, worker, "arm", report)
    copy.progress("armed; going on")
    copy.publish_and_wait(copy.events, worker)
    worker.stop()

    never.catch_up(without=ours | {halted, armed})
    decisions = copy.decisions()
    between = {i: d for i, d in decisions.items() if order(halted) < order(i) < order(armed)}
    _check_answers(copy, between, report)
    learned = [i for i, _ in copy.read(copy.keys.outcomes, halted, armed)]
    asked = [i for i in never.outcomes if order(halted) < order(i) < order(armed)]
    report.holds(
        "halted: closes learned", f"{len(asked):,}, as if not", len(learned), learned == asked
    )
    since = [i for i in decisions if order(i) > order(halted)]
    same = sum(_believes_alike(decisions[i], never.decisions.get(i)) for i in since)
    report.holds(
        "beliefs since, against a run never halted",
        f"{len(since):,} equal",
        f"{same:,} equal",
        same == len(since) and since != [],
    )
    verdict = copy.verify().verdict
    report.holds(
        "everything replayed", "the same bytes",
        f"{verdict.decisions.equal:,} decisions equal, {verdict.decisions.differing} not",
        verdict.holds,
    )  # fmt: skip
    return report


def _tell(copy: ShadowCopy, worker: Worker, command: str, report: Report) -> str:
    """Give the command, and see when it takes effect; its entry's ID."""
    copy.publish_to_signal(worker)
    started = monotonic()
    entry = copy.tell(command)
    copy.next_decision(worker)
    milliseconds = 1_000.0 * (monotonic() - started)
    copy.require_obeyed(entry)
    took = [
        number
        for number, decision in enumerate(copy.decisions(entry).values(), 1)
        if (decision.safety == "HALTED") == (command == "halt")
    ]
    report.equal(f"{command}: first decision it holds for", 1, took[0] if took else None)
    report.measured(f"{command}: ms until that decision", round(milliseconds, 1))
    return entry


def _check_answers(copy: ShadowCopy, halted: dict[str, Decision], report: Report) -> None:
    """Whether each signal was answered as configured for a halted engine."""
    right = 0
    for entry, decision in halted.items():
        signal = read_entry(entry, copy.read(copy.keys.events, entry, entry)[0][1]).event
        assert isinstance(signal, Signal)
        safety = copy.config.core.safety
        bot = safety.bots.get(signal.strategy or "")
        asked = (bot.halted_answer if bot else None) or safety.halted_answer
        own = signal.baseline or copy.config.core.policy.default_baseline
        action = own if asked == "baseline" else asked
        said = decision.safety == "HALTED" and decision.reasons[0] == "halted"
        right += said and decision.action == action
    report.holds(
        "halted: answered as configured",
        f"{len(halted):,} of {len(halted):,}",
        f"{right:,} of {len(halted):,}",
        right == len(halted) and right > 0,
    )


def _believes_alike(decision: Decision, other: Decision | None) -> bool:
    return other is not None and all(
        getattr(decision, name) == getattr(other, name) for name in BELIEFS
    )
