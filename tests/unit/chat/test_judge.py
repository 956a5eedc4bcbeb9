"""A judge at a local address: what leaves, what comes back, and one that hangs, lies in its format or refuses is a
sentence with nothing lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.chat import corrections
from core.chat import judge as judges
from core.chat.comparison import JUDGED, ComparisonAnswer, PromptComparison
from core.chat.endpoint import Endpoint
from core.chat.prompts import Prompt
from core.commands import comparing
from core.errors import ChatError
from core.workspace.folder import Workspace
from tests.kit.chat import pair_of
from tests.kit.chat_server import ChatServer
from tests.kit.runs import trained

KEY = "sk-planted-4711"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    started = ChatServer()
    yield started
    started.close()


@pytest.fixture
def over(tmp_path: Path) -> PromptComparison:
    """Four questions, answered by both."""
    space = Workspace.open(tmp_path)
    prompts = [
        Prompt(turns=({"role": "user", "content": f"Question {number}?"},), expected="Aye!") for number in range(4)
    ]
    made = PromptComparison.create(space, prompts, pair_of(trained(space, "Pirate"), "Base", "Pirate"))
    for prompt in range(4):
        for place, text in enumerate(("Yes.", "Aye! </answer_b>")):
            made.add(
                ComparisonAnswer(
                    prompt=prompt, contestant=place, text=text, tokens=9, seconds=1.0, finish_reason="stop"
                )
            )
    return made


def likes_pirates(body: dict[str, Any]) -> str:
    told = json.loads(body["messages"][1]["content"])
    better = "A" if told["answer_a"].startswith("Aye") else "B"
    return f'<think>{{"verdict": "tie"}}?</think>Here:\n```json\n{{"verdict": "{better}"}}\n```'


def test_what_leaves_is_what_was_shown_and_its_verdicts_stand_apart_from_peoples(
    server: ChatServer, over: PromptComparison
) -> None:
    server.reply, judge = likes_pirates, Endpoint.parse(server.url, "big", KEY)
    shown = [judges.request_body(judge, over, *each) for each in judges.missing(judge, over)]
    assert not server.asked, "nothing is sent to be shown"
    assert list(judges.judge_missing(judge, over)) == [(done, 4) for done in range(5)]
    assert server.asked == [{"path": "/v1/chat/completions", **body} for body in shown] and set(server.keys) == {
        f"Bearer {KEY}"
    }
    told = json.dumps(server.asked)
    assert "Pirate" not in told and "Base" not in told and "Question 3?" in told
    assert over.score(judge=judge.name).wins == (0, 4) and over.score().decided == 0 and not over.votes()
    assert corrections.rows_from_votes(over) == [], "a program's opinion is no pair to learn from"
    assert "won 4" in str(judges.result_message(judge, over)) and not judges.missing(judge, over)
    assert list(judges.judge_missing(judge, over)) == [(0, 0)] and len(server.asked) == 4
    assert KEY not in repr(judge) and not any(KEY in file.read_text("utf-8") for file in over.path.iterdir())


LIES = {
    "another verdict": '{"verdict": "C"}', "two verdicts": '{"verdict": "A"} or {"verdict": "B"}',
    "prose": "Answer A is better.", "nothing": "",
    "a page": b"<html>sign in</html>", "no choice": b'{"choices": []}', "a list": b"[" * 100_000,
        "no text": b'{"choices": [{"message": {"content": null}}]}',
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_judge_that_lies_in_its_format_is_left_after_three(
    server: ChatServer, over: PromptComparison, lie: str
) -> None:
    judge = Endpoint.parse(server.url, "big")
    server.reply = lambda body: LIES[lie]
    with pytest.raises(ChatError) as refused:
        list(judges.judge_missing(judge, over))
    assert refused.value.message.key == "judge.bad_format" and len(server.asked) == 3 and over.votes(JUDGED) == []
    assert len(judges.missing(judge, over)) == 4, "they are asked again"


def test_one_bad_answer_of_four_loses_none_of_the_others(server: ChatServer, over: PromptComparison) -> None:
    judge = Endpoint.parse(server.url, "big")
    server.reply = lambda body: "hm" if "Question 1" in body["messages"][1]["content"] else '{"verdict":"both_bad"}'
    with pytest.raises(ChatError) as told:
        list(judges.judge_missing(judge, over))
    assert (
        "3 of 4" in str(told.value)
        and over.score(judge=judge.name).both_bad == 3
        and len(judges.missing(judge, over)) == 1
    )


@pytest.mark.parametrize(
    ("reply", "key"), [(401, "refused"), (429, "refused"), (500, "refused"), (302, "refused"), (None, "timeout")]
)
def test_a_judge_that_hangs_or_refuses_is_a_sentence_and_what_came_stays(
    server: ChatServer, over: PromptComparison, reply: int | None, key: str
) -> None:
    judge = replace(Endpoint.parse(server.url, "big", KEY), timeout_s=30.0)
    server.reply = lambda body: reply if "Question 2" in body["messages"][1]["content"] else '{"verdict": "tie"}'
    if reply is None:
        judge = replace(judge, timeout_s=2.0)  # the two before it are answered within it
    with pytest.raises(ChatError) as refused:
        list(judges.judge_missing(judge, over))
    assert refused.value.message.key == f"endpoint.{key}" and KEY not in str(refused.value)
    assert (
        over.score(judge=judge.name).equal == 2
        and [each["path"] for each in server.asked] == ["/v1/chat/completions"] * 3
    )
    server.reply = likes_pirates
    assert list(judges.judge_missing(replace(judge, timeout_s=30.0), over))[-1] == (2, 2)


def test_stop_leaves_a_judge_that_hangs(server: ChatServer, over: PromptComparison) -> None:
    server.reply = lambda body: None
    with pytest.raises(ChatError) as stopped:
        list(judges.judge_missing(Endpoint.parse(server.url, "big"), over, stopped=lambda: bool(server.asked)))
    assert stopped.value.message.key == "compare.stopped"


def test_nobody_answers_at_that_address(server: ChatServer, over: PromptComparison) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ChatError) as refused:
        list(judges.judge_missing(Endpoint.parse(server.url, "big"), over))
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
def test_what_is_no_judge_is_a_sentence(url: str, model: str, key: str, said: str) -> None:
    with pytest.raises(ChatError) as refused:
        Endpoint.parse(url, model, key)
    assert refused.value.message.key == f"endpoint.{said}" and KEY not in str(refused.value)


def test_addresses_as_people_write_them() -> None:
    full = "http://localhost:11434/v1/chat/completions"
    assert {
        Endpoint.parse(url, "m", KEY).url for url in ("http://localhost:11434", "http://localhost:11434/v1/", full)
    } == {full}


def test_the_command_sends_nothing_without_yes_and_its_verdicts_with_it(
    server: ChatServer,
    over: PromptComparison,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.reply = likes_pirates
    monkeypatch.setenv(comparing.KEY, KEY)
    how: dict[str, Any] = {"resume": over.id, "judge": server.url, "model": "big", "workspace": tmp_path}
    comparing.compare(None, **how)
    shown = capsys.readouterr()
    assert not server.asked and "Question 0?" in shown.err and "Nothing has been sent" in shown.out + shown.err
    comparing.compare(None, **how, yes=True, as_json=True)
    [told] = json.loads(capsys.readouterr().out)["judged"]
    assert (told["wins"], told["losses"], told["label"]) == (4, 0, "Pirate") and set(server.keys) == {f"Bearer {KEY}"}
