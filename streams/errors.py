"""What can go wrong on the streams, split by what the caller should do.

StreamError
├── EventError          drop the event: it is not one of ours; its message says why
├── TapeError           stop: a tape line or file can't be read
├── AddressError        stop: the address or what is needed to serve it is wrong
├── ServerError         stop: the server answers, but can't be used as it is set up
│   └── WritesRefused   retry: it takes no writes now, and will again once someone mends that
├── ConnectionLost      retry: the server can't be reached now
├── LeaseHeld           retry later: another worker owns the shard
├── InputGap            report it and go on: input was deleted unread
├── LeaseLost           stop: another worker took the shard over; nothing was published
└── Diverged            recover: the server's checkpoint isn't the one this worker left there

Every message names the thing, the value and the mend.
"""


class StreamError(Exception):
    """The base of all errors that this package raises."""


class EventError(StreamError):
    """Bytes that are not a valid event. ``str(error)`` is the reason a person understands."""


class TapeError(StreamError):
    """A tape that can't be read; the message has the file and the line number."""


class AddressError(StreamError):
    """An address that means nothing here, or that nothing on this machine can serve."""


class ServerError(StreamError):
    """A server that answers but can't be used: too old, read-only, out of memory."""


class WritesRefused(ServerError):
    """A server that answers and takes no writes now: out of memory, a replica, its disk full."""


class ConnectionLost(StreamError):
    """The server can't be reached, or went away in the middle. Try again."""


class LeaseHeld(StreamError):
    """Another worker holds the shard's lease."""


class InputGap(StreamError):
    """Entries of the input were deleted before they were read; the message says where."""


class LeaseLost(StreamError):
    """The fencing epoch has moved on: another worker owns the shard. Stop at once."""


class Diverged(StreamError):
    """The committed position on the server isn't the one this worker last saw.

    Either Redis lost its tail (restarted from an older file, failed over), or was flushed.
    """
