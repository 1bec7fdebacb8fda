"""What a worker process does to tell people: a thread per receiver, for as long as it serves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import monotonic

from engine.config import ConfigError, NotifyConfig
from engine.metrics import Metrics
from engine.notify.courier import Courier, Patience
from engine.notify.log import Log
from engine.notify.mail import Mail
from engine.notify.marks import AlertStream
from engine.notify.receiver import Receiver
from streams import Keys, StreamError, connect


def receivers_of(config: NotifyConfig) -> list[Receiver]:
    """Whom the settings name, the log aside.

    Raises
    ------
    ConfigError
        A receiver's settings don't go together, or what it needs isn't installed.
    """
    found: list[Receiver] = []
    if config.webhook.url is not None:
        try:
            from engine.notify.webhook import Webhook
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "slack_sdk":
                raise
            raise ConfigError(
                "notify.webhook.url is set, but slack_sdk is not installed; run:"
                ' pip install "closeloop[slack]"'
            ) from None
        found.append(Webhook(config.webhook.url.get_secret_value(), config.webhook.least))
    if config.email.host is not None:
        found.append(Mail(config.email))
    return found


@contextmanager
def notifying(
    config: NotifyConfig,
    address: str,
    keys: Keys,
    metrics: Metrics,
    leading: Callable[[], bool],
) -> Iterator[None]:
    """Tell the receivers, and the log, of every alert while the block lasts and `leading()` holds.

    On the way out a message in flight gets `config.timeout_s` to arrive; what waits is told by
    whoever serves the shard next. Raises `ConfigError`, and `StreamError` when nothing answers at
    `address`.
    """
    patience = Patience(config.timeout_s, config.attempts)
    receivers: list[Receiver] = [Log(), *receivers_of(config)]
    stop = Event()
    with connect(address) as connection:
        stream = AlertStream(connection, keys)
        threads = []
        for receiver in receivers:
            courier = Courier(
                receiver,
                stream,
                source_of(keys),
                patience,
                metrics.notifications,
                leading,
                stop,
            )
            # Now, so that no alert of this process comes before it. If not now, then on the thread.
            with suppress(StreamError):
                courier.place()
            threads.append(Thread(target=courier.run, name=f"notify-{receiver.name}", daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            ends = monotonic() + config.timeout_s
            for thread in threads:
                thread.join(max(0.0, ends - monotonic()))


def source_of(keys: Keys) -> str:
    """Whose alerts a shard's are, for people."""
    return f"{keys.prefix}, shard {keys.shard}"
