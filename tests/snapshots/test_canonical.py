# mypy: allow-untyped-calls
# River has types, but most of its constructors have none.

import copy
import pickle
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from river import naive_bayes

from snapshots import SnapshotUnsupported, digest, state_digest
from tests.snapshots.trees import same, trees


class Node:
    def __init__(self, value: object, *others: "Node") -> None:
        self.value = value
        self.others = list(others)


def nan(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return value


@settings(max_examples=25, deadline=None)
@given(trees, trees)
def test_two_trees_have_the_same_digest_only_if_they_are_the_same(
    one: dict[str, object], other: dict[str, object]
) -> None:
    in_order = [dict(sorted(tree.items())) for tree in (one, other)]
    if digest(one) == digest(other):
        assert digest(in_order[0]) == digest(in_order[1])
    if same(*in_order):
        assert digest(one) == digest(other)


def test_where_the_events_came_from_is_left_out_of_a_states_digest_and_nothing_else() -> None:
    assert (
        state_digest({"a": 1, "transport": ["0-1"]}) == state_digest({"a": 1}) == digest({"a": 1})
    )
    assert state_digest({"a": {"transport": 1}}) != state_digest({"a": {}})


@settings(max_examples=25, deadline=None)
@given(trees)
def test_a_copy_that_shares_nothing_has_the_same_digest(tree: dict[str, object]) -> None:
    assert digest(tree) == digest(copy.deepcopy(tree)) == digest(pickle.loads(pickle.dumps(tree)))


def test_the_digest_is_the_same_for_ever() -> None:
    tree = {"b": [1, 2.5, None, True], "a": {"x": b"\x00", "y": np.arange(3, dtype="<i4")}}
    assert digest(tree) == ("e8e9c03de2fc7113545315093bf9cbbfe6c880dff87b61cf79317e6b25b057a9")


DIFFERENT = [
    0,
    False,
    0.0,
    -0.0,
    np.float64(0),
    np.float32(0),
    np.int64(0),
    None,
    "",
    b"",
    [],
    {},
    set(),
    frozenset(),
    ...,
    [[]],
    [0, [1]],
    [[0], 1],
    [[0, 1]],
    {"a": 0},
    {"a": False},
    {0: "a"},
    {False: "a"},
    nan(0x7FF8000000000000),
    nan(0x7FF8000000000001),
    "1",
    "é",
    "e\u0301",
    2**70,
    -(2**70),
    np.zeros(0),
    np.zeros(0, np.int64),
    np.zeros(2),
    np.zeros((2, 1)),
    np.zeros((1, 2)),
    np.zeros(2, np.int64),
    np.array([0.0, -0.0]),
    np.array([None, 0.0], dtype=object),
    np.array([None, 0], dtype=object),
    np.zeros(2, [("a", "<i8")]),
    np.zeros(2, [("b", "<i8")]),
    Node(0),
    Node(0.0),
    Node(0, Node(1)),
    Random(1),
    Random(2),
    np.random.default_rng(1),
    np.random.default_rng(2),
    Counter("a"),
    Counter("aa"),
    defaultdict(int, a=1),
    defaultdict(float, a=1),  # type: ignore[arg-type] # on purpose
    deque([1, 2]),
    deque([1, 2], 2),
    OrderedDict(a=1, b=2),
    OrderedDict(b=2, a=1),
    int,
    len,
    naive_bayes.GaussianNB(),
    naive_bayes.GaussianNB,
]


def test_different_values_have_different_digests() -> None:
    digests = [digest(value) for value in DIFFERENT]
    assert len(set(digests)) == len(DIFFERENT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1: "a", "1": "b"}, {"1": "b", 1: "a"}),
        (defaultdict(int, a=1, b=2), defaultdict(int, b=2, a=1)),
        ((1, [2]), [1, (2,)]),
        (np.zeros((3, 2), order="F"), np.zeros((3, 2))),
        (np.arange(6)[::2], np.array([0, 2, 4])),
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
        ("ab" * 2, "".join(["a", "b", "a", "b"])),
        ({*range(50)}, {*reversed(range(50))}),
    ],
)
def test_how_a_value_came_about_does_not_matter(one: object, other: object) -> None:
    assert digest(one) == digest(other)


def test_an_object_shared_by_two_owners_equals_two_equal_objects() -> None:
    shared = Node("leaf")
    assert digest([Node(1, shared), Node(2, shared)]) == digest(
        [Node(1, Node("leaf")), Node(2, Node("leaf"))]
    )


def test_objects_that_refer_back_to_their_owners_have_a_digest() -> None:
    def ring(length: int) -> Node:
        first = last = Node("ring")
        for _ in range(length - 1):
            first = Node("ring", first)
        last.others.append(first)
        return first

    assert digest(ring(3)) == digest(ring(3)) == digest(pickle.loads(pickle.dumps(ring(3))))
    assert digest(ring(3)) != digest(ring(4))


def test_it_matters_which_owner_an_object_refers_back_to() -> None:
    def chain(back_to: int) -> Node:
        nodes = [Node("link") for _ in range(3)]
        for owner, owned in zip(nodes, [*nodes[1:], nodes[back_to]], strict=True):
            owner.others.append(owned)
        return nodes[0]

    assert len({digest(chain(0)), digest(chain(1)), digest(chain(2))}) == 3


def test_a_chain_deeper_than_python_can_call_has_a_digest() -> None:
    chain = Node("end")
    for number in range(20_000):
        chain = Node(number, chain)
    assert len(digest(chain)) == 64


def test_the_generator_of_an_unseeded_distribution_is_not_state() -> None:
    one, other = naive_bayes.GaussianNB(), naive_bayes.GaussianNB()
    for model in (one, other):
        model.learn_one({"x": 1.0}, True)
    assert digest(one) == digest(other)


@pytest.mark.parametrize("value", [{Node(1)}, (number for number in (1,)), memoryview(b"")])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(SnapshotUnsupported, match="can't be walked"):
        digest({"a": value})
