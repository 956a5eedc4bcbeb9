"""Before a chat reads its weights it says where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from core.chat.client import ChatClient, ChatState, ChatTarget
from core.chat.memory_check import needed_bytes, too_little
from core.memory.setup import Setup
from core.messages import msg
from core.models.shapes.shape import ModelShape
from core.values import GIB
from core.workspace.folder import Workspace
from tests.kit.shapes import LLAMA
from webui.kit.wording import Wording
from webui.pages.chat_status import status_line

SHAPE = ModelShape.from_config(LLAMA)


@pytest.mark.parametrize(
    ("method", "eight_bit", "free", "advice"),
    [
        ("lora", False, 11, "chat.choose_4_bit"),  # 16 bit on a card of 12 GB
        ("lora", False, 17, None),
        ("lora", True, 11, None),
        ("qlora", False, 11, None),
        ("qlora", False, 4, "chat.close_others"),
    ],
)
@pytest.mark.parametrize("device", ["card", "cpu"])
def test_an_8b_model_that_does_not_fit_is_said_with_both_numbers(
    method: Literal["lora", "qlora"], eight_bit: bool, free: float, advice: str | None, device: Literal["card", "cpu"]
) -> None:
    """Seen in the code: on Windows it answered a word a second out of shared memory, and nobody said why."""
    setup = Setup(method=method, load_in_8bit=eight_bit, device=device)
    message = too_little(SHAPE, setup, int(free * GIB))
    assert (message and message.params["advice"]["key"]) == advice
    if message:
        need = needed_bytes(SHAPE, setup) / GIB
        assert f"about {need:.1f} GiB" in str(message) and f"but {free:.1f} GiB" in str(message)
        assert message.key == ("chat.tight_card" if device == "card" else "chat.tight_ram")


def test_what_is_stored_in_4_bit_is_not_told_to_be_loaded_in_4_bit() -> None:
    packed = ModelShape.from_config(
        LLAMA | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    )
    message = too_little(packed, Setup(), 1 * GIB)
    assert message and message.params["advice"]["key"] == "chat.close_others"


def test_16_bit_weights_are_two_bytes_and_the_talk_half_a_gib() -> None:
    # 8.03 billion parameters; 4,096 tokens x 128 KiB in Llama 3 8B
    assert needed_bytes(SHAPE, Setup()) / GIB == pytest.approx(8.03e9 * 2 / GIB + 0.5, abs=0.05)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_is_said_while_it_loads_and_as_long_as_it_is_loaded(tmp_path: Path, language: str) -> None:
    client, w = ChatClient(Workspace.open(tmp_path)), Wording(language)
    message = too_little(SHAPE, Setup(), 11 * int(GIB))
    assert message
    event = {"event": "loading", "load": client._loads, "stage": "loading_model", "progress": None}
    with client._changed:
        client._set(ChatState("loading", ChatTarget("starter", label="my run")))
        client._apply(event | {"tight": message.model_dump()})
        client._apply(event | {"tight": None})
    assert client.state().tight == message and "11.0" in status_line(client.state(), w)
    ready = {
        "dtype": "bfloat16",
        "context_limit": 8192,
        "mixed": True,
        "thinks": None,
        "adapter": None,
        "elsewhere": None,
    }
    with client._changed:
        client._apply(ready | {"event": "ready", "load": client._loads})
    shown = status_line(client.state(), w)
    assert client.state().phase == "ready" and "11.0" in shown and "warn" in shown


def test_a_chat_that_was_closed_for_a_run_says_so_only_while_there_is_one() -> None:
    """It went on to say "load it again when the run is over" of one that the Runs page called done."""
    closed, w = ChatState(why_unloaded=msg("chat.unloaded_for_run", name="pirates")), Wording("en")
    in_use = msg("chat_page.training", name="pirates")
    assert "make room" in status_line(closed, w, in_use) and "pirates" not in status_line(closed, w)
    assert "closed" in status_line(ChatState(why_unloaded=msg("chat.idle_unloaded", minutes=30)), w)
