"""A stateful machine over the core: anything a stream, a crash or an operator may do, in any order.

One core is interrupted at will: frozen, encoded, read again and restored into a new one. Its twin,
given the same entries, never is. After every step the books balance and both say the same; at the
end their digests are equal.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from engine.controls import sign
from engine.core import Core
from engine.core_config import CoreConfig, ExpertConfig, FeaturesConfig, LedgerConfig, RefitConfig
from engine.snapshotting import TAPE, take, to_bytes
from learners import RefitParams
from snapshots import read, state_digest
from streams import Close, Control, Entry, Output, Signal, encode, read_entry
from streams.events import decode_output
from tests.engine.histories import KEY, at, close, new_core, signal
from tests.fuzz.accounts import Books, once
from tests.streams.generated import events

CONFIG = CoreConfig(
    experts={
        kind: ExpertConfig(kind=kind) for kind in ("base_rate", "logistic", "bayes", "forest")
    },
    ledger=LedgerConfig(max_open=6, max_parked=4, remember=200, expire_days=1, park_minutes=30),
    features=FeaturesConfig(max_columns=24, max_categories=3),
    refit=RefitConfig(
        every=6, lag=2, window=24, holdout=5, params=RefitParams(rounds=2, min_data_in_leaf=2)
    ),
)
"""Bounds so low that a few dozen steps reach them. More IDs are remembered than there are."""
SNAPSHOT_KEY = b"the key of the machine's snapshots"

_names = st.integers(0, 30).map(lambda number: f"s{number}")
_minutes = st.one_of(
    st.integers(0, 120), st.integers(0, 5_000), st.sampled_from([-1_000_000_000, 4_000_000_000])
)
_values = st.one_of(
    st.floats(-100, 100), st.sampled_from([1e308, -1e308, 5e-324]), st.booleans(), st.none(),
    st.sampled_from(["a", "b", "c", "d", "\u20ac" * 256]),
)  # fmt: skip
_features = st.dictionaries(
    st.sampled_from(["rsi", "session", *(f"f{i}" for i in range(20))]), _values, max_size=5
)
_returns = st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1e308, -1e308]))


class CoreMachine(RuleBasedStateMachine):
    """Rules are what may happen; invariants what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self._core: Core = new_core(CONFIG)
        self._twin: Core = new_core(CONFIG)
        self._books = Books()
        self._sent: list[bytes] = []
        self._outputs: list[Output] = []

    def apply(self, data: bytes) -> None:
        """Both cores take in one entry, and say the same."""
        self._sent.append(data)
        entry: Entry = read_entry(f"0-{len(self._sent)}", data)
        outputs, others = self._core.apply(entry), self._twin.apply(entry)
        assert outputs == others
        for output in outputs:
            assert decode_output(type(output), encode(output)) == output
        self._books.enter(outputs)
        self._outputs += outputs

    def restore(self) -> None:
        """A new core takes the place of the interrupted one, from its snapshot."""
        data = to_bytes(take(self._core, TAPE, None), SNAPSHOT_KEY)
        snapshot = read(data, SNAPSHOT_KEY, config_digest=CONFIG.digest)
        assert state_digest(snapshot.tree) == snapshot.manifest.state_digest
        assert snapshot.manifest.decisions_digest == self._core.decisions_digest
        self._core = new_core(CONFIG)
        self._core.restore(snapshot.tree)

    @rule(name=_names, minutes=_minutes, features=_features, symbol=st.sampled_from(["X", "Y"]))
    def a_signal_comes(
        self, name: str, minutes: float, features: dict[str, object], symbol: str
    ) -> None:
        self.apply(encode(signal(name, minutes, features=features, symbol=symbol)))

    @rule(name=_names, minutes=_minutes, return_pct=_returns)
    def a_close_comes_early_or_late(self, name: str, minutes: float, return_pct: float) -> None:
        self.apply(encode(close(name, minutes, return_pct, exit_reason="stop")))

    @rule(name=_names, minutes=st.integers(0, 120), return_pct=_returns)
    def a_trade_is_opened_and_closed(self, name: str, minutes: float, return_pct: float) -> None:
        self.apply(encode(signal(name, minutes)))
        self.apply(encode(close(name, minutes + 1, return_pct)))

    @rule(back=st.integers(1, 20))
    def something_is_sent_again(self, back: int) -> None:
        if self._sent:
            self.apply(self._sent[-min(back, len(self._sent))])

    @rule(command=st.sampled_from(["refit", "dance"]), key=st.sampled_from([KEY, b"forged"]))
    def a_control_comes(self, command: str, key: bytes) -> None:
        blank = Control(command=command, ts=at(1), by="ann", reason="", sig="0" * 64)
        self.apply(encode(replace(blank, sig=sign(blank, key))))

    @rule(data=st.binary(max_size=40))
    def bad_bytes_come(self, data: bytes) -> None:
        self.apply(data)

    @rule(event=events)
    def any_event_at_all_comes(self, event: Signal | Close | Control) -> None:
        self.apply(encode(event))

    @rule()
    def it_is_killed_and_restored_from_a_snapshot(self) -> None:
        self.restore()

    @invariant()
    def every_input_is_accounted_for(self) -> None:
        self._books.balance(self._core)

    @invariant()
    def each_signal_is_decided_once_and_each_close_learned_once(self) -> None:
        once(self._outputs)

    def teardown(self) -> None:
        """The interrupted one ends where the uninterrupted one does."""
        assert self._core.decisions_digest == self._twin.decisions_digest
        assert state_digest(self._core.state()) == state_digest(self._twin.state())
