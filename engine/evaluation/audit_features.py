"""The checks of an audit on a tape's features: each gives one verdict."""

from collections.abc import Mapping

import numpy as np

from engine.evaluation.audit_checks import ENOUGH, STRETCHES, Check, day, listed, named
from engine.evaluation.audit_columns import BOOL, NUMBER, TEXT, Columns, Feature, Floats
from engine.evaluation.audit_leaks import Alone, Likeness, too_good

MISSING = 0.2
STALE_RUN = 100
"""Signals of one symbol; fewer are no standstill."""
STALE_TIMES = 3.0
STALE_DISTINCT = 10
"""Features of fewer values, such as a session, stay the same by nature."""


def missing(columns: Columns, changing: Mapping[str, str]) -> Check:
    """Features that often have no value."""
    if len(columns.opened) < ENOUGH:
        return Check("missing", "ok", "too few signals to tell")
    rates = {
        name: 1.0 - float(feature.present.mean())
        for name, feature in columns.features.items()
        if name not in changing
    }
    often = {name: rate for name, rate in rates.items() if rate > MISSING}
    if not often:
        most = max(rates.items(), key=lambda item: item[1], default=("", 0.0))
        found = f"at most {most[1]:.1%} ({most[0]})" if most[1] else "no feature lacks a value"
        return Check("missing", "ok", found)
    found = listed({name: f"{rate:.0%}" for name, rate in often.items()})
    do = "find out why; leave a feature out that is there by chance only"
    return Check("missing", "warning", f"often missing: {found}", do)


def changing_features(columns: Columns) -> dict[str, str]:
    """Features there in some stretches of the tape and not in others, and since when."""
    signals = len(columns.opened)
    stretches = min(STRETCHES, signals // (ENOUGH // 2))
    if stretches < 2:
        return {}
    stretch = np.arange(signals) * stretches // signals
    size = np.bincount(stretch)
    found = {}
    for name, feature in columns.features.items():
        share = np.bincount(stretch, feature.present, minlength=stretches) / size
        if share.max() < 0.8 or share.min() > 0.2:
            continue
        at = np.flatnonzero(feature.present)
        if share[-1] < 0.2 < share[0]:
            found[name] = f"gone after {day(columns.opened[at[-1]])}"
        elif share[0] < 0.2 < share[-1]:
            found[name] = f"from {day(columns.opened[at[0]])} on"
        else:
            found[name] = "comes and goes"
    return found


def changing(found: Mapping[str, str]) -> Check:
    """The verdict on `changing_features`."""
    if not found:
        return Check("changing", "ok", "every feature is there throughout")
    do = "train on the stretch that live signals look like, or fill the rest in"
    return Check("changing", "warning", listed(found), do)


def constant(columns: Columns) -> Check:
    """Features that never change."""
    same = [
        name
        for name, feature in columns.features.items()
        if feature.present.sum() >= ENOUGH and len(_distinct(feature)) == 1
    ]
    if not same:
        return Check("constant", "ok", "every feature changes")
    return Check("constant", "warning", named(same), "mend their source, or leave them out")


def types(columns: Columns) -> Check:
    """Features that are a number here and a text there."""
    mixed, bools = {}, {}
    for name, feature in columns.features.items():
        count = np.bincount(feature.kinds, minlength=5)
        said = f"{count[NUMBER]:,} numbers, {count[BOOL]:,} bools, {count[TEXT]:,} texts"
        if count[TEXT] and count[TEXT] != count[NUMBER] + count[BOOL] + count[TEXT]:
            mixed[name] = said
        elif count[NUMBER] and count[BOOL]:
            bools[name] = said
    if mixed:
        do = "write one type; null where there is no value"
        return Check("types", "problem", listed(mixed | bools), do)
    if bools:
        return Check("types", "warning", listed(bools), "write either numbers or true and false")
    return Check("types", "ok", "every feature keeps its type")


def leaks(columns: Columns, scores: Mapping[str, Alone], alike: list[Likeness]) -> Check:
    """Features that tell what was known only after entry."""
    impossible, notable = too_good(dict(scores))
    said = {}
    for name in impossible + notable:
        score = scores[name]
        said[name] = f"AUC {score.auc:.3f} alone ({score.low:.3f} to {score.high:.3f})"
    for one in alike:
        said[one.feature] = f"{one.how} {one.value:.3f} with {one.outcome}"
    do = "check when each is computed; leave out what is not known at entry"
    if columns.changed_after_close:
        what = listed(dict(columns.changed.most_common()))
        again = f"{columns.changed_after_close:,} signals sent again after their close: {what}"
        said_all = "; ".join([again, *([listed(said)] if said else [])])
        return Check("leaks", "problem", said_all, "log features when the signal is made, once")
    if impossible or alike:
        return Check("leaks", "problem", listed(said), do)
    if notable:
        return Check("leaks", "warning", f"far above all others: {listed(said)}", do)
    if not scores:
        return Check("leaks", "ok", "too few closes to tell")
    name, best = max(scores.items(), key=lambda item: item[1].auc)
    return Check("leaks", "ok", f"the best feature alone is {name}, AUC {best.auc:.3f}")


def stale_features(columns: Columns) -> dict[str, tuple[int, str]]:
    """Features that stood still: for how many signals of one symbol, and since when.

    Measured against the feature itself: longer than `STALE_TIMES` what runs of equal values of its
    usual length would have as their longest.
    """
    order = np.argsort(columns.symbol, kind="stable")
    found = {}
    for name, feature in columns.features.items():
        at = order[feature.present[order]]
        if len(at) <= STALE_RUN or len(_distinct(feature)) < STALE_DISTINCT:
            continue
        values, symbols = feature.values[at], columns.symbol[at]
        starts = np.flatnonzero((values[1:] != values[:-1]) | (symbols[1:] != symbols[:-1])) + 1
        starts = np.concatenate([[0], starts])
        lengths = np.diff(np.concatenate([starts, [len(at)]]))
        longest = int(lengths.argmax())
        length = int(lengths[longest])
        usual = (len(at) - length) / max(len(lengths) - 1, 1)
        expected = usual * (1.0 + np.log(len(lengths)))
        if length > max(STALE_RUN, STALE_TIMES * expected):
            found[name] = (length, day(columns.opened[at[starts[longest]]]))
    return found


def stale(found: Mapping[str, tuple[int, str]]) -> Check:
    """The verdict on `stale_features`."""
    if not found:
        return Check("stale", "ok", "no feature stands still")
    said = {name: f"{run:,} signals from {since}" for name, (run, since) in found.items()}
    return Check("stale", "warning", listed(said), "check the feed behind them in that time")


def _distinct(feature: Feature) -> Floats:
    return np.unique(feature.values[feature.present])
