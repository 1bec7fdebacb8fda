"""ADWIN over a flat array, compiled: a window that forgets its past when the mean changes.

Bifet and Gavaldà, *Learning from Time-Changing Data with Adaptive Windowing* (SDM 2007). The
window is an exponential histogram: row ``r`` holds up to `BUCKETS` buckets, the oldest first, that
each summarise ``2**r`` values by their total and their variance. Every `CLOCK` values each border
between two buckets is tried as a cut; as long as one parts means that differ by more than chance
allows, the oldest bucket is forgotten.

It follows River's ADWIN (0.26) to the last bit, with River's defaults. Older versions of
River left the newest bucket of each row out of the older side, and saw changes later.
"""

import math

from drift.native import BUFFER, INTEGER, NUMBER, READ_ONLY, Floats, compiled, entry

BUCKETS = 5
CLOCK = 32
MIN_WINDOW = 10
MIN_SIDE = 5
ROWS = 26  # 5 * 2**26 values; older ones are forgotten

# A window: counters first, then per row its bucket count, totals and variances.
TICK, WIDTH, TOTAL, VARIANCE, USED, CHANGE = range(6)
HEAD = 6
_SLOTS = BUCKETS + 1
ROW = 1 + 2 * _SLOTS
SIZE = HEAD + ROWS * ROW


@compiled
def _drop_oldest(window: Floats, row: int) -> None:
    """Remove the first bucket of the row that starts at `row`; what isn't in use is zero."""
    last = int(window[row]) - 1
    for k in range(last):
        window[row + 1 + k] = window[row + 2 + k]
        window[row + 1 + _SLOTS + k] = window[row + 2 + _SLOTS + k]
    window[row + 1 + last] = 0.0
    window[row + 1 + _SLOTS + last] = 0.0
    window[row] = last


@compiled
def _forget(window: Floats) -> None:
    """Take the oldest bucket out of the window."""
    row = int(window[USED]) - 1
    at = HEAD + row * ROW
    n = 2.0**row
    total = window[at + 1]
    window[WIDTH] -= n
    window[TOTAL] -= total
    width = window[WIDTH]
    apart = total / n - window[TOTAL] / width
    window[VARIANCE] -= window[at + 1 + _SLOTS] + n * width * apart * apart / (n + width)
    _drop_oldest(window, at)
    if window[at] == 0.0:
        window[USED] -= 1.0


@compiled
def _insert(window: Floats, value: float) -> None:
    """Put one value in the newest row and merge what overflows, row by row."""
    window[USED] = max(window[USED], 1.0)
    newest = HEAD + 1 + int(window[HEAD])
    window[newest] = value
    window[newest + _SLOTS] = 0.0
    window[HEAD] += 1.0
    window[WIDTH] += 1.0
    width = window[WIDTH]
    if width > 1.0:
        apart = value - window[TOTAL] / (width - 1.0)
        window[VARIANCE] += (width - 1.0) * apart * apart / width
    window[TOTAL] += value
    row = 0
    at = HEAD
    while window[at] == _SLOTS:
        if row + 1 == ROWS:
            _forget(window)
            break
        above = at + ROW
        if row + 1 == int(window[USED]):
            window[USED] += 1.0
        n = 2.0**row
        apart = window[at + 1] / n - window[at + 2] / n
        slot = above + 1 + int(window[above])
        window[slot] = window[at + 1] + window[at + 2]
        variance = window[at + 1 + _SLOTS] + window[at + 2 + _SLOTS]
        window[slot + _SLOTS] = variance + n * n * apart * apart / (n + n)
        window[above] += 1.0
        _drop_oldest(window, at)
        _drop_oldest(window, at)
        row += 1
        at = above


@compiled
def _has_cut(window: Floats, delta: float) -> bool:
    """Whether the means on the two sides of some cut differ by more than chance allows."""
    width = window[WIDTH]
    log_term = math.log(2.0 * math.log(width) / delta)
    variance = window[VARIANCE] / width
    n0 = 0.0
    n1 = width
    u0 = 0.0
    u1 = window[TOTAL]
    for row in range(int(window[USED]) - 1, -1, -1):
        at = HEAD + row * ROW
        n = 2.0**row
        for k in range(int(window[at])):
            n0 += n
            n1 -= n
            u0 += window[at + 1 + k]
            u1 -= window[at + 1 + k]
            if n1 < MIN_SIDE:
                return False
            if n0 < MIN_SIDE:
                continue
            m = 1.0 / (n0 - MIN_SIDE + 1.0) + 1.0 / (n1 - MIN_SIDE + 1.0)
            bound = math.sqrt(2.0 * m * variance * log_term) + 2.0 / 3.0 * log_term * m
            if math.fabs(u0 / n0 - u1 / n1) > bound:
                return True
    return False


@compiled
def adwin_update(window: Floats, value: float, delta: float) -> int:
    """Add `value` to `window`: `SIZE` numbers, zeros when new.

    1 when the past was forgotten and the mean is higher for it, -1 when lower, else 0.
    """
    before = window[TOTAL] / window[WIDTH] if window[WIDTH] > 0.0 else 0.0
    _insert(window, value)
    window[TICK] += 1.0
    changed = False
    if int(window[TICK]) % CLOCK == 0 and window[WIDTH] > MIN_WINDOW:
        while _has_cut(window, delta):
            _forget(window)
            changed = True
    if not changed:
        return 0
    return 1 if window[TOTAL] / window[WIDTH] > before else -1


@entry(INTEGER, BUFFER, READ_ONLY, NUMBER, NUMBER)
def watch(windows: Floats, values: Floats, highest: float, delta: float) -> int:
    """Add to each window its value, cut to [0, `highest`], if it isn't NaN; how many have risen.

    A window that has changed either way starts afresh, and its `CHANGE` says which way until the
    next call.
    """
    risen = 0
    for i in range(values.size):
        window = windows[i * SIZE : (i + 1) * SIZE]
        window[CHANGE] = 0.0
        value = values[i]
        if value == value:
            change = adwin_update(window, min(max(value, 0.0), highest), delta)
            if change != 0:
                window[:] = 0.0
                window[CHANGE] = change
                if change == 1:
                    risen += 1
    return risen
