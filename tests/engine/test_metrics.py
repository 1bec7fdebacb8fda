"""Metrics and health as a scraper sees them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from engine.api.app import Health, new_app
from engine.api.listening import HttpError, listen
from engine.api.mailbox import Mailbox
from engine.api.server import HttpServer
from engine.config import Config
from engine.metrics import Metrics
from streams import connect
from tests.engine.histories import close, entries, new_core, run, signal


@contextmanager
def serving(metrics: Metrics, health: Callable[[], Health]) -> Iterator[str]:
    """The address where it is served."""
    with listen("127.0.0.1", 0) as listener, connect("memory://metrics") as connection:
        app = new_app(Config(), connection, metrics.registry, health, Mailbox(), local=True)
        server = HttpServer(listener, app)
        try:
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.close()


def read(url: str) -> str:
    with urlopen(url, timeout=10) as response:
        return str(response.read().decode())


def test_metrics_show_what_the_core_has_counted_at_the_moment_they_are_read():
    metrics, core = Metrics(), new_core()
    metrics.watch(lambda: core)
    with serving(metrics, lambda: Health(True, True, "")) as url:
        run(core, entries(signal("a"), b"not JSON", close("a")))
        text = read(f"{url}/metrics")
    assert 'closeloop_count{kind="decisions"} 1.0' in text
    assert 'closeloop_count{kind="dead"} 1.0' in text
    assert 'closeloop_expert_weight{of="base_rate"}' in text
    assert 'closeloop_expert_log_loss{of="base_rate"} 0.693' in text
    assert 'closeloop_regret{of="base_rate"} 0.0' in text
    assert 'closeloop_interval_coverage{of="return"} NaN' in text


def test_probes_tell_alive_from_ready():
    health = Health(alive=True, ready=False, detail="recovering")
    with serving(Metrics(), lambda: health) as url:
        assert '"ok":true' in read(f"{url}/healthz")
        with pytest.raises(HTTPError) as refused:
            read(f"{url}/readyz")
        with refused.value:
            assert refused.value.code == 503


def test_a_taken_port_is_an_error_with_the_mend():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HttpError, match=r"set http\.port to a free port"):
            listen("127.0.0.1", port)
