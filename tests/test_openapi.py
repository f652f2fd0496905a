"""The OpenAPI document against a running node: schemathesis asks everything the document allows.

What differs from model to model (its name, size and number of experts) and from node to node (the
limits that are settings) is written into the document first, as the running node has it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from baguette.remote.job import ENDS
from http_server import Server, serving
from launcher.simulated import Device
from live import ROOT

DOCUMENT = ROOT / "apps" / "baguette_web" / "priv" / "openapi.json"
# An endless stream is no single answer; what lies in it is tested where it is made.
STREAM = "/v1/stream"
LIMITS = {"max_steps": 50, "max_n": 2, "max_jobs": 100_000, "max_client_jobs": 100_000}
FAST = Device(
    batch_us=100,
    row_us=10,
    load_ms=20,
    more={"encode_us": 0, "advance_us": 0, "decode_us": 0},
)
# A picture that is asked for comes after all jobs of the examples before.
SECONDS = 60.0
EXAMPLES = 40
CLIENTS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("run"), 1, FAST, **LIMITS) as running:
        yield running


def document(server: Server) -> dict[str, Any]:
    """The node's document with this model and these limits in it."""
    doc: dict[str, Any] = server.ask("/openapi.json").json()
    (model,) = server.ask("/v1/models").json()["data"]
    for name in ("JobRequest", "ImagesRequest"):
        fields = doc["components"]["schemas"][name]["properties"]
        fields["steps"]["maximum"] = LIMITS["max_steps"]
        fields["n"]["maximum"] = LIMITS["max_n"]
        fields["model"] = {"enum": [model["id"], None]}
        fields["size"] = {"enum": ["auto", None]}
        fields["top_k"]["anyOf"][0]["maximum"] = model["num_experts"]
    # What events look like the document says in words: its schema is of the stream as a whole.
    for operations in doc["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                answer.get("content", {}).get("text/event-stream", {}).pop("schema", None)
    return doc


@pytest.fixture(scope="module")
def api(server: Server) -> schemathesis.BaseSchema:
    schema = schemathesis.openapi.from_dict(document(server))
    schema.config.update(base_url=server.url())
    return schema


OPERATIONS = [
    (path, method, mode)
    for path, operations in json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"].items()
    for method in operations
    for mode in GenerationMode
    # What is not asked for in a query or a header is passed over, as everywhere: only of a body
    # can be said that what the document does not allow is refused.
    if path != STREAM and (mode is GenerationMode.POSITIVE or method == "post")
]


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_the_node_answers_as_the_document_says(
    server: Server, api: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode
) -> None:
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: schemathesis.Case) -> None:
        # A client of its own: an Idempotency-Key that comes twice is another client's.
        bearer = server.bearer(f"client-{next(CLIENTS)}")
        case.call_and_validate(headers={"Authorization": bearer}, timeout=SECONDS)

    holds()
    # What this test has left in the queue is no other test's to wait for.
    for job in server.ask("/v1/jobs?limit=100").json()["data"]:
        if job["status"] not in ENDS:
            server.ask(f"/v1/jobs/{job['id']}", "DELETE")


def test_every_route_is_in_the_document_and_nothing_else(server: Server) -> None:
    doc = server.ask("/openapi.json").json()
    for path, operations in doc["paths"].items():
        asked = path.replace("{id}", "0" * 20).replace("{file}", "0.png")
        allow = server.ask(asked, "BREW").headers["allow"].split(", ")
        assert sorted(m.lower() for m in allow if m != "HEAD") == sorted(operations), path


def test_the_document_is_json_in_one_spelling(server: Server) -> None:
    text = server.ask("/openapi.json").body
    assert json.loads(text)["openapi"] == "3.1.0"
    assert text.endswith(b"}\n")
