"""Each signed control is obeyed at most once, whoever sends it again."""

from datetime import UTC, datetime, timedelta

from engine.controls import REMEMBERED, Controls, sign
from streams.events import Control

KEY = b"a key"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def signed(minute: int, command: str = "refit") -> Control:
    fields = {"command": command, "ts": NOON + timedelta(minutes=minute), "by": "ann"}
    blank = Control(**fields, reason="to see", sig="0" * 64)
    return Control(**fields, reason="to see", sig=sign(blank, KEY))


def test_a_copy_of_an_obeyed_control_is_refused() -> None:
    controls = Controls(KEY)
    assert controls.refusal(signed(1)) is None
    assert "was obeyed before; sign a new one" in str(controls.refusal(signed(1)))
    assert controls.refusal(signed(2)) is None


def test_a_copy_is_known_after_a_restore() -> None:
    before, after = Controls(KEY), Controls(KEY)
    before.refusal(signed(1))
    after.restore(**before.state())  # type: ignore[arg-type]
    assert after.refusal(signed(1)) is not None
    assert after.state() == before.state()


def test_what_was_forgotten_is_too_old_to_be_obeyed_again() -> None:
    controls = Controls(KEY)
    for minute in range(REMEMBERED + 5):
        assert controls.refusal(signed(minute)) is None
    for minute in range(5):
        assert "too old" in str(controls.refusal(signed(minute)))
    assert "obeyed before" in str(controls.refusal(signed(5)))


def test_a_control_from_the_future_locks_nobody_out() -> None:
    controls = Controls(KEY)
    assert controls.refusal(signed(10_000_000)) is None
    for minute in range(2 * REMEMBERED):
        assert controls.refusal(signed(minute)) is None


def test_a_control_with_another_signature_or_no_key_to_check_it_is_refused() -> None:
    assert "doesn't hold" in str(Controls(b"another").refusal(signed(1)))
    assert "set `control_key`" in str(Controls(None).refusal(signed(1)))
