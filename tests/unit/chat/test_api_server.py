"""The OpenAI-compatible server with a chat that has no worker: bodies, access, names of models, and the form of
answers. tests/process/test_serving.py has a real worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from core.chat.answer import ApiSampling, Done, Piece
from core.chat.serving import server
from core.chat.serving.batcher import Batcher, Request, ServedModels
from core.chat.serving.replies import split_calls
from core.chat.serving.requests import ChatBody
from core.chat.serving.server import ApiServer
from core.errors import ChatError
from core.runs.folder import RunFolder
from core.system.reach import Reach
from tests.kit.chat import Chat
from tests.kit.runs import trained
from tests.kit.waits import wait_until

KEY = {"Authorization": "Bearer a-key-of-some-length"}
ASKED = {"model": "pirates", "messages": [{"role": "user", "content": "Ahoy?"}]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


class Talker(Chat):
    """Answers in three pieces, and fails for a question of too many words."""

    text = "Ahoy, matey, arr"

    @contextmanager
    def ask_together(self, questions: Any, sampling: Any, strength: float = 1.0) -> Iterator[Any]:
        if any("too long" in turns[-1]["content"] for pair in questions for turns in pair if turns):
            raise ChatError("chat.too_long", tokens=9000, max_new_tokens=1, context_limit=8192)
        self.sampling = sampling
        with super().ask_together(questions, sampling, strength) as items:
            yield items

    def _answers(self, questions: Any, strength: float) -> Iterator[Piece | Done]:
        for number, (base, tuned) in enumerate(questions):
            self.asked.append((bool(base), bool(tuned), strength))
            for text in (self.text[:4], self.text[4:9], self.text[9:]):
                yield Piece("base" if base else "tuned", text, number)
            yield Done("base" if base else "tuned", 3, 0.5, "stop", number, 7)


@pytest.fixture
def run(make_workspace: Callable[..., Any]) -> RunFolder:
    return trained(make_workspace(), "pirates")


@pytest.fixture
def chat() -> Talker:
    return Talker()


@pytest.fixture
def client(run: RunFolder, chat: Talker, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("core.chat.serving.batcher.GATHER_S", 0)
    api = ApiServer(chat, ServedModels([run]), Reach.from_host("127.0.0.1"), "a-key-of-some-length")  # type: ignore[arg-type]
    with TestClient(api.app, "http://127.0.0.1:8000", raise_server_exceptions=False, headers=KEY) as client:
        yield client
    api.stop()


def ask(client: TestClient, path: str = "chat/completions", **changed: Any) -> Any:
    return client.post(f"/v1/{path}", json=ASKED | changed)


def events(response: Any) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return list(map(json.loads, lines))


def test_a_question_is_answered_whole_as_a_stream_and_without_a_template(client: TestClient, chat: Talker) -> None:
    whole = ask(client, n=2, temperature=0.5, seed=5).json()
    assert [one["message"]["content"] for one in whole["choices"]] == [chat.text] * 2
    assert whole["usage"] == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
    assert [one.seed for one in chat.sampling] == [5, 6] and not chat.sampling[0].greedy
    chunks = events(ask(client, stream=True, stream_options={"include_usage": True}))
    texts = [one["delta"].get("content", "") for chunk in chunks for one in chunk["choices"]]
    assert "".join(texts) == chat.text and len(texts) == 5
    assert [one["finish_reason"] for chunk in chunks for one in chunk["choices"]][-2:] == [None, "stop"]
    assert chunks[-1]["usage"]["total_tokens"] == 10 and len({chunk["id"] for chunk in chunks}) == 1
    text = client.post("/v1/completions", json={"model": "base", "prompt": ["Once", "Twice"]}).json()
    assert [one["text"] for one in text["choices"]] == [chat.text] * 2
    assert all(one.without_template and one.greedy for one in chat.sampling) and chat.asked[-1] == (True, False, 1.0)


def test_names_of_models(client: TestClient, chat: Talker, run: RunFolder) -> None:
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["pirates", "base"]
    assert client.get("/v1/models/pirates@0.5").json()["id"] == "pirates@0.5"
    ask(client, model="pirates@0.5")
    assert chat.asked[-1] == (False, True, 0.5)
    for name in ("parrots", "pirates@9", "pirates@nan", "pirates@checkpoint-9", "base@0.5", "", "a" * 299):
        refused = ask(client, model=name)
        assert refused.status_code == 404 and refused.json()["error"]["code"] == "model_not_found", name


def test_only_its_names_its_own_pages_and_its_key_open_it(client: TestClient) -> None:
    for headers, status in (
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer ключ".encode()}, 401),
        ({"Host": "evil.example:8000"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
    ):
        response = client.post("/v1/chat/completions", json=ASKED, headers=headers)  # type: ignore[arg-type]
        assert response.status_code == status, headers
        assert status == 200 or response.json()["error"]["message"]
        assert client.get("/v1/models", headers=headers).status_code == status  # type: ignore[arg-type]


WRONG: tuple[Any, ...] = (None, True, -1, 0, 3.5, 1e400, "", "x", [], {}, [None], [[]], {"a": 1}, "\ud800", 10**40)
NAMES = (
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "seed", "stop", "n", "logprobs", "top_logprobs", "tools", "tool_choice", "frequency_penalty", "presence_penalty",
    "logit_bias", "response_format", "echo", "suffix", "best_of", "functions", "function_call",
)  # fmt: skip
MESSAGES: tuple[Any, ...] = (
    [{"role": "king", "content": "a"}], [{"role": "user"}], [{"role": "user", "content": " "}], [{"content": "a"}],
    [{"role": "assistant", "content": "a"}], [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
    [{"role": "user", "content": 5}], [{"role": "user", "content": "a" * 400_001}],
    [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}, {"role": "tool"}],
    [{"role": "user", "content": "too long"}],
)  # fmt: skip
RAW = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": "pirates"}', b"[" * 100_000, b'{"a":' * 100_000, b"\x00")


def test_a_bad_body_gets_an_error_and_the_server_lives(client: TestClient) -> None:
    """Over a hundred: each known key with each wrong value; messages; bytes that are no JSON."""
    bodies = [json.dumps(ASKED | {name: value}) for name in NAMES for value in WRONG]
    bodies += [json.dumps(ASKED | {"messages": messages}) for messages in MESSAGES]
    refused = 0
    for body in [*bodies, *RAW]:
        for path in ("chat/completions", "completions"):
            response = client.post(f"/v1/{path}", content=body)
            if response.status_code != 200:
                error = response.json()["error"]
                assert error["message"] and set(error) == {"message", "type", "param", "code"}, body[:100]
                assert response.status_code in (400, 404), (response.status_code, body[:100])
                refused += 1
    assert refused > 500 and ask(client).status_code == 200
    unknown = client.post("/v1/images", json={}), client.get("/v1/chat/completions"), client.get("/")
    assert [(each.status_code, "error" in each.json()) for each in unknown] == [(404, True), (405, True), (404, True)]


def test_too_large_too_late_and_too_many(client: TestClient, chat: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_BYTES", 1000)
    assert ask(client, user="a" * 1000).status_code == 413
    monkeypatch.setattr("core.chat.serving.batcher.MAX_WAITING", 0)
    assert ask(client).status_code == 429
    monkeypatch.undo()
    chat.text = None  # type: ignore[assignment] - an answer that fails in an unforeseen way
    assert ask(client).status_code == 500 and ask(client, stream=True).status_code == 500
    del chat.text
    assert ask(client).status_code == 200


def test_a_question_that_is_too_long_does_not_fail_the_others(client: TestClient, chat: Talker, run: RunFolder) -> None:
    long = ask(client, messages=[{"role": "user", "content": "too long"}])
    assert long.status_code == 400 and long.json()["error"]["code"] == "context_length_exceeded"
    batcher, model = Batcher(chat), ServedModels([run]).find("pirates")  # type: ignore[arg-type]
    arrived: dict[str, list[object]] = {"too long": [], "short": []}
    batcher._answer(
        [
            Request(model, [[{"role": "user", "content": content}]], ApiSampling(), items.append)
            for content, items in arrived.items()
        ]
    )
    batcher.end()
    assert [type(item).__name__ for item in arrived["too long"]] == ["ChatError"]
    assert [type(item).__name__ for item in arrived["short"]] == ["Piece", "Piece", "Piece", "Done"]


def test_requests_that_are_all_abandoned_meanwhile_are_dropped(
    chat: Talker, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: IndexError in the thread."""
    asked = list[list[Request]]()
    monkeypatch.setattr(Batcher, "_answer", lambda self, batch: asked.append(batch))
    batcher, model = Batcher(chat), ServedModels([run]).find("pirates")  # type: ignore[arg-type]
    gone, there = (
        Request(model, [[{"role": "user", "content": content}]], ApiSampling(), lambda item: None) for content in "ab"
    )
    gone.abandoned.set()
    batcher.add(gone)
    wait_until(lambda: not batcher._waiting)
    batcher.add(there)
    wait_until(lambda: bool(asked))
    batcher.end()
    assert asked == [[there]]


def test_what_arrives_joins_the_batch_unless_one_before_it_cannot(chat: Talker, run: RunFolder) -> None:
    """They waited for the batch to end. One that joined in vain, as the batch was about to end, is asked anew."""
    models, joined, arrived = ServedModels([run]), list[str](), dict[str, list[object]]()

    def request(name: str, model: str = "pirates") -> Request:
        items = arrived.setdefault(name, [])
        return Request(models.find(model), [[{"role": "user", "content": name}]], ApiSampling(), items.append)

    def talk(questions: Any, strength: float) -> Iterator[Piece | Done]:
        gone = request("gone")
        gone.abandoned.set()
        for new in (gone, request("second"), request("base", "base"), request("weak", "pirates@0.5"), request("third")):
            batcher.add(new)
        yield Piece("tuned", "A", 0)
        assert joined == ["second", "base"]
        yield from (Done("tuned", 1, 0.5, "stop", number, 7) for number in (0, 2))

    batcher = Batcher(chat)  # type: ignore[arg-type]
    batcher.end()
    chat.join = lambda answer, questions, how: joined.extend((one[0] or one[1])[0]["content"] for one in questions)  # type: ignore[attr-defined]
    chat._answers = talk  # type: ignore[method-assign]
    batcher._answer([request("first")])
    assert {name: len(items) for name, items in arrived.items() if items} == {"first": 2, "base": 1}
    assert [each.questions[0][0]["content"] for each in batcher._waiting] == ["second", "weak", "third"]


def test_tool_calls_are_read_from_the_answer(client: TestClient, chat: Talker) -> None:
    chat.text = 'Sure.<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
    expected = {"name": "weather", "arguments": '{"city": "Ulm"}'}
    whole = ask(client, tools=TOOLS).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls" and whole["message"]["content"] == "Sure."
    assert [call["function"] for call in whole["message"]["tool_calls"]] == [expected]
    chunks = [one for chunk in events(ask(client, tools=TOOLS, stream=True)) for one in chunk["choices"]]
    assert [one["delta"].get("tool_calls", [{}])[0].get("function") for one in chunks][-2] == expected
    assert "".join(one["delta"].get("content", "") for one in chunks) == "Sure."
    assert chunks[-1]["finish_reason"] == "tool_calls"
    without = ask(client, tool_choice="none", tools=TOOLS).json()["choices"][0]
    assert without["message"]["content"] == chat.text and without["finish_reason"] == "stop"
    for text in ("<tool_call>{}</tool_call>", "<tool_call>[1]", '<tool_call>{"name": ', "plain"):
        assert split_calls(text) == (text, [])


def test_messages_become_turns_of_the_template() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "Rain", "tool_call_id": "c1"},
    ]
    [turns] = ChatBody.model_validate({"model": "a", "messages": messages}).questions()
    assert turns == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"name": "weather", "arguments": {"city": "Ulm"}, "id": "c1"}],
        },
        {"role": "tool", "content": "Rain", "tool_call_id": "c1"},
    ]
