"""Which faults, in which order: drawn from a seed, every kind at least once if there is room."""

import random
from collections import Counter

from tests.chaos.faults import FAULTS, Fault


def schedule(count: int, seed: int, only: str = "") -> list[Fault]:
    """`count` faults of those whose group or name holds `only`; the same for the same seed."""
    rng = random.Random(seed)
    kinds = [fault for fault in FAULTS if only in f"{fault.group}: {fault.name}"]
    chosen = list(kinds) if count >= len(kinds) else rng.sample(kinds, count)
    drawn = Counter(fault.name for fault in chosen)
    while len(chosen) < count:
        (fault,) = rng.choices(kinds, [fault.weight for fault in kinds])
        if fault.at_most is None or drawn[fault.name] < fault.at_most:
            chosen.append(fault)
            drawn[fault.name] += 1
    rng.shuffle(chosen)
    return chosen
