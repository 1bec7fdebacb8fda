"""ADWIN over a slice of a flat array: a window of errors that shrinks when their mean changes.

Bifet and Gavaldà, *Learning from Time-Changing Data with Adaptive Windowing* (SDM 2007). The window
is an exponential histogram: row ``r`` holds up to ``BUCKETS`` buckets that each summarise ``2**r``
inputs by their total and their variance. Every ``CLOCK`` inputs each border between two buckets is
tried as a cut.

The window equals that of River's ADWIN to the last bit. What differs is the alarm: here it means
that the mean *rose*, while a fall only shortens the window.
"""

import math

from learners.native import Floats, compiled, inlined

BUCKETS = 5
CLOCK = 32
MIN_WINDOW = 10
MIN_SIDE = 5
ROWS = 26  # 5 * 2**26 inputs; older ones are forgotten

# The slice: counters first, then per row its bucket count, totals and variances.
_TICK, _WIDTH, _TOTAL, _VARIANCE, _USED = range(5)
_HEAD = 5
_SLOTS = BUCKETS + 1
_ROW = 1 + 2 * _SLOTS
SIZE = _HEAD + ROWS * _ROW


def used_size(windows: Floats) -> int:
    """How much of each window (along the last axis) is in use in any of them."""
    return _HEAD + int(windows[..., _USED].max()) * _ROW


@compiled
def _drop_oldest(window: Floats, bucket: int, count: int) -> None:
    """Remove the first `count` buckets of the row that starts at `bucket`."""
    left = int(window[bucket]) - count
    for k in range(left):
        window[bucket + 1 + k] = window[bucket + 1 + count + k]
        window[bucket + 1 + _SLOTS + k] = window[bucket + 1 + count + _SLOTS + k]
    # What lies free is zero, so that equal windows have equal bytes whatever they once held.
    for k in range(left, left + count):
        window[bucket + 1 + k] = 0.0
        window[bucket + 1 + _SLOTS + k] = 0.0
    window[bucket] = left


@compiled
def _forget(window: Floats) -> None:
    """Take the oldest bucket out of the window."""
    row = int(window[_USED]) - 1
    at = _HEAD + row * _ROW
    n = float(1 << row)
    total = window[at + 1]
    mean = total / n
    window[_WIDTH] -= n
    window[_TOTAL] -= total
    width = window[_WIDTH]
    apart = mean - window[_TOTAL] / width
    window[_VARIANCE] -= window[at + 1 + _SLOTS] + n * width * apart * apart / (n + width)
    _drop_oldest(window, at, 1)
    if window[at] == 0.0:
        window[_USED] -= 1.0


@inlined
def _insert(window: Floats, value: float) -> None:
    """Put one input in the newest row and merge what overflows, row by row."""
    if window[_USED] == 0.0:
        window[_USED] = 1.0
        window[_HEAD] = 0.0
    count = int(window[_HEAD])
    window[_HEAD + 1 + count] = value
    window[_HEAD + 1 + _SLOTS + count] = 0.0
    window[_HEAD] += 1.0
    window[_WIDTH] += 1.0
    width = window[_WIDTH]
    if width > 1.0:
        apart = value - window[_TOTAL] / (width - 1.0)
        window[_VARIANCE] += (width - 1.0) * apart * apart / width
    window[_TOTAL] += value
    row = 0
    n = 1.0
    at = _HEAD
    while window[at] == _SLOTS:
        if row + 1 == ROWS:
            _forget(window)
            break
        above = at + _ROW
        if row + 1 == int(window[_USED]):
            window[_USED] += 1.0
            window[above] = 0.0
        apart = window[at + 1] / n - window[at + 2] / n
        slot = above + 1 + int(window[above])
        window[slot] = window[at + 1] + window[at + 2]
        variance = window[at + 1 + _SLOTS] + window[at + 2 + _SLOTS]
        window[slot + _SLOTS] = variance + n * n * apart * apart / (n + n)
        window[above] += 1.0
        _drop_oldest(window, at, 2)
        row += 1
        n *= 2.0
        at = above


@compiled
def _cut(window: Floats, delta: float) -> int:
    """Find the oldest cut whose sides differ: 1 if the newer is higher, -1 if lower, else 0."""
    width = window[_WIDTH]
    log_term = math.log(2.0 * math.log(width) / delta)
    spread = 2.0 * (window[_VARIANCE] / width) * log_term
    n0 = 0.0
    n1 = width
    u0 = 0.0
    u1 = window[_TOTAL]
    for row in range(int(window[_USED]) - 1, -1, -1):
        at = _HEAD + row * _ROW
        n = float(1 << row)
        for k in range(int(window[at])):
            n0 += n
            n1 -= n
            u0 += window[at + 1 + k]
            u1 -= window[at + 1 + k]
            if n1 < MIN_SIDE:
                return 0
            if n0 < MIN_SIDE:
                continue
            a = n0 - MIN_SIDE + 1.0
            b = n1 - MIN_SIDE + 1.0
            # Most cuts fail the test below even without its last term: known without a division.
            cross = u0 * n1 - u1 * n0
            if cross * cross * a * b <= n0 * n0 * n1 * n1 * (a + b) * spread:
                continue
            apart = u0 / n0 - u1 / n1
            m = 1.0 / a + 1.0 / b
            if math.fabs(apart) > math.sqrt(m * spread) + 2.0 / 3.0 * log_term * m:
                return 1 if apart < 0.0 else -1
    return 0


@inlined
def adwin_update(window: Floats, value: float, delta: float) -> bool:
    """Add `value` to `window` (a slice of `SIZE`, zeros when new); true when its mean has risen."""
    _insert(window, value)
    window[_TICK] += 1.0
    risen = False
    if int(window[_TICK]) % CLOCK == 0:
        while window[_WIDTH] > MIN_WINDOW:
            cut = _cut(window, delta)
            if cut == 0:
                break
            risen = risen or cut == 1
            _forget(window)
    return risen
