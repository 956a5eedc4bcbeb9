"""Models that write rows behind a server: what is sent, what is tried again, and what ends in a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.api.datasets import dataset_store
from core.chat.endpoint import Endpoint
from core.chat.making import writers
from core.chat.making.drafts import schema
from core.chat.making.writers import ServerWriter
from core.commands import making as commands
from core.errors import ChatError, GarageError
from core.workspace.folder import Workspace
from tests.kit.chat_server import ChatServer
from tests.kit.writers import manual, scripted_reply

HELLO = [[{"role": "user", "content": "Hello"}]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(writers, "WAITS_S", (0.0, 0.0))
    started = ChatServer()
    yield started
    started.close()


def writer_at(server: ChatServer) -> ServerWriter:
    return ServerWriter(Endpoint.parse(server.url, "big"))


def test_a_server_without_schemas_is_sent_none_after_its_first_refusal(server: ChatServer) -> None:
    server.reply = lambda body: 400 if "response_format" in body else "plain"
    writer = writer_at(server)
    assert writer.answers(HELLO * 3, 50, schema=schema("questions")) == ["plain"] * 3
    before = len(server.asked)
    assert writer.answers(HELLO, 50, 1, schema("questions")) == ["plain"] and len(server.asked) == before + 1
    last = server.asked[-1]
    assert (last["max_tokens"], last["temperature"], last["seed"], last["stream"]) == (50, 0.7, 1, False)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_refuses_for_a_moment_is_asked_again(server: ChatServer, status: int) -> None:
    server.reply = lambda body: "done" if len(server.asked) > 2 else status
    assert writer_at(server).answers(HELLO, 50) == ["done"]


@pytest.mark.parametrize(("reply", "requests"), [(500, 3), (401, 1), (302, 1)])
def test_a_server_that_goes_on_refusing_ends_the_making_in_a_sentence(
    server: ChatServer, reply: int, requests: int
) -> None:
    server.reply = lambda body: reply
    with pytest.raises(ChatError) as refused:
        writer_at(server).answers(HELLO, 50)
    assert refused.value.message.key == "endpoint.refused" and len(server.asked) == requests


def test_an_answer_in_another_format_is_an_empty_one(server: ChatServer) -> None:
    server.reply = lambda body: b"<html>"
    assert writer_at(server).answers(HELLO * 2, 50) == ["", ""]


def test_stop_ends_the_wait_for_a_server(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "WAITS_S", (1000.0,))
    server.reply = lambda body: 503
    with pytest.raises(ChatError) as stopped:
        ServerWriter(Endpoint.parse(server.url, "big"), lambda: bool(server.asked)).answers(HELLO, 50)
    assert stopped.value.message.key == "compare.stopped"


def make(tmp_path: Path, started: ChatServer, **options: Any) -> None:
    (tmp_path / "manual.md").write_text(manual(12), "utf-8")
    values: dict[str, Any] = {"server": started.url, "model": "big", "workspace": tmp_path / "ws"}
    commands.make([str(tmp_path / "manual.md")], **values | options)


def test_the_command_makes_a_dataset_and_a_second_one_asks_nothing_again(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = scripted_reply
    make(tmp_path, server, to="Brassel", out=tmp_path / "rows.jsonl", as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert (result["rows"], result["dropped"], result["known"]) == (24, {}, 0)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 24 and {row["split"] for row in rows} == {"train", "validation"}
    info = dataset_store(Workspace.open(tmp_path / "ws")).get(result["dataset"])
    assert (info.name, info.good_rows, info.made_by) == ("Brassel", 24, f"big @ {Endpoint.parse(server.url, 'b').host}")
    sent = len(server.asked)
    make(tmp_path, server, to="Brassel")
    assert len(server.asked) == sent and "24 rows from 12 passages passed all checks" in capsys.readouterr().err


def test_a_dry_run_and_a_server_elsewhere_are_sent_nothing(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, server, dry_run=True)
    assert "12 passages" in capsys.readouterr().err and not server.asked
    with pytest.raises(ChatError) as refused:
        make(tmp_path, server, server="http://192.0.2.7/v1")
    assert refused.value.message.key == "making.leaves" and "Nothing has been sent" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"server": None}, "making.no_writer"), ({"writer": "base:starter"}, "making.no_writer"),
        ({"kind": "poems"}, "making.unknown_kind"), ({"kind": "absent"}, "making.unknown_kind"),
        ({"model": ""}, "endpoint.no_model"), ({"server": "nowhere"}, "endpoint.bad_url"),
        ({"server": None, "writer": "base:no-such"}, "model.bad_id"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_a_sentence(
    tmp_path: Path, server: ChatServer, options: dict[str, Any], key: str
) -> None:
    with pytest.raises(GarageError) as refused:
        make(tmp_path, server, **options)
    assert refused.value.message.key == key and not (tmp_path / "ws" / "making").exists()


def test_what_was_dropped_is_told_where_nothing_is_left(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = lambda body: "I cannot help with that."
    with pytest.raises(GarageError) as refused:
        make(tmp_path, server)
    assert refused.value.message.key == "making.no_rows"
    assert "12 passages dropped: three replies were not JSON" in capsys.readouterr().err
