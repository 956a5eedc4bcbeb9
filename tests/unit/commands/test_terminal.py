"""What commands write on a terminal, Windows' old console included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from core.api import loading
from core.chat.answer import Piece, Sampling
from core.chat.client import ChatState, ChatTarget
from core.commands import __main__ as commands
from core.commands.terminal import columns, progress_on_terminal, written_over
from core.messages import msg
from core.presets import PROJECT
from core.workspace.folder import Workspace
from tests.kit.runs import trained
from tests.kit.source import tree_of


def test_a_line_covers_the_one_before_whatever_letters_it_had() -> None:
    assert written_over("训练 9/10, 0.1 min", "训练 10/10") == "\r训练 10/10" + " " * 8
    assert written_over("", "Loading the model") == "\rLoading the model"
    assert written_over("short", "longer than that") == "\rlonger than that"


def test_columns_are_as_wide_for_chinese() -> None:
    assert columns("ab", "c") == "ab" + " " * 16 + "c" and columns("训练", "c") == "训练" + " " * 14 + "c"
    assert columns("sample:pirate_answers", "c") == "sample:pirate_answers  c"  # it was "...answersc"


@pytest.mark.parametrize("folder", ["core", "webui"])
def test_nothing_is_written_in_escape_sequences(folder: str) -> None:
    """Windows' old console showed `←[K` in front of each line of a training."""
    texts = [
        f"{file.name}:{node.lineno}"
        for file in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\x1b[" in node.value
    ]
    assert texts == []


@pytest.mark.parametrize(
    ("asked", "thinks", "then"),
    [
        ([], True, None),
        (["--thinking"], False, True),
        (["--no-thinking"], True, False),
        ([], None, None),
        (["--thinking"], None, "refused"),
    ],
)
def test_chat_asks_with_thinking_without_or_as_trained(
    asked: list[str],
    thinks: bool | None,
    then: bool | str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A terminal always asked as trained."""
    sampled: list[Sampling] = []

    class Client:
        def state(self) -> ChatState:
            return ChatState("ready", thinks=thinks)

        @contextmanager
        def ask(self, base: Any, tuned: Any, sampling: Sampling) -> Iterator[list[Piece]]:
            sampled.append(sampling)
            yield [Piece("tuned", "Hello.")]

    monkeypatch.setattr(loading, "target_of", lambda run, checkpoint: ChatTarget("starter", label="mine"))
    monkeypatch.setattr(loading, "opened", lambda space, target: nullcontext(Client()))
    run = trained(Workspace.open(tmp_path / "ws"), "mine")
    status = commands.main(["chat", run.id, "--prompt", "Hi", *asked, "--workspace", str(tmp_path / "ws")])
    output = capsys.readouterr()
    if then == "refused":
        assert status != 0 and not sampled and "--no-thinking" in output.err + output.out
    else:
        assert status == 0 and output.out == "Hello.\n" and [each.enable_thinking for each in sampled] == [then]


def test_the_line_of_a_progress_ends_before_what_is_printed_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table of `evaluate` began behind the progress of its judge, and that of `compare` behind its last answer."""
    with progress_on_terminal(quiet=False) as show:
        show(msg("compare.progress", done=1, wanted=2))
    assert capsys.readouterr().err == "", "a pipe"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress_on_terminal(quiet=True) as show:
        show(msg("compare.progress", done=1, wanted=2))
    assert capsys.readouterr().err == ""
    with pytest.raises(ZeroDivisionError), progress_on_terminal(quiet=False) as show:
        show(msg("compare.progress", done=10, wanted=20))
        show(msg("compare.progress", done=2, wanted=2))
        raise ZeroDivisionError
    assert capsys.readouterr().err == "\r10 of 20 answers\r2 of 2 answers  \n"
