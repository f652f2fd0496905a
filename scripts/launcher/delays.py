"""Round trips put in between nodes on this machine: a TCP proxy between any two of them.

For scripts/bench_throughput.py. Nodes of a cluster that is `apart` (launcher/nodes.py) look for all
others on their own port; there the proxy listens at everybody's address, and hands on to the port
on which that one really listens. Every piece is handed on half a round trip after it came, in
order; nothing is lost and no rate is limited: it is a distance, not a bad network. What dies with
it: every link between nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import threading
from collections import deque
from collections.abc import Callable, Iterator

from launcher.nodes import Cluster, address

# Ports above a cluster's, which its nodes do not use.
ECHO = 500


class Delays:
    """The proxies of a cluster, in a thread of their own; `rtt_ms` can be changed meanwhile."""

    def __init__(self, cluster: Cluster, nodes: int) -> None:
        self.rtt_ms = 0.0
        # epoll waits in whole milliseconds, select does not.
        self.loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._open: set[asyncio.Transport] = set()
        for asker in range(nodes):
            for asked in range(nodes):
                if asker != asked:
                    # Where one node looks for another.
                    at = (address(asked), cluster.port_of(asker))
                    there = (address(asked), cluster.port_of(asked))
                    self.loop.run_until_complete(self._listen(at, there, (address(asker), 0)))
        # Anybody's: from the first node's address to itself, where nobody else listens.
        self.echo_at = (address(0), cluster.port + ECHO)
        self.echo_there = (address(0), cluster.port + ECHO + 1)
        self.loop.run_until_complete(self._listen(self.echo_at, self.echo_there, (address(0), 0)))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    async def _listen(
        self, at: tuple[str, int], there: tuple[str, int], source: tuple[str, int]
    ) -> None:
        """Whoever dials one address talks to another."""
        await self.loop.create_server(lambda: _Near(self, there, source), *at)

    def opened(self, transport: asyncio.Transport) -> None:
        self._open.add(transport)

    def closed(self, transport: asyncio.Transport) -> None:
        self._open.discard(transport)

    def close(self) -> None:
        """Every link goes at once."""
        self.loop.call_soon_threadsafe(self._end)
        self._thread.join()
        self.loop.close()

    def _end(self) -> None:
        for transport in list(self._open):
            transport.abort()
        self.loop.stop()


class _Side(asyncio.Protocol):
    """One side of a link; what it hears is for the other one."""

    def __init__(self, delays: Delays, other: _Side | None = None) -> None:
        self.delays = delays
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._under_way: deque[Callable[[], None]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.delays.opened(transport)

    def data_received(self, data: bytes) -> None:
        self._later(lambda: self._say(data))

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self.delays.closed(self.transport)
        self._later(self._hang_up)

    def _later(self, do: Callable[[], None]) -> None:
        """Half a round trip from now; in the order in which it came, whatever timers do."""
        self._under_way.append(do)
        loop = self.delays.loop
        loop.call_later(self.delays.rtt_ms / 2000, lambda: self._under_way.popleft()())

    def _say(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def _hang_up(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Near(_Side):
    """The side of who asked; it dials the other one."""

    def __init__(self, delays: Delays, there: tuple[str, int], source: tuple[str, int]) -> None:
        super().__init__(delays)
        self.there = there
        self.source = source

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()  # until there is somebody to hear it
        self.delays.loop.create_task(self._dial())

    async def _dial(self) -> None:
        assert self.transport is not None
        try:
            _, self.other = await self.delays.loop.create_connection(
                lambda: _Side(self.delays, self), *self.there, local_addr=self.source
            )
        except OSError:  # nobody listens there: as if it had been dialled directly
            self.transport.abort()
            return
        self.transport.resume_reading()


@contextlib.contextmanager
def delays(cluster: Cluster, nodes: int) -> Iterator[Delays]:
    """Proxies between the nodes of a cluster that is not yet started; gone afterwards."""
    made = Delays(cluster, nodes)
    try:
        yield made
    finally:
        made.close()
