"""The plain loop that the engine is held against."""

from dataclasses import asdict

import numpy as np

from bench.plain_loop import PlainLoop, inputs, lightgbm_params, run_plain
from bench.tapes import generated
from engine.core_config import RefitConfig
from learners import RefitParams
from streams import Signal, Tape
from tests.bench.short_tapes import short_tape


def test_it_learns_every_close_and_counts_its_learners_time(tmp_path):
    run = run_plain(Tape(short_tape(tmp_path, 120)), refits=False)
    assert run.events == 240
    assert len(run.won) == len(run.probability) == 120
    assert run.ns["forest predict"] > 0
    assert run.ns["forest learn"] > 0
    assert run.seconds == sum(run.ns.values()) / 1e9
    assert run.log_loss is not None and 0.0 < run.log_loss < 3.0


def test_a_refit_takes_part_in_the_probability():
    refit = RefitConfig(every=50, window=100, params=RefitParams(rounds=5, min_data_in_leaf=5))
    with_refits, without = PlainLoop(True, refit), PlainLoop(False, refit)
    for event in generated(80):
        for loop in (with_refits, without):
            if isinstance(event, Signal):
                loop.signal(event)
            else:
                loop.close(event)
    assert with_refits.run.refits == 1
    first = 60  # signals are scored 20 before their close
    assert with_refits.run.probability[:first] == without.run.probability[:first]
    assert with_refits.run.probability[-5:] != without.run.probability[-5:]


def test_a_signals_inputs_are_numbers_with_categories_one_hot_and_missing_left_out():
    signal = next(e for e in generated(40) if isinstance(e, Signal) and e.features["n3"] is None)
    x = inputs(signal)
    assert "n3" not in x
    assert x[f"session={signal.features['session']}"] == 1.0
    assert x[f"symbol={signal.symbol}"] == 1.0
    assert np.isfinite(list(x.values())).all()


def test_it_is_refit_with_the_engines_own_parameters():
    params = RefitParams()
    given = lightgbm_params(params)
    assert {k: v for k, v in asdict(params).items() if k != "rounds"}.items() <= given.items()
