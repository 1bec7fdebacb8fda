"""Alerts, from the stream `alerts` to people: the log, a webhook in Slack's format, e-mail.

Rules that everything here keeps:

1. No decision ever waits for it: it has threads and a connection to the server of its own, and
   reads what is committed already.
2. At least once: a receiver's mark in the stream moves only after it was told. What was in flight
   when the process died is told again.
3. Receivers don't know of each other: each has its thread and its mark, so that one that hangs
   holds up nobody else.
4. A try takes `notify.timeout_s` in all, whatever the other side does; tries are counted, and when
   many alerts wait most are only summed up.
5. No secret (the webhook's URL, a password) is in a log or an error.
"""

from engine.notify.message import Message
from engine.notify.notifier import notifying, receivers_of, source_of
from engine.notify.receiver import attempt

__all__ = ["Message", "attempt", "notifying", "receivers_of", "source_of"]
