"""The decoders, for a short while; the long form is `bench/fuzz.py`, or atheris."""

import random
import subprocess
import sys
from importlib.util import find_spec

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from streams import encode
from tests.fuzz.mutation import corpus, mutated
from tests.fuzz.targets import TARGETS
from tests.streams.generated import events, nearly_events

CORPUS = corpus()


def test_every_target_takes_what_is_valid() -> None:
    assert CORPUS.keys() == TARGETS.keys()
    for name, seeds in CORPUS.items():
        for seed in seeds:
            TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_no_target_breaks_on_broken_bytes(name: str) -> None:
    rng = random.Random(name)
    for _ in range(300):
        TARGETS[name](mutated(rng, CORPUS[name]))


@pytest.mark.parametrize("name", TARGETS)
@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_no_target_breaks_on_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name](data)


@settings(deadline=None)
@given(events | nearly_events())
def test_whatever_is_nearly_an_event_is_one_or_has_a_reason(event: object) -> None:
    data = encode(event) if isinstance(event, Struct) else orjson.dumps(event)
    TARGETS["input_event"](data)


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris isn't installed")
def test_atheris_finds_nothing_either() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.decoders", "-runs=2000", "-seed=1"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
