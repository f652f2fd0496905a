"""OpenAI's own Python client, unchanged, against a real cluster with a tiny model."""

from __future__ import annotations

import base64
import io
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from http_server import Server
from launcher.nodes import Launch
from live import free_web_port, running

NODES = 2
PATIENCE = 120.0


@pytest.fixture(scope="module")
def server(three: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    run = tmp_path_factory.mktemp("run")
    port = free_web_port(NODES)
    with running(run, Launch(NODES, three, web_port=port), uuid.uuid4().hex) as fleet:
        yield Server(fleet, run, port)


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    key = server.bearer().removeprefix("Bearer ")
    return openai.OpenAI(base_url=f"{server.url()}/v1", api_key=key, max_retries=0, timeout=60)


def size(encoded: str | None) -> tuple[int, int]:
    assert encoded is not None
    return Image.open(io.BytesIO(base64.b64decode(encoded))).size


def test_pictures(client: openai.OpenAI) -> None:
    drawn = client.images.generate(
        prompt="any words", n=2, size="auto", response_format="b64_json", user="me",
        extra_body={"seed": 3, "steps": 4},
    )  # fmt: skip
    assert drawn.data is not None
    assert len(drawn.data) == 2
    width, height = size(drawn.data[0].b64_json)
    assert (width, height) == size(drawn.data[1].b64_json)
    own = f"{width}x{height}"
    again = client.images.generate(
        prompt="any words", size=own, extra_body={"seed": 3, "steps": 4, "deterministic": True}
    )  # type: ignore[call-overload]
    assert size(again.data[0].b64_json) == (width, height)


def test_urls(client: openai.OpenAI, server: Server) -> None:
    drawn = client.images.generate(
        prompt="any words", response_format="url", extra_body={"steps": 2}
    )
    assert drawn.data is not None
    url = drawn.data[0].url
    assert url is not None
    request = urllib.request.Request(url, headers={"Authorization": server.bearer()})
    with urllib.request.urlopen(request) as answer:
        assert answer.read(4) == b"\x89PNG"


def test_a_stream_with_partial_images(client: openai.OpenAI) -> None:
    # They are made while the node's own worker has nothing else to do, which on a busy machine may
    # not be during the first picture.
    deadline = time.monotonic() + PATIENCE
    partial: list[Any] = []
    while not partial:
        assert time.monotonic() < deadline, "no partial image ever came"
        stream = client.images.generate(
            prompt="any words", stream=True, partial_images=2, extra_body={"steps": 200}
        )
        events = list(stream)
        kinds = [event.type for event in events]
        assert kinds[-1] == "image_generation.completed"
        assert kinds.count("image_generation.completed") == 1
        assert [size(event.b64_json) for event in events]
        partial = [e for e in events if e.type == "image_generation.partial_image"]
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.images.generate(prompt="any words", size="1024x1024")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["field"] == "size"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="test.wrong").images.generate(prompt="any words")
    assert [model.id for model in client.models.list()]
