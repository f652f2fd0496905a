"""The faults of a plan: each waits for its generation and step, strikes, and is healed again.

One thread each, so faults overlap as they come; a node is struck by one at a time. Signals go to
the processes of this cluster and to no other (launcher.processes).
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from chaos.history import History
from chaos.plan import Fault, Plan
from chaos.stage import Stage
from launcher.control import Control
from launcher.processes import Process, wait_gone
from launcher.waiting import CONNECT_SECONDS

REACH_SECONDS = 300.0  # for a generation to be begun at all
HEAL_SECONDS = 60.0  # for a worker to be there again
LEAVE_SECONDS = 30.0
LOOK_SECONDS = 0.02
UNDONE = ("generations", "calls", "components")  # what a node that leaves still had
SLOW = 0.1  # the speed of a straggler


class Nemesis:
    """All faults of one plan on one stage."""

    def __init__(self, stage: Stage, plan: Plan, history: History) -> None:
        self.stage = stage
        self.plan = plan
        self.history = history
        # Set when the run is given up, and when everything is to be killed at once: what still
        # holds is healed then.
        self._over = threading.Event()
        self._hurry = threading.Event()
        self._strikes: dict[str, Callable[[Fault], None]] = {
            "kill_expert": lambda fault: self._kill_worker(fault, "expert"),
            "kill_pipeline": lambda fault: self._kill_worker(fault, "pipeline"),
            "stop_expert": lambda fault: self._stop(fault, self._worker(fault, "expert")),
            "stop_pipeline": lambda fault: self._stop(fault, self._worker(fault, "pipeline")),
            "stop_node": lambda fault: self._stop(fault, self._nodes(fault)[0]),
            "kill_node": self._kill_nodes,
            "kill_all": self._kill_nodes,
            "leave": self._leave,
            "slow": self._slow,
        }

    def threads(self) -> list[threading.Thread]:
        return [
            threading.Thread(target=self._fault, args=[fault], name=fault.name, daemon=True)
            for fault in self.plan.faults
        ]

    def give_up(self) -> None:
        """Let every fault that still holds heal at once; what has not struck does not."""
        self._over.set()
        self._hurry.set()

    def _fault(self, fault: Fault) -> None:
        """Body of a fault's thread: nothing is raised, all is written down."""
        try:
            self.history.reached(fault.after, fault.step, REACH_SECONDS)
            fault = self.plan.aim(fault, self.history.asked(fault.after))
            with self._alone(fault):
                if not self._over.is_set():
                    self._strikes[fault.kind](fault)
        except Exception as error:
            why = f"fault {fault.name} ({fault.kind}): {type(error).__name__}: {error}"
            self.history.append("broken", why=why, traceback=traceback.format_exc())

    @contextlib.contextmanager
    def _alone(self, fault: Fault) -> Iterator[None]:
        """Its node struck by nothing else; for all nodes, what still holds is healed first."""
        if fault.node is not None:
            with self.stage.locks[fault.node]:
                yield
            return
        with contextlib.ExitStack() as stack:
            self._hurry.set()
            for lock in self.stage.locks:
                stack.enter_context(lock)
            self._hurry.clear()
            yield

    def _begins(self, fault: Fault) -> None:
        facts = {"kind": fault.kind, "node": fault.node, "seconds": fault.seconds}
        self.history.append("fault", fault=fault.name, kills=self.plan.kills(fault), **facts)

    def _healed(self, fault: Fault) -> None:
        self.history.append("healed", fault=fault.name)

    def _hold(self, fault: Fault) -> None:
        self._hurry.wait(fault.seconds)

    def _worker(self, fault: Fault, kind: str) -> Process | None:
        assert fault.node is not None
        return self.stage.cluster.worker(fault.node, kind)

    def _nodes(self, fault: Fault) -> list[Process]:
        nodes = self.stage.cluster.nodes
        return list(nodes) if fault.node is None else [nodes[fault.node]]

    def _kill_worker(self, fault: Fault, kind: str) -> None:
        worker = self._worker(fault, kind)
        if worker is None:
            self.history.append("missed", fault=fault.name)
            return
        self._begins(fault)
        worker.signal(signal.SIGKILL)
        until = time.monotonic() + HEAL_SECONDS
        while self._worker(fault, kind) in (None, worker):
            if time.monotonic() > until:
                raise TimeoutError(f"no {kind} worker came back in {HEAL_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
        self._healed(fault)

    def _stop(self, fault: Fault, process: Process | None) -> None:
        if process is None:
            self.history.append("missed", fault=fault.name)
            return
        self._begins(fault)
        process.signal(signal.SIGSTOP)
        try:
            self._hold(fault)
        finally:
            process.signal(signal.SIGCONT)
        self._healed(fault)

    def _kill_nodes(self, fault: Fault) -> None:
        """One node or all of them; started again in an order that the fault's name decides."""
        indexes = self.plan.kills(fault)
        self.stage.doubt(indexes)
        self._begins(fault)
        nodes = self._nodes(fault)
        for node in nodes:
            node.signal(signal.SIGKILL)
        left = wait_gone(nodes, 10.0)
        if left:
            raise TimeoutError(f"{left} did not end when killed")
        self._hold(fault)
        random.Random(f"{self.plan.seed} {fault.name}").shuffle(indexes)
        for index in indexes:
            self.stage.restart(index)
        self.stage.doubt(indexes)
        self._healed(fault)

    def _leave(self, fault: Fault) -> None:
        """As `make leave`, and later a join."""
        assert fault.node is not None
        index, node = fault.node, self._nodes(fault)[0]
        with Control(self.stage.fleet.target(index), f"chaos-leave-{index}") as control:
            control.connect(CONNECT_SECONDS)
            self._begins(fault)
            control.ask("leave", deadline_ms=int(LEAVE_SECONDS * 1000))
            left = control.answer("left")
        undone = {name: value for name, value in left.items() if name in UNDONE and value}
        if wait_gone([node], LEAVE_SECONDS):
            raise TimeoutError(f"node {index} said that it left, and did not end")
        self.history.append("gone", fault=fault.name, undone=undone)
        self._hold(fault)
        self.stage.restart(index)
        self._healed(fault)

    def _slow(self, fault: Fault) -> None:
        assert fault.node is not None
        self.stage.fleet.simulate(fault.node, speed=SLOW)
        self._begins(fault)
        self._hold(fault)
        self.stage.fleet.simulate(fault.node, speed=1)
        self._healed(fault)
