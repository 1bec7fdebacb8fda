"""The kernels of mixing, filtering and calibrating: all that turns experts' forecasts into beliefs.

They lie in one file because numba's cache looks at the entry's own file alone. Each works on flat
arrays that the classes in `mixture`, `kalman`, `calibration` and `expectation` own; those say what
is computed and why. The last four do in one call what would be ten: a call from Python costs as
much as the work.
"""

import math

from drift.native import (
    BUFFER,
    INTEGER,
    NOTHING,
    NUMBER,
    READ_ONLY,
    Floats,
    compiled,
    entry,
)

LOWEST, HIGHEST = 0.001, 0.999
"""Within these a probability stays."""

# A mixture: average delay, closes that it is over, restart, the number of share rates and these;
# then a table with one column an expert: what is known of the experts, then for each share rate
# the joint weights.
DELAY, SEEN, RESTART, COUNT = range(4)
RATES = 4
PRIOR, WEIGHT, LOSSES, AWAKE, LOSS, RATIO, REGRET = range(7)
JOINT = 7
DELAY_OVER = 500
"""Closes that the average delay looks back on."""
_FARTHEST = 4.0  # standard deviations: one wild return must not decide between experts

# A filter: coefficients, their prior variances, their drifts, room for gains, covariance.
MEAN, VARIANCE, DRIFT, GAIN, COVARIANCE = range(5)
_FLATTEST = 1e-3  # least curvature of the logistic
_STEEPEST = 30.0  # log odds beyond it are certain

_SIZES = 8.0  # a return, or a forecast, this many usual sizes off must not throw the filter off


@compiled
def _mix(mixture: Floats, p: Floats) -> float:
    weights = mixture[RATES + int(mixture[COUNT]) :].reshape((-1, p.size))[WEIGHT]
    mean = 0.0
    total = 0.0
    for i in range(p.size):
        if p[i] == p[i]:
            mean += weights[i] * p[i]
            total += weights[i]
    return mean / total if total > 0.0 else math.nan


@compiled
def _reweigh(mixture: Floats, losses: Floats, age: float, mine: float) -> None:
    """Take in one close with these losses, that came `age` closes late; `mine` is ours."""
    mixture[SEEN] = min(mixture[SEEN] + 1.0, float(DELAY_OVER))
    mixture[DELAY] += (age - mixture[DELAY]) / mixture[SEEN]
    counts = 1.0 / (1.0 + mixture[DELAY])
    restart = mixture[RESTART]
    rates = mixture[RATES : RATES + int(mixture[COUNT])]
    table = mixture[RATES + int(mixture[COUNT]) :].reshape((-1, losses.size))
    weights = table[WEIGHT]
    joint = table[JOINT:]
    mean = 0.0
    total = 0.0
    for i in range(losses.size):
        if losses[i] == losses[i]:
            table[LOSSES, i] += losses[i]
            table[REGRET, i] += mine - losses[i]
            table[AWAKE, i] += 1.0
            table[RATIO, i] = math.exp(-losses[i] * counts)
            mean += weights[i] * table[RATIO, i]
            total += weights[i]
    # A sleeper is taken to have said what the mixture did: divided by that, it stays as it is.
    scale = total / mean if total > 0.0 else 1.0
    total = 0.0
    for r in range(rates.size):
        for i in range(losses.size):
            if losses[i] == losses[i]:
                joint[r, i] *= table[RATIO, i] * scale
            total += joint[r, i]
    keep = (1.0 - restart) / total  # 1, but for rounding
    weights[:] = 0.0
    for r in range(rates.size):
        share = keep * rates[r] * joint[r].sum() + restart / rates.size
        stay = keep * (1.0 - rates[r])
        for i in range(losses.size):
            joint[r, i] = stay * joint[r, i] + share * table[PRIOR, i]
            weights[i] += joint[r, i]


@compiled
def _learn_win(mixture: Floats, p: Floats, won: int, age: float, said: float) -> None:
    losses = mixture[RATES + int(mixture[COUNT]) :].reshape((-1, p.size))[LOSS]
    for i in range(p.size):
        losses[i] = -math.log(p[i] if won else 1.0 - p[i])
    _reweigh(mixture, losses, age, -math.log(said if won else 1.0 - said))


@compiled
def _learn_number(
    mixture: Floats, values: Floats, seen: float, deviation: float, age: float, said: float
) -> None:
    losses = mixture[RATES + int(mixture[COUNT]) :].reshape((-1, values.size))[LOSS]
    for i in range(values.size):
        error = min(abs(seen - values[i]) / deviation, _FARTHEST)
        losses[i] = 0.5 * error * error if values[i] == values[i] else math.nan
    error = min(abs(seen - said) / deviation, _FARTHEST)
    _reweigh(mixture, losses, age, 0.5 * error * error)


@compiled
def _dot(kalman: Floats, x: Floats) -> float:
    total = 0.0
    for a in range(x.size):
        total += kalman[a] * x[a]
    return total


@compiled
def _sigmoid(kalman: Floats, x: Floats) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(_dot(kalman, x), -_STEEPEST), _STEEPEST)))


@compiled
def _probability(kalman: Floats, x: Floats) -> float:
    return min(max(_sigmoid(kalman, x), LOWEST), HIGHEST)


@compiled
def _deviation(kalman: Floats, x: Floats) -> float:
    n = x.size
    spread = 0.0
    for a in range(n):
        for b in range(n):
            spread += x[a] * kalman[COVARIANCE * n + a * n + b] * x[b]
    return math.sqrt(max(spread, 0.0))


@compiled
def _correct(kalman: Floats, x: Floats, error: float, curvature: float) -> None:
    """Move the coefficients by an error whose precision is `curvature`, then let them drift."""
    n = x.size
    gain = kalman[GAIN * n : (GAIN + 1) * n]
    covariance = kalman[COVARIANCE * n :].reshape((n, n))
    spread = 0.0
    for a in range(n):
        gain[a] = 0.0
        for b in range(n):
            gain[a] += covariance[a, b] * x[b]
        spread += gain[a] * x[a]
    scale = 1.0 / (1.0 + curvature * spread)
    for a in range(n):
        kalman[a] += scale * gain[a] * error
        for b in range(n):
            covariance[a, b] -= curvature * scale * gain[a] * gain[b]
        drifted = covariance[a, a] + kalman[DRIFT * n + a]
        covariance[a, a] = min(drifted, kalman[VARIANCE * n + a])


@compiled
def _correct_win(kalman: Floats, x: Floats, won: int) -> None:
    p = _sigmoid(kalman, x)
    _correct(kalman, x, won - p, max(p * (1.0 - p), _FLATTEST))


@compiled
def _log_odds(p: float) -> float:
    return math.log(p / (1.0 - p))


@compiled
def _stack_inputs(x: Floats, experts: Floats, base: int, mixed: float) -> None:
    """The mixture's log odds, by how much each expert's differ from the base rate's, and one."""
    usual = _log_odds(experts[base])
    x[0] = _log_odds(mixed)
    for i in range(experts.size):
        x[i + 1] = _log_odds(experts[i]) - usual if experts[i] == experts[i] else 0.0
    x[experts.size + 1] = 1.0


@compiled
def _curve_inputs(x: Floats, knots: Floats, p: float) -> None:
    """How near each knot is: 1 at it, 0 at its neighbours and beyond."""
    at = min(max(_log_odds(p), knots[0]), knots[-1])
    x[:] = 0.0
    left = 0
    while left < knots.size - 2 and at >= knots[left + 1]:
        left += 1
    part = (at - knots[left]) / (knots[left + 1] - knots[left])
    x[left] = 1.0 - part
    x[left + 1] = part


@compiled
def _cut(value: float) -> float:
    return min(max(value, -_SIZES), _SIZES)


@entry(NUMBER, BUFFER, READ_ONLY)
def mix(mixture: Floats, p: Floats) -> float:
    """The mean of `p` by the weights of those that are awake."""
    return _mix(mixture, p)


@entry(NOTHING, BUFFER, READ_ONLY, INTEGER, NUMBER, NUMBER)
def learn_win(mixture: Floats, p: Floats, won: int, age: float, said: float) -> None:
    """Take in one close: log loss."""
    _learn_win(mixture, p, won, age, said)


@entry(NOTHING, BUFFER, READ_ONLY, NUMBER, NUMBER, NUMBER, NUMBER)
def learn_number(
    mixture: Floats, values: Floats, seen: float, deviation: float, age: float, said: float
) -> None:
    """Take in one close: half the squared error in standard deviations."""
    _learn_number(mixture, values, seen, deviation, age, said)


@entry(NUMBER, BUFFER, READ_ONLY)
def probability(kalman: Floats, x: Floats) -> float:
    """The win probability by the present coefficients."""
    return _probability(kalman, x)


@entry(NUMBER, BUFFER, READ_ONLY)
def value(kalman: Floats, x: Floats) -> float:
    """The expected number by the present coefficients."""
    return _dot(kalman, x)


@entry(NUMBER, BUFFER, READ_ONLY)
def deviation(kalman: Floats, x: Floats) -> float:
    """The standard deviation of what is believed of the expected number."""
    return _deviation(kalman, x)


@entry(NOTHING, BUFFER, READ_ONLY, INTEGER)
def correct_win(kalman: Floats, x: Floats, won: int) -> None:
    """Learn one label."""
    _correct_win(kalman, x, won)


@entry(NOTHING, BUFFER, READ_ONLY, NUMBER)
def correct_number(kalman: Floats, x: Floats, seen: float) -> None:
    """Learn one number."""
    _correct(kalman, x, seen - _dot(kalman, x), 1.0)


@entry(
    NUMBER, READ_ONLY, INTEGER, NUMBER, BUFFER, BUFFER, BUFFER, BUFFER, READ_ONLY, BUFFER, BUFFER
)
def calibrate(
    experts: Floats,
    base: int,
    mixed: float,
    stack: Floats,
    stack_curve: Floats,
    mixture_curve: Floats,
    mixture: Floats,
    knots: Floats,
    room: Floats,
    out: Floats,
) -> float:
    """`Calibration.predict`; what was mixed goes to `out`."""
    x = room[: experts.size + 2]
    near = room[experts.size + 2 :]
    out[0] = mixed
    _stack_inputs(x, experts, base, mixed)
    out[1] = _probability(stack, x)
    _curve_inputs(near, knots, out[1])
    out[2] = _probability(stack_curve, near)
    _curve_inputs(near, knots, mixed)
    out[3] = _probability(mixture_curve, near)
    return _mix(mixture, out)


@entry(
    NOTHING, READ_ONLY, INTEGER, READ_ONLY, INTEGER, NUMBER, NUMBER, BUFFER, BUFFER, BUFFER,
    BUFFER, READ_ONLY, BUFFER,
)  # fmt: skip
def learn_calibration(
    experts: Floats,
    base: int,
    forecasts: Floats,
    won: int,
    age: float,
    said: float,
    stack: Floats,
    stack_curve: Floats,
    mixture_curve: Floats,
    mixture: Floats,
    knots: Floats,
    room: Floats,
) -> None:
    """`Calibration.learn`."""
    x = room[: experts.size + 2]
    near = room[experts.size + 2 :]
    _learn_win(mixture, forecasts, won, age, said)
    _stack_inputs(x, experts, base, forecasts[0])
    _correct_win(stack, x, won)
    _curve_inputs(near, knots, forecasts[1])
    _correct_win(stack_curve, near, won)
    _curve_inputs(near, knots, forecasts[0])
    _correct_win(mixture_curve, near, won)


@entry(NUMBER, READ_ONLY, READ_ONLY, INTEGER, NUMBER, BUFFER, BUFFER, BUFFER, BUFFER)
def expect(
    means: Floats,
    experts: Floats,
    base: int,
    scale: float,
    kalman: Floats,
    mixture: Floats,
    frozen: Floats,
    spread: Floats,
) -> float:
    """`ExpectedReturn.predict`; what it came from goes to `frozen`, its deviation to `spread`."""
    mean = means[0]
    x = frozen[2:]
    x[0] = 1.0
    x[1] = _cut(mean / scale)
    at = 2
    for i in range(1, means.size):
        x[at] = _cut((means[i] - mean) / scale) if means[i] == means[i] else 0.0
        at += 1
    usual = _log_odds(experts[base])
    for i in range(experts.size):
        x[at] = 0.0
        if experts[i] == experts[i]:
            x[at] = min(max(_log_odds(experts[i]) - usual, -1.0), 1.0)
        at += 1
    frozen[0] = mean
    frozen[1] = _dot(kalman, x) * scale
    spread[0] = _deviation(kalman, x) * scale
    return _mix(mixture, frozen[:2])


@entry(NOTHING, READ_ONLY, NUMBER, NUMBER, NUMBER, NUMBER, BUFFER, BUFFER)
def learn_expected(
    frozen: Floats,
    scale: float,
    seen: float,
    age: float,
    said: float,
    kalman: Floats,
    mixture: Floats,
) -> None:
    """`ExpectedReturn.learn`."""
    x = frozen[2:]
    _learn_number(mixture, frozen[:2], seen, scale, age, said)
    _correct(kalman, x, _cut(seen / scale) - _dot(kalman, x), 1.0)
