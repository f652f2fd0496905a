"""From a seed to a schedule of generations and faults. Pure: the same seed, the same schedule.

A fault strikes when a generation has come to a step, not at a time: so a seed strikes the same
place on a slow machine and on a fast one. Only how long it lasts is in seconds. What the cluster
then does with it - who holds what, which call is in flight - no seed fixes.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import Any

PROMPTS = ("a red circle on a blue background", "any words at all", "a small green star")
POISON = "a poisoned request"  # kills every worker that computes it
SECONDS = (0.2, 1.0, 2.5, 6.0, 12.0)
REQUESTER_SECONDS = 3.0  # a control node gives a silent requester up after 6
AIMED = ("kill_expert", "stop_expert", "kill_node", "stop_node", "leave", "slow")
REQUESTERS = 2  # the first nodes; the others serve


@dataclass(frozen=True)
class Kind:
    """A sort of cluster: how many nodes, how large its requests, and what can be done to it."""

    name: str
    nodes: int
    experts: int
    steps: tuple[int, int]
    faults: tuple[str, ...]


WORKERS = ("kill_expert", "kill_expert", "kill_pipeline", "stop_expert", "stop_pipeline")
NODES = ("kill_node", "kill_node", "stop_node", "leave")
KINDS = {
    kind.name: kind
    for kind in (
        Kind("tiny", 5, 3, (60, 250), WORKERS + NODES),
        Kind("mini", 5, 8, (20, 60), WORKERS + NODES),
        Kind("simulated", 8, 8, (60, 250), (*NODES, "slow")),
    )
}


@dataclass(frozen=True)
class Generation:
    """One picture to ask for: by which client, and whether and when it is taken back."""

    name: str
    client: int
    request: dict[str, Any]
    cancel_at: int | None = None


@dataclass(frozen=True)
class Fault:
    """What happens to which node once that generation is at that step, and for how long.

    `aimed`: to the node that this generation asks just then, where it may be struck.
    """

    name: str
    kind: str
    node: int | None  # None: all of them
    after: str
    step: int
    seconds: float
    aimed: bool = False


@dataclass(frozen=True)
class Plan:
    """A whole run. `clients` are the nodes that the clients ask, in order of the clients."""

    seed: int
    model: str
    deterministic: bool
    clients: tuple[int, ...]
    generations: tuple[Generation, ...]
    faults: tuple[Fault, ...]
    probes: tuple[Generation, ...]  # drawn when all is healed

    @property
    def company(self) -> bool:
        return len(self.clients) > REQUESTERS

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """A plan that was written into a history."""
        return cls(
            **{
                **value,
                "clients": tuple(value["clients"]),
                "generations": tuple(Generation(**g) for g in value["generations"]),
                "faults": tuple(Fault(**f) for f in value["faults"]),
                "probes": tuple(Generation(**g) for g in value["probes"]),
            }
        )

    def kills(self, fault: Fault) -> list[int]:
        """The nodes that end, without having been asked to, when this fault strikes."""
        if fault.kind == "kill_all":
            return list(range(KINDS[self.model].nodes))
        return [fault.node] if fault.kind == "kill_node" and fault.node is not None else []

    def aim(self, fault: Fault, asked: list[int]) -> Fault:
        """The fault as it strikes, when its generation asks these nodes."""
        if not fault.aimed:
            return fault
        may = _targets(fault.kind, KINDS[self.model])
        node = next((node for node in asked if node in may), fault.node)
        return replace(fault, node=node, seconds=_seconds(fault.kind, node, fault.seconds))


def modes(seed: int) -> tuple[bool, bool]:
    """(company, deterministic) where nobody chose: four seeds in a row have each once."""
    return seed % 4 in (2, 3), seed % 4 in (1, 2)


def plan(
    seed: int,
    model: str = "tiny",
    company: bool | None = None,
    deterministic: bool | None = None,
) -> Plan:
    """The schedule of this seed. Alone: two clients take turns. In company: four at once."""
    usual = modes(seed)
    company = usual[0] if company is None else company
    deterministic = usual[1] if deterministic is None else deterministic
    kind, dice = KINDS[model], random.Random(seed)
    clients = (0, 1, 0, 1) if company else (0, 1)
    count = 12 if company else 6
    generations = [
        _generation(f"g{i}", i % len(clients), kind, deterministic, dice) for i in range(count)
    ]
    if company and dice.random() < 0.5:
        _poison(generations, dice)
    probes = tuple(
        Generation(f"p{node}", node, _request(kind, deterministic, dice) | {"top_k": "full"})
        for node in range(REQUESTERS)
    )
    faults = _faults(kind, generations, clients, dice)
    return Plan(seed, model, deterministic, clients, tuple(generations), faults, probes)


def _poison(generations: list[Generation], dice: random.Random) -> None:
    """One of them is to fail by itself, and to take nobody along."""
    number = dice.randrange(len(generations))
    request = generations[number].request | {"prompt": POISON, "n": 1, "top_k": 1}
    generations[number] = replace(generations[number], request=request, cancel_at=None)


def _generation(
    name: str, client: int, kind: Kind, deterministic: bool, dice: random.Random
) -> Generation:
    request = _request(kind, deterministic, dice)
    cancelled = dice.random() < 0.2
    return Generation(
        name, client, request, dice.randint(1, request["steps"] - 1) if cancelled else None
    )


def _request(kind: Kind, deterministic: bool, dice: random.Random) -> dict[str, Any]:
    request: dict[str, Any] = {
        "prompt": dice.choice(PROMPTS),
        "n": dice.randint(1, 3),
        "steps": dice.randint(*kind.steps),
        "guidance_scale": dice.choice((1.0, 2.0, 3.5)),
        "top_k": dice.choice((1, 2, 2, 3, "full")),
        "seed": dice.randrange(2**31),
        "deterministic": deterministic,
    }
    return request | ({"negative_prompt": "a star"} if dice.random() < 0.25 else {})


def _faults(
    kind: Kind,
    generations: list[Generation],
    clients: tuple[int, ...],
    dice: random.Random,
) -> tuple[Fault, ...]:
    """Five or six, each on a node that it may strike; the last one may be a requester's death."""
    kinds = dice.sample(kind.faults, min(dice.randint(5, 6), len(kind.faults)))
    last = dice.random()
    if last < 0.45:
        kinds[-1] = "kill_all" if last < 0.2 else "kill_requester"
    sound = [i for i, one in enumerate(generations) if one.request["prompt"] != POISON]
    targets = sorted(dice.sample(sound, min(len(kinds), len(sound))))
    return tuple(
        _fault(f"f{i}", what, generations[target], kind, clients, dice)
        for i, (what, target) in enumerate(zip(kinds, targets, strict=False))
    )


def _fault(
    name: str,
    what: str,
    after: Generation,
    kind: Kind,
    clients: tuple[int, ...],
    dice: random.Random,
) -> Fault:
    own = what in ("kill_pipeline", "stop_pipeline")  # of the node at work
    node = clients[after.client] if own else dice.choice(_targets(what, kind))
    aimed = what in AIMED and dice.random() < 0.7
    seconds = _seconds(what, node, dice.choice(SECONDS))
    named = "kill_node" if what == "kill_requester" else what
    step = dice.randint(1, after.request["steps"] - 1)
    struck = None if what == "kill_all" else node
    return Fault(name, named, struck, after.name, step, seconds, aimed)


def _targets(what: str, kind: Kind) -> list[int]:
    """Requesters are not killed, nor told to leave, except where the run expects it."""
    if what in ("kill_node", "leave"):
        return list(range(REQUESTERS, kind.nodes))
    return list(range(REQUESTERS if what == "kill_requester" else kind.nodes))


def _seconds(what: str, node: int | None, seconds: float) -> float:
    """Not longer than it teaches anything: nobody waits for a node that is gone."""
    most = {"kill_all": 1.0, "leave": 6.0, "kill_node": 6.0}.get(what, seconds)
    if what == "stop_node" and node in range(REQUESTERS):
        most = REQUESTER_SECONDS
    return min(seconds, most)
