"""A model behind a local address: one that hangs, lies in its format or refuses is a sentence, and its key stays
nowhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from core.chat.endpoint import BadAnswer, Endpoint
from core.errors import ChatError
from tests.kit.chat_server import ChatServer

KEY = "sk-planted-4711"
BODY = {"messages": [{"role": "user", "content": "Question?"}]}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    started = ChatServer()
    yield started
    started.close()


def test_the_key_goes_to_the_server_alone(server: ChatServer) -> None:
    server.reply, endpoint = lambda body: "Aye!", Endpoint.parse(server.url, "big", KEY)
    assert endpoint.answer(endpoint.body(BODY["messages"])) == "Aye!" and server.keys == [f"Bearer {KEY}"]
    assert KEY not in repr(endpoint)


@pytest.mark.parametrize(
    "lie",
    [b"<html>sign in</html>", b'{"choices": []}', b"[" * 100_000, b'{"choices": [{"message": {"content": null}}]}'],
)
def test_a_server_that_lies_in_its_format_is_a_bad_answer(server: ChatServer, lie: bytes) -> None:
    server.reply = lambda body: lie
    with pytest.raises(BadAnswer):
        Endpoint.parse(server.url, "big").answer(BODY)


@pytest.mark.parametrize(
    ("reply", "key"), [(401, "refused"), (429, "refused"), (500, "refused"), (302, "refused"), (None, "timeout")]
)
def test_a_server_that_hangs_refuses_or_redirects_is_a_sentence(
    server: ChatServer, reply: int | None, key: str
) -> None:
    endpoint = replace(Endpoint.parse(server.url, "big", KEY), timeout_s=30.0 if reply else 0.3)
    server.reply = lambda body: reply
    with pytest.raises(ChatError) as refused:
        endpoint.answer(BODY)
    assert refused.value.message.key == f"endpoint.{key}" and KEY not in str(refused.value)
    assert [each["path"] for each in server.asked] == ["/v1/chat/completions"]


def test_stop_leaves_a_server_that_hangs(server: ChatServer) -> None:
    server.reply = lambda body: None
    with pytest.raises(ChatError) as stopped:
        Endpoint.parse(server.url, "big").answer(BODY, stopped=lambda: bool(server.asked))
    assert stopped.value.message.key == "compare.stopped"


def test_nobody_answers_at_that_address(server: ChatServer) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ChatError) as refused:
        Endpoint.parse(server.url, "big").answer(BODY)
    assert refused.value.message.key == "endpoint.unreachable"
    server.http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.mark.parametrize(
    ("url", "model", "key", "said"),
    [
        ("", "m", "", "bad_url"), ("file:///etc/passwd", "m", "", "bad_url"), ("http://", "m", "", "bad_url"),
        ("http://a:b@c/v1", "m", "", "bad_url"),
        ("http://x:99999/v1", "m", "", "bad_url"), ("http://x/ y", "m", "", "bad_url"), ("http://[::1/v1", "m", "",
            "bad_url"), ("http://x/v1", " ", "", "no_model"),
        ("http://x/v1", "m", KEY, "plain_key"), ("https://x/v1", "m", "a\nb", "bad_key"),
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_a_sentence(url: str, model: str, key: str, said: str) -> None:
    with pytest.raises(ChatError) as refused:
        Endpoint.parse(url, model, key)
    assert refused.value.message.key == f"endpoint.{said}" and KEY not in str(refused.value)


def test_addresses_as_people_write_them() -> None:
    full = "http://localhost:11434/v1/chat/completions"
    assert {
        Endpoint.parse(url, "m", KEY).url for url in ("http://localhost:11434", "http://localhost:11434/v1/", full)
    } == {full}
