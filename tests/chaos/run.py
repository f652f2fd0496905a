"""Plays seeds on a cluster, tells what happens, judges it, and says how to play one again.

`make test-chaos` and `python -m chaos` are this; test_chaos.py calls `play`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from chaos.checker import Violation, violations
from chaos.faults import Nemesis
from chaos.history import History, read
from chaos.operations import LOST_SECONDS, Client
from chaos.plan import KINDS, Plan, plan
from chaos.stage import Stage, staged
from chaos.summary import summary
from chaos.twins import compare, drawn_before
from launcher.processes import Refused
from launcher.waiting import interruptible
from live import ROOT

OUT = ROOT / "build" / "chaos"
HEAL_SECONDS = 5.0
EXAMPLES = """examples (from the root, with PYTHONPATH=python_worker:tests:scripts):
  python -m chaos --seed 7                        play seed 7
  python -m chaos --seeds 20                      play the seeds 1 to 20
  python -m chaos --seed 7 --alone                the same faults, one picture at a time
  python -m chaos --seed 7 --model simulated      on eight simulated nodes
  python -m chaos --replay build/chaos/tiny-7-failed-1.jsonl     play that history's plan again
  python -m chaos --check build/chaos/tiny-7-failed-1.jsonl      judge it again; starts nothing
  python -m chaos --seed 7 --plan                 print what seed 7 does; starts nothing

The same seed is the same schedule: requests, cancels, faults, and the step at which each strikes.
What the cluster does with it - who holds what, which call is in flight - may differ."""
Tell = Callable[[str], None]


def play(stage: Stage, chosen: Plan, path: Path, tell: Tell) -> list[Violation]:
    """One plan on a cluster that is up; the violations of its history, which is written."""
    with History(path, tell) as history:
        history.append("plan", plan=chosen.to_json())
        stage.clients = [
            Client(i, node, stage.fleet.target(node), history)
            for i, node in enumerate(chosen.clients)
        ]
        try:
            _act(stage, chosen, history)
        except (Refused, TimeoutError, AssertionError) as error:
            history.append("broken", why=f"{type(error).__name__}: {error}")
        finally:
            for client in stage.clients:
                client.close()
            stage.clients = []
        return violations(history.entries)


def _act(stage: Stage, chosen: Plan, history: History) -> None:
    for client in stage.clients:
        client.connect()
        client.draw(replace(chosen.probes[0], name=f"warm {client.number}"))
    before = drawn_before(stage.clients[0], chosen) if stage.pipeline is None else {}
    _, figures = stage.settle()
    history.append("before", nodes=stage.look(figures))
    _storm(stage, chosen, history)
    if _settled(stage, history):
        for probe in chosen.probes:
            client = stage.clients[probe.client]
            client.connect()
            client.draw(probe)
        _, figures = stage.settle()
        history.append("after", nodes=stage.look(figures))
    history.append("processes", **stage.processes())
    compare(history, chosen, stage.pipeline, before)


def _storm(stage: Stage, chosen: Plan, history: History) -> None:
    """Clients and faults at once, until every picture has ended and every fault is healed."""
    nemesis = Nemesis(stage, chosen, history)
    faults = nemesis.threads()
    for thread in faults:
        thread.start()
    try:
        _draw_all(stage, chosen)
        for thread in faults:
            thread.join(LOST_SECONDS)
    finally:
        nemesis.give_up()
        for thread in faults:  # what it froze goes on before the cluster is stopped
            thread.join(HEAL_SECONDS)


def _draw_all(stage: Stage, chosen: Plan) -> None:
    if chosen.company:
        workers = [
            threading.Thread(
                target=client.draw_all,
                args=[[g for g in chosen.generations if g.client == client.number]],
                daemon=True,
            )
            for client in stage.clients
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(LOST_SECONDS * len(chosen.generations))
    else:
        for generation in chosen.generations:
            stage.clients[generation.client].draw_all([generation])


def _settled(stage: Stage, history: History) -> bool:
    try:
        seconds, _ = stage.settle()
    except (Refused, TimeoutError) as error:
        history.append("unsettled", why=str(error))
        return False
    history.append("settled", seconds=seconds)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: nothing is wrong; 1: something is; 2: it could not be played."""
    args = _parser().parse_args(arguments)
    interruptible()
    if args.check:
        return _report(args.check, violations(read(args.check)), "")
    plans = _plans(args)
    if args.plan:
        for one in plans:
            _show(one)
        return 0
    try:
        return _play_all(plans, args.out)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 2


def _play_all(plans: list[Plan], out: Path) -> int:
    """One cluster for all seeds, and another after a seed that failed."""
    left, status = list(plans), 0
    while left:
        first = left[0]
        with staged(first.model, out / f"cluster-{first.seed}") as stage:
            while left and not stage.unfit:
                one = left.pop(0)
                print(f"\nseed {one.seed}: {described(one)}", flush=True)
                path = out / f"{one.model}-{one.seed}.jsonl"
                found = play(stage, one, path, lambda line: print(line, flush=True))
                path = _kept(path) if found else path
                status = max(status, _report(path, found, replay_line(one)))
                stage.unfit = bool(found)
    return status


def _kept(path: Path) -> Path:
    """What showed a fault is never written over: it may not show again."""
    names = (path.with_name(f"{path.stem}-failed-{n}.jsonl") for n in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


def replay_line(chosen: Plan) -> str:
    """What to type to play this plan again."""
    usual = plan(chosen.seed, chosen.model)
    parts = [f"--seed {chosen.seed}", f"--model {chosen.model}"]
    if chosen.company != usual.company:
        parts.append("--company" if chosen.company else "--alone")
    if chosen.deterministic != usual.deterministic:
        parts.append("--deterministic" if chosen.deterministic else "--loose")
    return f"make test-chaos CHAOS='{' '.join(parts)}'"


def described(chosen: Plan) -> str:
    company = "in company" if chosen.company else "alone"
    calls = "deterministic" if chosen.deterministic else "not deterministic"
    faults = " ".join(fault.kind for fault in chosen.faults)
    return f"{chosen.model}, {company}, {calls}; {len(chosen.generations)} pictures; {faults}"


def _show(chosen: Plan) -> None:
    print(f"seed {chosen.seed}: {described(chosen)}")
    for thing in (*chosen.generations, *chosen.faults, *chosen.probes):
        print(f"  {thing}")


def _report(path: Path, found: list[Violation], again: str) -> int:
    print(summary(read(path)))
    for violation in found:
        print(f"VIOLATION {violation}")
    if not found:
        print(f"nothing is wrong; history: {path}")
        return 0
    print(f"{len(found)} violations; history: {path}")
    if again:
        print(f"again: {again}")
    return 1


def _plans(args: argparse.Namespace) -> list[Plan]:
    if args.replay:
        entry = next(entry for entry in read(args.replay) if entry["what"] == "plan")
        return [Plan.from_json(entry["plan"])]
    seeds = [args.seed] if args.seed is not None else range(1, args.seeds + 1)
    return [plan(seed, args.model, args.company, args.deterministic) for seed in seeds]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Draw pictures on a real cluster while it is being killed, and check them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, help="play this one seed")
    which.add_argument("--seeds", type=int, default=1, help="play the seeds 1 to N (default 1)")
    which.add_argument("--replay", type=Path, metavar="FILE", help="play a history's plan again")
    which.add_argument("--check", type=Path, metavar="FILE", help="judge a history again")
    parser.add_argument("--model", choices=sorted(KINDS), default="tiny", help="(default tiny)")
    parser.add_argument("--plan", action="store_true", help="only print what would be done")
    parser.add_argument("--out", type=Path, default=OUT, help=f"for histories and logs ({OUT})")
    company = parser.add_mutually_exclusive_group()
    company.add_argument("--alone", dest="company", action="store_false", default=None)
    company.add_argument("--company", dest="company", action="store_true", default=None)
    exact = parser.add_mutually_exclusive_group()
    exact.add_argument("--deterministic", action="store_true", default=None)
    exact.add_argument("--loose", dest="deterministic", action="store_false", default=None)
    return parser
