"""Metrics and health as a scraper sees them."""

from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from engine.http import Health, HttpError, HttpServer
from engine.metrics import Metrics
from tests.engine.histories import close, entries, new_core, run, signal


def read(url: str) -> str:
    with urlopen(url, timeout=10) as response:
        return str(response.read().decode())


def test_metrics_show_what_the_core_has_counted_at_the_moment_they_are_read():
    metrics, core = Metrics(), new_core()
    metrics.watch(lambda: core)
    server = HttpServer("127.0.0.1", 0, metrics.registry, lambda: Health(True, True, ""))
    try:
        run(core, entries(signal("a"), b"not JSON", close("a")))
        text = read(f"http://127.0.0.1:{server.port}/metrics")
    finally:
        server.close()
    assert 'closeloop_count{kind="decisions"} 1.0' in text
    assert 'closeloop_count{kind="dead"} 1.0' in text
    assert 'closeloop_expert_weight{of="base_rate"}' in text
    assert 'closeloop_expert_log_loss{of="base_rate"} 0.693' in text
    assert 'closeloop_regret{of="base_rate"} 0.0' in text
    assert 'closeloop_interval_coverage{of="return"} NaN' in text


def test_probes_tell_alive_from_ready():
    health = Health(alive=True, ready=False, detail="recovering")
    server = HttpServer("127.0.0.1", 0, Metrics().registry, lambda: health)
    try:
        assert '"ok":true' in read(f"http://127.0.0.1:{server.port}/healthz")
        with pytest.raises(HTTPError) as refused:
            read(f"http://127.0.0.1:{server.port}/readyz")
        with refused.value:
            assert refused.value.code == 503
    finally:
        server.close()


def test_a_taken_port_is_an_error_with_the_mend():
    server = HttpServer("127.0.0.1", 0, Metrics().registry, lambda: Health(True, True, ""))
    try:
        with pytest.raises(HttpError, match=r"set http\.port to a free port"):
            HttpServer("127.0.0.1", server.port, Metrics().registry, lambda: Health(True, True, ""))
    finally:
        server.close()
