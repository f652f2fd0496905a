"""The round trip of a way on this machine as plain TCP has it: a process sends back what comes.

For scripts/launcher/throughput_links.py, which tells by it what of a step's time is the way's own.
The process sleeps between two questions as a node does, so that waking it is in the figure.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from launcher.processes import Refused

QUESTIONS = 100
# As long as a step takes, and as much as it asks.
PAUSE_SECONDS = 0.01
BYTES = 2048

SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("ready", flush=True)
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            while said := connection.recv(65536):
                connection.sendall(said)
"""


@contextlib.contextmanager
def server(host: str, port: int) -> Iterator[None]:
    """Something that answers there; gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, host, str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise Refused(f"nothing can listen at {host}:{port}; PORT=... names other ports")
        yield
    finally:
        process.kill()
        process.communicate()


def trips_ms(host: str, port: int) -> list[float]:
    """How long each of some questions and its answer took, one after the other."""
    trips = []
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(QUESTIONS):
            time.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
            connection.sendall(bytes(BYTES))
            left = BYTES
            while left > 0:
                got = len(connection.recv(left))
                if not got:
                    raise Refused(f"the way to {host}:{port} was closed")
                left -= got
            trips.append(1000 * (time.perf_counter() - began))
    return trips
