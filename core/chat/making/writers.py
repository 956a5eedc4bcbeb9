"""The models that write rows: one of this PC, or one behind a server with OpenAI's chat completions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from core.chat.answer import Piece, Sampling
from core.chat.client import ChatClient, ChatTarget
from core.chat.contest import AT_ONCE, LEFT_OUT
from core.chat.endpoint import BadAnswer, Endpoint
from core.chat.questions import opened
from core.data.conversation import Turn
from core.errors import ChatError
from core.files import JsonObject
from core.workspace.folder import Workspace

LEASE = "making.lease"  # the message that names this work to others who want the device
SENT_AT_ONCE = 4  # requests to a server
WAITS_S = (1.0, 4.0, 15.0)  # before a request is repeated that a server refused for the moment
TEMPERATURE = 0.7  # of a repeated attempt; the first is greedy
Conversations = Sequence[Sequence[Turn]]
MAX_ANSWER = 160  # tokens of an answer to a question


class RowWriter(Protocol):
    """A model that answers conversations. name: with its server, if it has one."""

    @property
    def name(self) -> str: ...

    def answers(
        self,
        conversations: Sequence[Sequence[Turn]],
        max_tokens: int,
        attempt: int = 0,
        schema: JsonObject | None = None,
    ) -> list[str]:
        """Return an answer for each conversation, "" where the model has none. attempt: 0 is greedy, later ones are
        drawn. schema: of the JSON that is wanted. Raises ChatError if the model cannot be used."""


@dataclass
class ServerWriter:
    """A model behind a server. stopped: asked while it waits. use_schema: until the server refuses a schema."""

    endpoint: Endpoint
    stopped: Callable[[], bool] = lambda: False
    use_schema: bool = True

    @property
    def name(self) -> str:
        """Return the model's name with the host of its server, such as "qwen3 @ 127.0.0.1:8080"."""
        return self.endpoint.name

    def answers(
        self,
        conversations: Sequence[Sequence[Turn]],
        max_tokens: int,
        attempt: int = 0,
        schema: JsonObject | None = None,
    ) -> list[str]:
        """Return an answer to each conversation ("" for a reply in another format), SENT_AT_ONCE requests at a time.
        attempt: 0 is greedy. Raises ChatError."""
        with ThreadPoolExecutor(SENT_AT_ONCE) as pool:
            return list(pool.map(lambda turns: self._answer(turns, max_tokens, attempt, schema), conversations))

    def _answer(self, turns: Sequence[Turn], max_tokens: int, attempt: int, schema: JsonObject | None) -> str:
        """Return one answer; "" for a reply in another format than OpenAI's. Repeats a request that is refused for the
        moment (429, 5xx), and without the schema once the server refuses it. Raises ChatError."""
        waits = iter(WAITS_S)
        while True:
            options: JsonObject = {
                "max_tokens": max_tokens,
                "temperature": TEMPERATURE if attempt else 0.0,
                "seed": attempt,
            }
            if with_schema := schema is not None and self.use_schema:
                named = {"name": "rows", "schema": schema}
                options["response_format"] = {"type": "json_schema", "json_schema": named}
            try:
                return self.endpoint.answer(self.endpoint.body(turns, **options), self.stopped)
            except BadAnswer:
                return ""
            except ChatError as error:
                status = error.message.params.get("status", 0)
                if with_schema and status in (400, 404, 422, 501):
                    self.use_schema = False
                elif (status == 429 or status >= 500) and (wait_s := next(waits, None)) is not None:
                    self._wait(wait_s)
                else:
                    raise

    def _wait(self, seconds: float) -> None:
        """Wait for these seconds. Raises ChatError as soon as the writing is stopped."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.stopped():
                raise ChatError("compare.stopped")
            time.sleep(0.1)


@dataclass
class LocalWriter:
    """A model of this PC, loaded in a chat process."""

    chat: ChatClient
    target: ChatTarget
    name: str = ""

    def answers(
        self,
        conversations: Sequence[Sequence[Turn]],
        max_tokens: int,
        attempt: int = 0,
        schema: JsonObject | None = None,
    ) -> list[str]:
        """Return an answer to each conversation ("" if it is too long), AT_ONCE at a time, without thinking. attempt: 0
        is greedy; schema is not used. Raises ChatError."""
        thinks = self.chat.state().thinks
        sampling = Sampling(
            do_sample=attempt > 0, temperature=TEMPERATURE, seed=attempt, max_new_tokens=max_tokens,
            enable_thinking=None if thinks is None else False,
        )  # fmt: skip
        return self.sampled(conversations, sampling)

    def sampled(self, conversations: Conversations, sampling: Sampling) -> list[str]:
        """Return an answer for each conversation, AT_ONCE at a time; "" for one that is too long. Raises ChatError."""
        texts = list[str]()
        for begin in range(0, len(conversations), AT_ONCE):
            texts += self._together(conversations[begin : begin + AT_ONCE], sampling)
        return texts

    def _together(self, conversations: Conversations, sampling: Sampling) -> list[str]:
        """Return the answers of one batch; answers one by one if a conversation among them is too long, whose answer is
        "". Raises ChatError for other errors."""
        pairs = [(turns, None) if self.target.adapter is None else (None, turns) for turns in conversations]
        texts = [""] * len(pairs)
        try:
            with self.chat.ask_together(pairs, sampling) as stream:
                for item in stream:
                    if isinstance(item, Piece):
                        texts[item.question] += item.text
                    elif item.finish_reason == "stopped":
                        raise ChatError("compare.stopped")
        except ChatError as error:
            if error.message.key not in LEFT_OUT:
                raise
            return [""] if len(pairs) == 1 else [self._together([one], sampling)[0] for one in conversations]
        return texts


@contextmanager
def local_writer(workspace: Workspace, target: ChatTarget, name: str) -> Iterator[LocalWriter]:
    """Load a model of this PC and yield it as a writer; its process ends afterwards. Raises ChatError."""
    with opened(workspace, target, doing=LEASE) as chat:
        yield LocalWriter(chat, target, name)
