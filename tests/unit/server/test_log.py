"""What the web process's log holds when something goes wrong, and what it never holds."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from webui.server import log
from webui.server.door import Doorkeeper, DoorSecret

TOKEN, OWN_TOKEN = "hf_plantedInTheLogOfTheTest", "a-mirrors-token-without-a-prefix"
PROMPT = "what somebody typed into the chat"


@pytest.fixture
def keeper() -> Doorkeeper:
    return Doorkeeper(DoorSecret("me", "correct horse"), 7860)


@pytest.fixture
def file(tmp_path: Path, keeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A log that has begun; what logging and the interpreter had before comes back."""
    root, ours = logging.getLogger(), logging.getLogger("lora_garage")
    handlers, levels, hooks = root.handlers[:], (root.level, ours.level), (sys.excepthook, threading.excepthook)
    to_file = log.begin(tmp_path / "logs" / "app.log", keeper.secrets)
    yield tmp_path / "logs" / "app.log"
    to_file.close()
    root.handlers[:] = handlers
    root.setLevel(levels[0]), ours.setLevel(levels[1])
    sys.excepthook, threading.excepthook = hooks


def fail(error: Exception, cause: Exception | None = None) -> None:
    try:
        raise error from cause
    except Exception:  # noqa: BLE001 - whatever is handed in
        log.log.exception("it failed")


def test_nothing_that_is_secret_reaches_the_file(
    file: Path, keeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", OWN_TOKEN)
    ticket = keeper.ticket("http://127.0.0.1:7860/").partition("key=")[2]
    secrets = (TOKEN, OWN_TOKEN, keeper.secret.word, keeper.inside, ticket, "abcdefgh12345")
    for secret in secrets[:-1]:
        log.log.warning("as an argument: %s", secret)
        fail(OSError(f"in the words of the system: {secret}"), ConnectionError(secret))
    log.log.warning("opened http://127.0.0.1:7860/?lang=en&key=abcdefgh12345 with Authorization: Bearer abcdefgh12345")
    log_text = file.read_text("utf-8")
    assert "in the words of the system: ***" in log_text and "lang=en&key=*** with" in log_text, (
        "what was written was written"
    )
    assert not [secret for secret in secrets if secret in log_text]


def test_what_somebody_typed_is_not_repeated_but_the_place_is(file: Path) -> None:
    for error in (
        ValueError(PROMPT),
        KeyError(PROMPT),
        RuntimeError(PROMPT),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, PROMPT),
    ):
        fail(error, ValueError(PROMPT))
    log = file.read_text("utf-8")
    assert PROMPT not in log
    assert "builtins.ValueError" in log and "test_log.py:" in log and "in fail" in log
    fail(TypeError("unsupported operand"))
    assert "builtins.TypeError: unsupported operand" in file.read_text("utf-8")


def test_the_terminal_still_shows_the_whole_traceback(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.getLogger().handlers[1]
    assert isinstance(handler, logging.StreamHandler) and handler.level == logging.WARNING
    handler.setStream(sys.stderr)
    fail(ValueError("for whoever sits there"))
    log.log.info("not for the terminal")
    shown = capfd.readouterr().err
    assert "ValueError: for whoever sits there" in shown and "not for the terminal" not in shown


def test_the_log_does_not_grow_beyond_three_files_of_a_mebibyte(file: Path) -> None:
    root = logging.getLogger()
    del root.handlers[2:]  # pytest's: what they keep goes to another process, which takes no half character
    root.handlers[1].setLevel(logging.CRITICAL)
    for number in range(1200):
        log.log.warning("%d %s \ud800", number, "海盗" * 999)  # half a character too
    sizes = [each.stat().st_size for each in file.parent.iterdir()]
    assert len(sizes) == 3 and max(sizes) <= 1 << 20
    assert "1199 海盗" in file.read_text("utf-8")


def test_a_thread_that_dies_is_in_the_log(file: Path) -> None:
    def die() -> None:
        raise OSError("the drive is gone")

    thread = threading.Thread(target=die)
    thread.start()
    thread.join()
    log = file.read_text("utf-8")
    assert "CRITICAL" in log and "builtins.OSError: the drive is gone" in log and "in die" in log


def test_a_full_disk_is_said_once_and_stops_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_file = logging.getLogger().handlers[0]
    assert isinstance(to_file, logging.FileHandler)

    class Full:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

        def seek(self, *place: int) -> None: ...
        def tell(self) -> int:
            return 0

        def flush(self) -> None: ...
        def close(self) -> None: ...

    to_file.stream.close()
    to_file.stream = Full()  # type: ignore[assignment]
    for _ in range(3):
        log.log.info("anything")
    assert capsys.readouterr().err == f"{file}: No space left on device\n"
    to_file.stream = None  # type: ignore[assignment]


def test_what_gradio_catches_of_a_handler_reaches_the_log(file: Path) -> None:
    import gradio

    from webui.server.blocks import GarageBlocks

    def fails() -> None:
        raise ImportError("of a handler")

    def refuses() -> None:
        raise gradio.Error("a sentence for the person")

    with GarageBlocks(analytics_enabled=False) as demo:
        for handler in (fails, refuses):
            gradio.Button().click(handler)
    for number, shown in enumerate(("of a handler", "a sentence for the person")):
        with pytest.raises(gradio.Error) as caught:
            asyncio.run(demo.process_api(number, [], explicit_call=True))
        assert caught.value.message == shown
        assert number or not caught.value.print_exception, "gradio would print it a second time"
    log = file.read_text("utf-8")
    assert "builtins.ImportError: of a handler" in log and "for the person" not in log
