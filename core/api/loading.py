"""`chat` as a function: a model in a process of its own that answers questions."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from core.chat.client import ChatClient, ChatTarget
from core.chat.questions import answer, opened, target_of
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace

MAX_NEW_TOKENS = 256


class LoadedModel:
    """A base model with a run's adapter, on the device until close(); also a context manager."""

    def __init__(self, space: Workspace, target: ChatTarget):
        """Load the target and wait until it can answer. Raises ChatError."""
        self.label = target.label
        self._open = ExitStack()
        self.client: ChatClient = self._open.enter_context(opened(space, target))

    def chat(self, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS, thinking: bool | None = None) -> str:
        """Return the greedy answer of the model with its adapter to one question, without a conversation before; it may
        be "".

        max_new_tokens: at most so many tokens are generated. thinking: None as it was trained. Raises ChatError, also
        if thinking is given and the template has no such option.
        """
        return self.answers(question, max_new_tokens=max_new_tokens, thinking=thinking)["tuned"] or ""

    def answers(
        self,
        question: str,
        *,
        base: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
        thinking: bool | None = None,
    ) -> dict[str, str | None]:
        """Return {"tuned": the answer, "base": that of the base model, None unless asked for}. Raises ChatError."""
        return answer(self.client, question, base, max_new_tokens, thinking)

    def close(self) -> None:
        """End the process, which frees the device."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load(run: str | RunFolder, *, checkpoint: str | None = None, workspace: str | Path | None = None) -> LoadedModel:
    """Load the model of a run (id or name), or of a checkpoint of it. Raises GarageError."""
    space = Workspace.open(workspace)
    return LoadedModel(space, target_of(Runs(space).find(run) if isinstance(run, str) else run, checkpoint))
