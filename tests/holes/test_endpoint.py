"""An endpoint that times out, breaks off, returns garbage or refuses costs attempts, not results."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from unlearned.errors import InputError
from unlearned.holes._endpoint import Endpoint

Reply = Callable[[BaseHTTPRequestHandler], None]


def say(text: Any, status: int = 200) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        content = json.dumps({"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 11}}).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return reply


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"<html>busy</html>")


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


def break_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')


class Server:
    """Answers in the order of its script, then always "fine"."""

    def __init__(self, *script: Reply) -> None:
        self.script = list(script)
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.keys.append(self.headers.get("Authorization"))
                (outer.script.pop(0) if outer.script else say("fine"))(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(*script: Reply) -> Server:
        servers.append(Server(*script))
        return servers[-1]

    yield begin
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    "trouble",
    [garbage, hang_up, break_off, say("no", 500), say("slow down", 429), say(None), say(["x"])],
    ids=["garbage", "hang-up", "break-off", "500", "429", "null", "list"],
)
def test_trouble_costs_attempts_not_results(start: Callable[..., Server], trouble: Reply) -> None:
    server, waits = start(trouble, trouble), list[float]()
    endpoint = Endpoint("m", server.url, wait=waits.append, per_minute=1e9)
    assert endpoint.write([ask("a"), ask("b")]) == ["fine", "fine"]
    assert endpoint.requests == 4
    assert waits == [1, 2]
    assert endpoint.failed == 0


def test_a_silent_server_is_given_up(start: Callable[..., Server]) -> None:
    gone = threading.Event()
    server = start(lambda _: gone.wait(5) and None)
    endpoint = Endpoint("m", server.url, wait=lambda _: gone.set(), timeout=0.2, attempts=2, per_minute=1e9)
    assert endpoint.write([ask("a")]) == ["fine"]
    assert endpoint.requests == 2


def test_what_cannot_be_had_is_counted(start: Callable[..., Server]) -> None:
    server = start(*[garbage] * 3)
    endpoint = Endpoint("m", server.url, wait=lambda _: None, attempts=3, per_minute=1e9)
    assert endpoint.write([ask("a"), ask("b")]) == [None, "fine"]
    assert endpoint.failed == 1


def test_a_refusal_for_good_is_said_in_words(start: Callable[..., Server]) -> None:
    with pytest.raises(InputError, match="the server refuses \\(401"):
        Endpoint("m", start(say("who are you", 401)).url, per_minute=1e9).write([ask("a")])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_conversation_that_is_refused_costs_its_answer_alone(start: Callable[..., Server], status: int, tmp_path: Path) -> None:
    server = start(say("one"), say("too long", status), say("three"), say("too long", status))
    endpoint = Endpoint("m", server.url, tmp_path / "t.jsonl", per_minute=1e9)
    assert endpoint.write([ask("a"), ask("b"), ask("c")]) == ["one", None, "three"]
    assert (endpoint.requests, endpoint.failed) == (3, 1)
    # An interrupted look goes on with what was refused, and it has its answers in the transcript.
    assert Endpoint("m", server.url, tmp_path / "t.jsonl", per_minute=1e9).write([ask("b"), ask("a")]) == [None, "one"]
    with pytest.raises(InputError, match=f"the server refuses \\({status}"):
        Endpoint("m", start(say("no such model", status)).url, per_minute=1e9).write([ask("a")])


def test_what_was_answered_is_never_asked_again(start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    transcript = tmp_path / "deep" / "transcript.jsonl"
    server = start(say("one"), say("two"))
    endpoint = Endpoint("m", server.url, transcript, per_minute=1e9)
    assert endpoint.write([ask("a"), ask("a"), ask("b")]) == ["one", "one", "two"]
    assert (endpoint.requests, endpoint.tokens) == (2, 22)
    assert server.seen[0] == {"model": "m", "messages": ask("a"), "temperature": 0}
    assert server.keys == ["Bearer secret"] * 2
    assert "secret" not in transcript.read_text()
    with transcript.open("a") as file:
        file.write('{"key": "cut o')
    again = Endpoint("m", server.url, transcript, per_minute=1e9)
    assert again.write([ask("b"), ask("c"), ask("a")]) == ["two", "fine", "one"]
    assert again.requests == 1
    assert Endpoint("m", server.url, transcript).write([ask("c")]) == ["fine"]


def test_requests_keep_their_distance(start: Callable[..., Server]) -> None:
    waits: list[float] = []
    Endpoint("m", start().url, wait=waits.append, per_minute=60).write([ask("a"), ask("b")])
    assert len(waits) == 1
    assert 0 < waits[0] <= 1


def test_wrong_addresses_and_transcripts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="OPENAI_BASE_URL"):
        Endpoint("m")
    with pytest.raises(InputError, match="no address of the web"):
        Endpoint("m", "file:///etc/passwd")
    (tmp_path / "t.jsonl").write_text('nonsense\n{"key": "a", "answer": "b"}\n')
    with pytest.raises(InputError, match="damaged in line 1"):
        Endpoint("m", "http://localhost", tmp_path / "t.jsonl")
