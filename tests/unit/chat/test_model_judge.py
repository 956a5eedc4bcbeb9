"""A model as the judge of an evaluation: both orders, nothing sent twice, and a server that is away says nothing of the
answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.api import contestants
from core.chat import contest
from core.chat.evaluation import model_judge, sets
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.table import Table
from core.chat.prompts import Prompt
from core.commands.__main__ import main
from core.errors import ChatError
from core.judges.specs import ModelJudge
from core.runs.all import Runs
from core.workspace.folder import Workspace
from tests.kit.chat import Chat, pair_of
from tests.kit.chat_server import ChatServer
from tests.kit.runs import trained

QUESTIONS = ("One?", "Two?", "Three?")
Pairs = list[tuple[Prompt, str]]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    started = ChatServer()
    yield started
    started.close()


@pytest.fixture
def evaluation(tmp_path: Path) -> SetEvaluation:
    """Three questions, of which the base answers all with "no" and the run with "aye"."""
    trained(space := Workspace.open(tmp_path), "Pirate")
    prompts = [Prompt(turns=({"role": "user", "content": one},), expected="yes") for one in QUESTIONS]
    made = SetEvaluation.prepare(space, sets.create("three", prompts), pair_of(Runs(space).find("Pirate"), "b", "t"))
    reply = Chat(reply=lambda column, turns: "<think>?</think>no" if column == "base" else "aye")
    [*_] = contest.answer_missing(reply, space, made)
    return made


def pairs_of(evaluation: SetEvaluation) -> Pairs:
    prompts = evaluation.lineup.prompts
    return [(prompts[number], answer.text) for (number, _), answer in evaluation.answers().items()]


def judged(server: ChatServer, evaluation: SetEvaluation) -> Table:
    space, spec = Workspace(evaluation.path.parents[2]), ModelJudge(url=server.url, model="big")
    endpoint = model_judge.endpoint_of(spec)
    [*_] = model_judge.ask(space, endpoint, model_judge.missing(space, spec, iter(pairs_of(evaluation))))
    return Table(evaluation, spec)


def understands(body: dict[str, Any]) -> str:
    sent = json.loads(body["messages"][1]["content"])
    return json.dumps({"verdict": "same" if "aye" in (sent["answer_a"], sent["answer_b"]) else "different"})


def test_a_model_judges_in_both_orders_and_is_sent_nothing_twice(server: ChatServer, evaluation: SetEvaluation) -> None:
    server.reply = understands
    table = judged(server, evaluation)
    assert [table.share(place).right for place in (0, 1)] == [0, 3] and len(table.counted) == 3
    sent = [json.loads(body["messages"][1]["content"]) for body in server.asked]
    orders = {(one["answer_a"], one["answer_b"]) for one in sent}
    assert orders == {("yes", "no"), ("no", "yes"), ("yes", "aye"), ("aye", "yes")} and len(sent) == 12
    assert "Pirate" not in json.dumps(server.asked) and "big @ 127.0.0.1" in str(table.verdicts[0, 1].reason)
    judged(server, evaluation)
    assert len(server.asked) == 12


def test_a_model_that_prefers_the_first_place_is_only_partly_believed(
    server: ChatServer, evaluation: SetEvaluation
) -> None:
    server.reply = lambda body: (
        '{"verdict": "%s"}'
        % ("same" if json.loads(body["messages"][1]["content"])["answer_a"] == "yes" else "different")
    )
    table = judged(server, evaluation)
    assert {verdict.outcome for verdict in table.verdicts.values()} == {"partly"}
    assert "in the other" in str(table.verdicts[0, 0].reason)


@pytest.mark.parametrize(
    ("reply", "key"),
    [(lambda body: 500, "endpoint.refused"), (lambda body: "They are the same.", "judge.bad_format")],
)
def test_a_judge_that_fails_is_a_sentence_and_no_verdict_and_goes_on_later(
    server: ChatServer, evaluation: SetEvaluation, reply: Callable[[Any], Any], key: str
) -> None:
    server.reply = lambda body: understands(body) if len(server.asked) <= 3 else reply(body)
    with pytest.raises(ChatError) as refused:
        judged(server, evaluation)
    assert refused.value.message.key == key
    table = Table(evaluation, ModelJudge(url=server.url, model="big"))
    assert len(table.verdicts) == 1 and len(table.failures) == 5 and not table.counted
    assert any("has not seen this answer" in str(note) for note in table.notes())
    server.reply, before = understands, len(server.asked)
    assert len(judged(server, evaluation).counted) == 3 and len(server.asked) == before + 9


def test_a_judge_with_an_address_that_is_none_is_a_sentence(evaluation: SetEvaluation) -> None:
    table = Table(evaluation, ModelJudge(url="ftp://example", model="big"))
    assert not table.verdicts and len(table.failures) == 6


def test_the_command_sends_only_after_yes(
    server: ChatServer, evaluation: SetEvaluation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply, root = understands, evaluation.path.parents[2]
    monkeypatch.setattr(contestants, "ChatClient", lambda space: Chat(reply=lambda column, turns: "aye"))
    file = root / "three.jsonl"
    file.write_text("".join(json.dumps({"prompt": one, "expected": "yes"}) + "\n" for one in QUESTIONS), "utf-8")
    command = ["evaluate", "Pirate", "--file", str(file), "--contestants", "base,tuned", "--judge", server.url,
        "--model", "big", "--workspace", str(root)]  # fmt: skip
    assert main(command) == 0 and not server.asked
    out, shown = capsys.readouterr()
    assert "Nothing has been sent" in shown and '"answer_b' in shown and "has not seen this answer" in out
    assert main([*command, "--yes"]) == 0 and len(server.asked) == 6, "equal answers to one question are judged once"
    assert "3 of 3 right" in capsys.readouterr().out
    server.reply = lambda body: 500
    assert main([*command, "--yes", "--prompt", "x", "--contestants", "base"]) == 0, "nothing is missing"


def test_questions_with_a_judge_of_their_own_are_not_sent(
    server: ChatServer, evaluation: SetEvaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad answers kept as tests have a judge each: all went to the server, and no verdict of it counted."""
    server.reply, root = understands, evaluation.path.parents[2]
    monkeypatch.setattr(contestants, "ChatClient", lambda space: Chat(reply=lambda column, turns: "aye"))
    rows = [{"prompt": one, "expected": "yes"} for one in QUESTIONS]
    rows[0] |= {"judge": {"kind": "exact"}}  # type: ignore[dict-item]
    (file := root / "three.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    command = ["evaluate", "Pirate", "--file", str(file), "--contestants", "tuned", "--judge", server.url,
        "--model", "big", "--yes", "--workspace", str(root)]  # fmt: skip
    assert main(command) == 0
    assert len(server.asked) == 4 and QUESTIONS[0] not in json.dumps(server.asked)
