"""A TCP proxy between clients and a server that does to their connections what networks do.

| mode | what happens |
|---|---|
| ``open`` | everything passes |
| ``cut`` | connections are reset, new ones at once |
| ``half_open`` | connections stand, and nothing passes any more |
| ``bytes`` | replies come one byte at a time, the first 64 of each piece |
| ``stall`` | every reply is held back for a while |
| ``reset`` | after some bytes of a reply the connection is reset |
| ``refuse`` | every command is answered with an error, and the server never sees it |
"""

import asyncio
import socket
import struct
from contextlib import suppress
from threading import Thread
from typing import Literal

Mode = Literal["open", "cut", "half_open", "bytes", "stall", "reset", "refuse"]
_PIECE = 1 << 16
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a loopback port for as long as it isn't closed.

    Parameters
    ----------
    target
        The server's port; may be set to another's at any time, for new connections.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.mode: Mode = "open"
        self.stall_s = 0.3
        self.reset_after = 3
        """Bytes of a reply that still come through before the reset."""
        self.error = b"-LOADING Redis is loading the dataset in memory"
        self.resets = 0
        """Connections reset in mid-reply so far."""
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        )
        self._server = server.result()
        self.port = int(self._server.sockets[0].getsockname()[1])

    @property
    def address(self) -> str:
        """For clients that find a dead connection within a second."""
        return f"redis://127.0.0.1:{self.port}?socket_timeout=1.5"

    def become(self, mode: Mode) -> None:
        """Change the mode, for connections that are open too."""
        self.mode = mode
        if mode in ("cut", "open"):
            # What hung on a half-open connection stays lost: a network doesn't bring it back.
            self._loop.call_soon_threadsafe(self._reset_all)

    def pass_all(self) -> None:
        """Let everything pass again, on connections that are open too."""
        self.mode = "open"

    def close(self) -> None:
        """Reset everything, and stop listening."""

        async def end() -> None:
            self._server.close()
            self._reset_all()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _reset_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.mode == "cut":
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, far_writer}
        self._open |= ends
        pumps = [
            asyncio.ensure_future(self._requests(reader, far_writer, writer)),
            asyncio.ensure_future(self._replies(far_reader, writer)),
        ]
        with suppress(asyncio.CancelledError):  # at the proxy's own end
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        try:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._open -= ends
            for end in ends:
                _reset(end)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        commands = _Commands()
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                count = commands.feed(data)
                if self.mode == "refuse":
                    client.write((self.error + b"\r\n") * count)
                    await client.drain()
                elif self.mode != "half_open":
                    server.write(data)
                    await server.drain()

    async def _replies(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                mode = self.mode
                if mode == "half_open":
                    continue
                if mode == "stall":
                    await asyncio.sleep(self.stall_s)
                elif mode == "reset":
                    client.write(data[: self.reset_after])
                    await client.drain()
                    self.resets += 1
                    return
                elif mode == "bytes":
                    slow, data = data[:64], data[64:]
                    for byte in slow:
                        client.write(bytes([byte]))
                        await client.drain()
                        await asyncio.sleep(0)
                client.write(data)
                await client.drain()


class _Commands:
    """Counts the commands in a client's bytes: RESP arrays of bulk strings."""

    def __init__(self) -> None:
        self._data = b""
        self._words = 0

    def feed(self, data: bytes) -> int:
        """How many commands are complete with `data`."""
        self._data += data
        complete = 0
        while (end := self._data.find(b"\r\n")) >= 0:
            kind, number = self._data[:1], int(self._data[1:end])
            if kind == b"*":
                self._words = number
                self._data = self._data[end + 2 :]
                continue
            stop = end + 2 + number + 2
            if len(self._data) < stop:
                break
            self._data = self._data[stop:]
            self._words -= 1
            complete += self._words == 0
        return complete


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
