"""`train --machines` and `join` in this process: what cannot be is one sentence before anything begins, and the secret
stands on the terminal alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.commands.__main__ import main
from core.commands.together import joining, options
from core.errors import RecipeError
from core.recipe import Recipe
from core.system.linked import Entrance
from core.workspace import lease
from core.workspace.folder import Workspace

SECRET = "abcd-efgh-2345-6789"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LORA_GARAGE_HOME", str(tmp_path / "ws"))
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")
    (tmp_path / "recipe.yaml").write_text("data: {source: 'sample:pirate_answers'}\n", "utf-8")

    def command(*arguments: str) -> tuple[int, str]:
        code = main([str(tmp_path / "recipe.yaml") if word == "RECIPE" else word for word in arguments])
        said = capsys.readouterr()
        assert said.out == ""
        return code, said.err

    return command


BAD = {
    "no address": (("train", "RECIPE", "--machines", "2"), "give both --machines and --main"),
    "no count": (("train", "RECIPE", "--main", "pc:1"), "give both --machines and --main"),
    "a rank alone": (("train", "RECIPE", "--rank", "1"), "give both --machines and --main"),
    "one PC": (("train", "RECIPE", "--machines", "1", "--main", "pc:1"), "2 to 8 PCs"),
    "rank 2 of 2": (("train", "RECIPE", "--machines", "2", "--rank", "2", "--main", "pc:1"), "--rank 2"),
    "no port": (("train", "RECIPE", "--machines", "2", "--main", "pc"), "“pc” is no address"),
    "queued": (("train", "RECIPE", "--machines", "2", "--main", "pc:1", "--queue"), "cannot be queued"),
    "pissa": (
        ("train", "RECIPE", "--machines", "2", "--main", "pc:1", "--set", "adapter.init_lora_weights=pissa"),
        "PiSSA",
    ),
    "nobody there": (("join", "127.0.0.1:1", "--cpu", "--minutes", "0"), "127.0.0.1:1 cannot be reached"),
    "join no port": (("join", "pc"), "“pc” is no address"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_a_sentence_and_exit_2(
    case: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORA_GARAGE_SECRET", SECRET)
    arguments, sentence = BAD[case]
    code, said = run(*arguments)
    assert code == 2 and sentence in said and "Traceback" not in said
    assert not (tmp_path / "ws" / "runs").exists() or not [*(tmp_path / "ws" / "runs").iterdir()]


def test_a_secret_that_could_be_guessed_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_GARAGE_SECRET", "hunter2")
    assert "at least 16" in run("train", "RECIPE", "--machines", "2", "--main", "pc:1")[1]


def test_each_run_has_a_secret_of_its_own_and_what_to_type_does_not_hold_it(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = Recipe.parse({"data": {"source": "x"}})
    first, second = options.gathering(2, "10.0.0.1:29400", 0, wanted), options.gathering(2, "10.0.0.1:29400", 0, wanted)
    assert first and second and first.secret != second.secret and options.gathering(None, None, 0, wanted) is None
    options.announce(first)
    said = capsys.readouterr().err
    [command] = [line for line in said.splitlines() if "join 10.0.0.1:29400" in line]
    assert first.secret in said and first.secret not in command
    with pytest.raises(RecipeError, match="16"):
        options.gathering(
            8, "10.0.0.1:29400", 0, wanted.model_copy(update={"train": wanted.train.model_copy(update={"ranks": 16})})
        )


def test_a_pc_whose_run_ends_says_so_and_gives_its_device_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_GARAGE_SECRET", SECRET)
    monkeypatch.setenv("LORA_GARAGE_LANG", "en")
    space, entrance, told = Workspace.open(tmp_path), Entrance(("127.0.0.1", 0), SECRET), queue.SimpleQueue()

    def main_pc() -> None:
        link = entrance.arrived.get(timeout=10)
        link.listen(lambda said: (told.put((said, lease.is_held(space))), link.say(over=True)), lambda why: None)

    threading.Thread(target=main_pc, daemon=True).start()
    host, port = entrance.address
    assert joining.take_part(space, f"{host}:{port}", True, 5.0, {"data": "1"}) == 0
    said, was_held = told.get(timeout=10)
    assert said["data"] == "1" and said["versions"]["lora_garage"] and was_held and not lease.is_held(space)
    assert "has ended" in capsys.readouterr().err
    entrance.close()
