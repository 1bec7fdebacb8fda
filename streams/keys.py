"""The names of a shard's keys. All carry the shard as a hash tag, so they share a cluster slot."""

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Keys:
    """The Redis keys of one shard."""

    shard: int = 0
    prefix: str = "closeloop"

    def _key(self, name: str) -> str:
        return f"{self.prefix}:{{{self.shard}}}:{name}"

    @property
    def events(self) -> str:
        """The one input stream: signals, closes and controls, in Redis's total order."""
        return self._key("events")

    @property
    def decisions(self) -> str:
        """Output: one decision a signal, under the signal's own stream ID."""
        return self._key("decisions")

    @property
    def outcomes(self) -> str:
        """Output: one outcome a learned close, under the ID of the entry that joined the two."""
        return self._key("outcomes")

    @property
    def alerts(self) -> str:
        """Output: drift, refits, expiries and other things a person should know."""
        return self._key("alerts")

    @property
    def models(self) -> str:
        """Output: every refit, and every change of the champion."""
        return self._key("models")

    @property
    def snapshots(self) -> str:
        """Output: a notice with the digest for every snapshot taken."""
        return self._key("snapshots")

    @property
    def dead(self) -> str:
        """Output: input that could not be used, with the reason and the original bytes."""
        return self._key("dead")

    @property
    def lease(self) -> str:
        """The worker's own: who owns the shard, under which epoch, until when."""
        return self._key("lease")

    @property
    def standby(self) -> str:
        """A standby's own: that it is there, until when."""
        return self._key("standby")

    @property
    def view(self) -> str:
        """The worker's own: what stands where, for people. Nobody decides by it."""
        return self._key("view")

    @property
    def notified(self) -> str:
        """The worker's own: up to which alert people have been told."""
        return self._key("notified")

    @property
    def checkpoint(self) -> str:
        """The worker's own: up to which input ID everything is committed."""
        return self._key("checkpoint")


def shard_of(symbol: str, shards: int) -> int:
    """The shard that a symbol's signals go to: ``crc32(symbol) % shards``."""
    return crc32(symbol.encode()) % shards
