"""`python -m baguette remote ...`: a node of a cluster, asked over HTTP.

Called by `baguette.__main__`. `generate` has the words and defaults of `generate`; what it asks
goes on at the node where this process ends with --detach. Imports no torch. What dies with it: a
followed job is cancelled by Ctrl-C, a watched one is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from baguette.commands import on_cluster
from baguette.commands.asked import outputs
from baguette.commands.drawn import finish, say, warn
from baguette.commands.flags import STDOUT, add_output, add_request, flag
from baguette.commands.over_http import OverHttp, over_http
from baguette.commands.progress import bar
from baguette.commands.remote_tables import cluster_lines, job_lines
from baguette.errors import BadInput
from baguette.remote import job as jobs
from baguette.remote.node import Node, segment
from baguette.remote.place import WEB_PORT, given_place, given_token

EXAMPLES = """\
examples:
  python -m baguette remote generate "a red circle on a blue background" --num_samples 4
  python -m baguette remote generate "a star" --detach --node http://127.0.0.2:8100
  python -m baguette remote jobs
  python -m baguette remote watch ID --output out/star.png
  python -m baguette remote cluster --json

The token: --token-file FILE, else BAGUETTE_TOKEN, else for a cluster of this checkout what `make
token` keeps in run/tokens/default, else ~/.config/baguette/token.
"""
ON_MISSING = ("wait", "degrade", "fail")
LIMIT, MOST = 20, 100
DETACHED_AND = ("separate", "visualize", "image", "embed_prompt", "output")
Command = Callable[[argparse.Namespace, Node], int]


def add_to(parsers: Any) -> None:
    """Add these commands and their options."""
    remote = parsers.add_parser(
        "remote",
        help="ask a node of a cluster over HTTP",
        description="Ask a node of a cluster over HTTP.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = remote.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_generate(_parser(commands, "generate", "draw a prompt on the cluster", generate))
    _add_jobs(_parser(commands, "jobs", "list what the node draws and drew", list_jobs))
    _add_watch(_parser(commands, "watch", "follow a job, then fetch its pictures", watch))
    cancelled = _parser(commands, "cancel", "stop jobs", cancel)
    cancelled.add_argument("ids", nargs="+", metavar="ID", help="jobs to stop")
    _json_lines(cancelled)
    _json_lines(_parser(commands, "cluster", "show nodes and experts", show_cluster))


def add_node(parser: argparse.ArgumentParser) -> None:
    """Which node, and who asks."""
    group = parser.add_argument_group("whom to ask")
    group.add_argument(
        "--node", metavar="URL",
        help=f"a node's address, e.g. http://127.0.0.2:{WEB_PORT} (default: BAGUETTE_NODE, else "
        "the cluster running in this checkout)",
    )  # fmt: skip
    group.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help="file of the token (default: BAGUETTE_TOKEN, else that of `make token` for a cluster "
        "of this checkout, else ~/.config/baguette/token)",
    )  # fmt: skip


def given_node(args: argparse.Namespace) -> Node:
    """The node that was named, and its token."""
    place = given_place(args.node)
    return Node(place, given_token(args.token_file, place))


def _parser(commands: Any, name: str, words: str, command: Command) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=words, description=words.capitalize() + ".", allow_abbrev=False
    )
    add_node(parser)
    parser.set_defaults(run=lambda args: command(args, given_node(args)))
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    add_request(parser)
    group = parser.add_argument_group("how")
    flag(group, "model", metavar="NAME", help="model of the cluster (default: the one it has)")
    flag(
        group, "deterministic", action="store_true",
        help="the same bytes whoever computes and whatever else is drawn meanwhile",
    )  # fmt: skip
    flag(
        group, "on_missing", choices=ON_MISSING,
        help="where nobody holds an expert: wait for it, degrade (do without), or fail",
    )  # fmt: skip
    flag(group, "detach", action="store_true", help="print the job's id and leave it to the node")
    _no_preview(group)
    add_output(parser, "cluster")


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"how many ({LIMIT})")
    parser.add_argument("--after", metavar="ID", help="only those older than this one")
    _json_lines(parser)


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the job, as `remote jobs` lists it")
    _no_preview(parser)
    add_output(parser, "cluster")


def _no_preview(parser: Any) -> None:
    flag(parser, "no_preview", action="store_true", help="no picture in the terminal meanwhile")


def _json_lines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the node's own JSON instead of lines")


def generate(args: argparse.Namespace, node: Node) -> int:
    """Submit; follow to the pictures, or with --detach leave it at that."""
    wanted = on_cluster.requests(args)
    for name in ("model", "on_missing"):
        more = {} if getattr(args, name) is None else {name: getattr(args, name)}
        wanted = [{**request, **more} for request in wanted]
    if not args.detach:
        return on_cluster.draw(args, wanted, lambda: over_http(node))
    given = [f"--{name}" for name in DETACHED_AND if getattr(args, name)]
    if given or args.json not in (None, STDOUT):
        raise BadInput(
            f"{', '.join(given) or '--json FILE'} cannot be given with --detach: `remote watch ID` "
            "takes it"
        )
    for request in wanted:
        job = jobs.submit(node, request, lambda text: say(sys.stderr, [text]))
        say(sys.stdout, [json.dumps(job) if args.json else job["id"]])
    return 0


def list_jobs(args: argparse.Namespace, node: Node) -> int:
    """A line per job, newest first."""
    if not 1 <= args.limit <= MOST:
        raise BadInput(f"--limit got {args.limit} but expected 1..{MOST}")
    after = "" if args.after is None else f"&after={segment(args.after)}"
    page = node.ask("GET", f"/v1/jobs?limit={args.limit}{after}")
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise node.odd("something that is no list of jobs")
    listed = [jobs.checked(node, job) for job in page["data"]]
    if args.json:
        print(json.dumps(page, indent=1))
        return 0
    say(sys.stdout, job_lines(listed))
    if page.get("has_more") and listed:
        say(sys.stderr, [f"more: --after {listed[-1]['id']}"])
    return 0


def watch(args: argparse.Namespace, node: Node) -> int:
    """Follow a job that is there to its pictures; leaving does not cancel it."""
    job = jobs.look(node, args.id)
    request = {"prompt": "", "n": 1, **job["request"]}
    if type(request["n"]) is not int or not isinstance(request["prompt"], str):
        raise node.odd("a job whose request is none")
    places = outputs(args, "cluster", 1, request["n"])
    with over_http(node) as cluster, bar("step", job["steps"], on_cluster.previews(args)) as shown:
        result = _watched(cluster, job, shown)
    warn(result["warnings"])
    finish(on_cluster.gather(cluster, [request], [result], args.embed_prompt), places)
    return 0


def _watched(cluster: OverHttp, job: jobs.Job, shown: Any) -> on_cluster.Result:
    try:
        return cluster.follow(job["id"], shown)
    except KeyboardInterrupt:
        shown.say(
            f"job {job['id']} goes on: `python -m baguette remote cancel {job['id']}` stops it"
        )
        raise


def cancel(args: argparse.Namespace, node: Node) -> int:
    """Stop each; what is over already stays as it is."""
    for job_id in args.ids:
        job = jobs.cancel(node, job_id) or jobs.look(node, job_id)
        say(sys.stdout, [json.dumps(job) if args.json else f"{job['id']} {job['status']}"])
    return 0


def show_cluster(args: argparse.Namespace, node: Node) -> int:
    """Nodes, and who answers for which expert."""
    cluster = node.ask("GET", "/v1/cluster")
    if not isinstance(cluster, dict):
        raise node.odd("something that is no cluster")
    if args.json:
        print(json.dumps(cluster, indent=1))
    else:
        say(sys.stdout, cluster_lines(node, cluster))
    return 0
