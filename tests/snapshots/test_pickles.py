# mypy: allow-untyped-calls
# River has types, but most of its constructors have none.

import builtins
import functools
import importlib
import operator
import os
import pickle
import pkgutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import river
from river import base, compose, datasets, linear_model, naive_bayes, proba, stats, stream

from snapshots import SnapshotUnsupported
from snapshots.pickles import _Unpickler, dump, load


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


ran: list[object] = []


@pytest.mark.parametrize(
    "exploit",
    [
        Calls(os.system, "exit 1"),
        Calls(subprocess.Popen, ["true"]),
        Calls(eval, "ran.append(1)"),
        Calls(exec, "ran.append(1)"),
        Calls(compile, "1", "x", "eval"),
        Calls(open, "/dev/null"),
        Calls(builtins.__import__, "os"),
        Calls(importlib.import_module, "os"),
        Calls(setattr, naive_bayes.GaussianNB, "learn_one", 1),
        Calls(type, "Made", (), {}),
        Calls(operator.attrgetter("__class__"), 1),
        Calls(operator.attrgetter, "__class__"),
        Calls(operator.methodcaller, "learn_one"),
        Calls(functools.reduce, operator.add, [1]),
        Calls(functools.partial, os.system, "exit 1"),
        Calls(map, os.system, ["exit 1"]),
        Calls(pickle.loads, b"N."),
        Calls(np.load, "x.npy"),
        Calls(np.fromfile, "/dev/null"),
        Calls(getattr, [], "append"),
        Calls(getattr, naive_bayes.GaussianNB(), "learn_one"),
        Calls(getattr, naive_bayes.GaussianNB(), "__init__"),
        Calls(getattr, naive_bayes.GaussianNB, "__subclasses__"),
        Calls(getattr, linear_model.PAClassifier(), "learn_one"),
        Calls(datasets.CreditCard),
        Calls(stream.Cache),
        Calls(stream.iter_csv, "/etc/hostname"),
        Calls(type(base.Classifier), "Made", (), {}),
        defaultdict(os.getcwd),
        compose.FuncTransformer(os.system),  # type: ignore[arg-type] # on purpose
        Calls,
        os,
    ],
)
def test_a_pickle_that_names_anything_that_runs_is_refused(exploit: object) -> None:
    try:
        data = pickle.dumps([exploit], 4)
    except TypeError:  # A module can't even be pickled; name it the way an attacker would.
        data = b"\x80\x04\x8c\x02os\x8c\x06system\x93."
    with pytest.raises(SnapshotUnsupported):
        load(data)
    assert ran == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("river.naive_bayes.gaussian", "GaussianNB.learn_one"),
        ("river.naive_bayes.gaussian", "GaussianNB.__init__.__globals__"),
        ("river.naive_bayes.gaussian", "functools.partial"),
        ("river.naive_bayes.gaussian", "collections"),
        ("river.naive_bayes", "GaussianNB"),
        ("river.proba", "Gaussian"),
        ("river.utils.pretty", "print_table"),
        ("river.datasets.base", "RemoteDataset"),
        ("river.drift.datasets.base", "ChangePointFursDataset"),
        ("river", "naive_bayes"),
        ("river.base.base", "Base._clone"),
        ("riverx.base", "Base"),
        ("builtins", "getattr.__call__"),
        ("numpy", "ndarray.tofile"),
        ("collections", "abc"),
        ("__main__", "x"),
        ("snapshots.pickles", "load"),
        ("os", "system"),
        ("copy_reg", "_reconstructor"),
        ("__builtin__", "list"),
    ],
)
def test_dotted_foreign_and_re_exported_names_are_refused(module: str, name: str) -> None:
    with pytest.raises(SnapshotUnsupported, match="is not a type that a snapshot may hold"):
        load(f"c{module}\n{name}\n.".encode())
    framed = [bytes([0x8C, len(part)]) + part.encode() for part in (module, name)]
    with pytest.raises(SnapshotUnsupported):
        load(b"\x80\x04" + b"".join(framed) + b"\x93.")


def test_of_all_that_river_has_only_its_own_classes_can_be_named() -> None:
    for found in pkgutil.walk_packages(river.__path__, "river."):
        with suppress(ImportError):  # What River can only offer together with another library.
            importlib.import_module(found.name)
    unpickler = _Unpickler(BytesIO())
    named = 0
    for module, content in list(sys.modules.items()):
        if module.startswith("river.") or module == "river":
            for name in dir(content):
                try:
                    allowed = unpickler.find_class(module, name)
                except SnapshotUnsupported:
                    continue
                named += 1
                assert isinstance(allowed, type) and not issubclass(allowed, type)
                assert (allowed.__module__, allowed.__qualname__) == (module, name)
                assert not issubclass(allowed, base.Base) or "datasets" not in module
    assert named > 300


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x04.",
        b"\x80\x04N.",
        b"\x80\x04\x8c\x01xQ.",  # A persistent ID.
        b"\x80\x04\x82\x01.",  # A name from the registry of extensions.
        pickle.dumps([1])[:-1],
        b"\x80\xff.",
    ],
)
def test_bytes_that_are_no_list_of_objects_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotUnsupported):
        load(data)


def test_what_is_on_the_list_comes_back() -> None:
    passive = linear_model.PAClassifier()
    generators = [np.random.default_rng(1), np.random.RandomState(2)]
    objects = [passive, stats.Quantile(0.1), proba.Gaussian(), defaultdict(float), *generators]
    loaded = load(dump(objects))
    assert list(map(type, loaded)) == list(map(type, objects))
    assert loaded[0].calc_tau.__self__ is loaded[0]  # type: ignore[attr-defined] # a PAClassifier
