"""One node, asked over HTTP: a connection per question, bounded in bytes and in time.

Called by `remote.job`, the remote commands and `top`. A refusal is the problem document of the node
(RFC 9457) as one sentence; a connection that breaks is another error, since it may be tried again.
Proxies and redirects are not followed: the token is for the node that was named.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from baguette.errors import ClusterRefused
from baguette.remote.place import Place, Token, check_way, usual_file
from baguette.remote.sse import MAX_EVENT, BadStream, Event, events
from baguette.text import printable

SECONDS = 20.0
SILENCE = 40.0  # a stream is kept alive every 15 s
MAX_JSON, MAX_PICTURE = 16 << 20, 64 << 20
UNAUTHORISED, BUSY, UNAVAILABLE = 401, 429, 503
Headers = Mapping[str, str]


class NodeLost(ClusterRefused):
    """No answer, or only half of one: it may be asked again."""


class NodeRefused(ClusterRefused):
    """An answer that is a refusal. `after`: seconds until asking again makes sense."""

    def __init__(self, sentence: str, status: int = 0, after: float | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.after = after


class Node:
    """A node's address and the token it is asked with."""

    def __init__(self, place: Place, token: Token | None) -> None:
        self.place = place
        self.token = token

    @property
    def url(self) -> str:
        return self.place.url

    def ask(self, method: str, path: str, value: Any = None, more: Headers | None = None) -> Any:
        """A JSON answer, decoded; `value` is sent as the body."""
        body = None if value is None else json.dumps(value).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        with self._answer(method, path, {**headers, **(more or {})}, body, SECONDS) as answer:
            content = _whole(answer, MAX_JSON)
        try:
            return json.loads(content) if content else None
        except (ValueError, RecursionError):
            raise self.odd("something that is no JSON") from None

    def picture(self, path: str) -> bytes:
        """A PNG's bytes."""
        with self._answer("GET", path, {"Accept": "image/png"}, None, SECONDS) as answer:
            return _whole(answer, MAX_PICTURE)

    def events(self, path: str, last: str | None = None) -> Iterator[Event]:
        """Events of a stream, those after `last`; NodeLost when it breaks."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        headers |= {} if last is None else {"Last-Event-ID": last}
        with self._answer("GET", path, headers, None, SILENCE) as answer:
            kind = answer.headers.get_content_type()
            if kind != "text/event-stream":
                raise self.odd(f"{printable(kind, 60)} instead of an event stream")
            try:
                yield from events(iter(lambda: answer.readline(MAX_EVENT + 1), b""))
            except BadStream as error:
                raise self.odd(str(error)) from None

    @contextlib.contextmanager
    def _answer(
        self, method: str, path: str, headers: Headers, body: bytes | None, silence: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        try:
            with self._breaking():
                connection.connect()
                connection.sock.settimeout(silence)
                headers = {"User-Agent": "baguette", **headers, **self._authorisation(connection)}
                connection.request(method, path, body, dict(headers))
                answer = connection.getresponse()
                if not 200 <= answer.status < 300:
                    raise self._refusal(answer)
                yield answer
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.place.tls else http.client.HTTPConnection
        return kind(self.place.host, self.place.port, timeout=SECONDS)

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        """What a connection can die of, as NodeLost."""
        try:
            yield
        except TimeoutError:
            raise NodeLost(f"{self.url} does not answer in time: is that machine up?") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise NodeLost(
                f"{self.url} cannot be reached ({printable(reason, 80)}): is a node running there?"
            ) from None

    def _authorisation(self, connection: http.client.HTTPConnection) -> Headers:
        if self.token is None:
            return {}
        check_way(self.place, connection.sock.getpeername()[0])
        return {"Authorization": f"Bearer {self.token.text}"}

    def odd(self, what: str) -> NodeRefused:
        """An answer that no node of this version gives."""
        return NodeRefused(
            f"{self.url} answered with {what}: is a Baguette node of this version there?"
        )

    def _refusal(self, answer: http.client.HTTPResponse) -> NodeRefused:
        """The problem document as a sentence; of anything else the status."""
        if answer.status == UNAUTHORISED:
            return NodeRefused(self._unauthorised(), UNAUTHORISED)
        after = answer.headers.get("Retry-After", "")
        seconds = float(after) if after.isascii() and after.isdigit() and len(after) < 7 else None
        detail = problem_detail(_json_or_none(_whole(answer, MAX_JSON)))
        sentence = detail or self.odd(f"status {answer.status}").args[0]
        return NodeRefused(sentence, answer.status, seconds)

    def _unauthorised(self) -> str:
        how = (
            f"`make token` on its machine prints one, {usual_file()} (mode 0600) or --token-file "
            "brings it here"
        )
        if self.token is None:
            return f"{self.url} wants a token: {how}"
        return f"{self.url} does not take the token of {self.token.source}: {how}"


def problem_detail(problem: Any) -> str | None:
    """The sentence of a problem document."""
    if not isinstance(problem, dict):
        return None
    text = problem.get("detail") or problem.get("title")
    return printable(text) if isinstance(text, str) and text.strip() else None


def segment(text: str) -> str:
    """Text as one segment of a path, whatever it holds."""
    return quote(text, safe="")


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _whole(answer: http.client.HTTPResponse, limit: int) -> bytes:
    content = answer.read(limit + 1)
    if len(content) > limit:
        raise NodeRefused(f"the node's answer is larger than {limit} bytes: ask for less")
    if answer.length:
        raise http.client.IncompleteRead(content, answer.length)
    return content
