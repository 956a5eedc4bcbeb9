"""A list of questions to a run's model without a page: one chat worker, one question at a time, greedily."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.chat.answer import Piece, Sampling
from core.chat.client import DOING, ChatClient, ChatTarget
from core.errors import ChatError
from core.models.adapters import describe
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace

LOAD_TIMEOUT_S = 1800  # the model may have to be downloaded first


def target_of(run: RunFolder, checkpoint: str | None = None, four_bit: bool | None = None) -> ChatTarget:
    """Return the chat's target for a run: its adapter (without one the newest checkpoint's), or that of a checkpoint,
    on the base as it was trained.

    four_bit: None means as trained. Raises ChatError for a run without an adapter, RunError for an unknown checkpoint.
    """
    recipe = run.recipe()
    folder: Path = run.checkpoint(checkpoint) / "adapter" if checkpoint else run.adapter
    if checkpoint is None and not run.has_adapter():
        saved = run.checkpoints()
        if not saved:
            raise ChatError("chat.nothing_kept", run=run.name)
        folder = saved[-1] / "adapter"  # an interrupted run: the newest thing it saved
    describe(folder)
    trained_in_four_bit = recipe.adapter.method == "qlora"
    as_trained = four_bit is None
    return ChatTarget(
        model_id=recipe.model.id,
        revision=recipe.model.revision,
        adapter=folder,
        four_bit=trained_in_four_bit if as_trained else bool(four_bit),
        eight_bit=as_trained and recipe.adapter.load_in_8bit,
        label=f"{run.name}, {checkpoint}" if checkpoint else run.name,
        run=run.id,
    )


@contextmanager
def opened(workspace: Workspace, target: ChatTarget, doing: str = DOING) -> Iterator[ChatClient]:
    """Context manager: load target in a chat worker, wait until it is ready, and yield the chat; its device is freed
    afterwards. doing: the key of the message that names this work to others who want the device. Raises ChatError if
    the model cannot be loaded."""
    client = ChatClient(workspace, doing=doing)
    try:
        client.load(target)
        client.wait_ready(LOAD_TIMEOUT_S)
        yield client
    finally:
        client.unload()


def answer(
    client: ChatClient, prompt: str, both: bool, max_new_tokens: int, enable_thinking: bool | None = None
) -> dict[str, str | None]:
    """Return the columns' greedy answers to one question: {"tuned": ..., "base": ... or None}. both: the base answers
    too.

    enable_thinking: None as trained. Raises ChatError if the template has no such option.
    """
    if enable_thinking is not None and client.state().thinks is None:
        raise ChatError("chat.no_switch")
    turns = [{"role": "user", "content": prompt}]
    sampling = Sampling(max_new_tokens=max_new_tokens, enable_thinking=enable_thinking)
    texts: dict[str, str] = {"tuned": ""} | ({"base": ""} if both else {})
    with client.ask(turns if both else None, turns, sampling) as stream:
        for item in stream:
            if isinstance(item, Piece):
                texts[item.column] += item.text
    return {"tuned": texts["tuned"], "base": texts.get("base")}
