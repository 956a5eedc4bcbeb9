"""The parameters of a generated answer, and its parts while it is generated. No torch: page, command and worker share
it."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.errors import ChatError
from core.files import JsonObject

Column = Literal["base", "tuned"]
FinishReason = Literal["stop", "length", "stopped", "loop"]
COLUMNS: tuple[Column, ...] = ("base", "tuned")
MAX_ROWS = 16  # of one batch: eight questions to both columns
MAX_NEW_TOKENS = 4096
STRENGTHS = (-0.5, 2.0)  # of an adapter: 0 is the base, 1 as trained; beyond these limits few write sentences


class Sampling(BaseModel):
    """Settings for choosing the next token, with the names of transformers' GenerationConfig."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    do_sample: bool = Field(
        False,
        description="Off: always the likeliest word, the same answer every time. On: words are drawn by their odds.",
    )
    temperature: float = Field(
        0.7, ge=0, le=2, description="How daring the draw is: 0 takes the likeliest word, 1 the model's own odds."
    )
    top_p: float = Field(
        0.9, gt=0, le=1, description="Draw only from the likeliest words that together have this share of the odds."
    )
    max_new_tokens: int = Field(
        256, ge=1, le=MAX_NEW_TOKENS, description="Longest answer, in tokens (about four letters each)."
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Start of the draw: the same seed gives the same answer again.")
    enable_thinking: bool | None = Field(
        None,
        description=(
            "Whether the model is asked to think first, where its template knows that; empty: as it was trained."
        ),
    )

    @property
    def greedy(self) -> bool:
        """True if the likeliest token is always taken: without do_sample, or at temperature 0."""
        return not self.do_sample or self.temperature == 0


class ApiSampling(Sampling):
    """Sampling with what only requests of other programs set (core/chat/serving). The answer is shorter than
    max_new_tokens where the context has no room for that many.

    stop: texts that end the answer and are not part of it. top_logprobs: how many of the likeliest tokens to report at
    each place, with the chosen one; None for no report. tools: OpenAI's definitions, for the template.
    without_template: the last turn's content is continued as it stands.
    """

    stop: tuple[str, ...] = ()
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[JsonObject] = []
    without_template: bool = False


@dataclass(frozen=True)
class Piece:
    """New text of one column; a column's pieces, joined, are its answer. question: its number among questions asked
    together. logprobs: OpenAI's object for each token since the last piece, if requested."""

    column: Column
    text: str
    question: int = 0
    logprobs: tuple[JsonObject, ...] = ()


@dataclass(frozen=True)
class Done:
    """The end of a column's answer. tokens: generated ones, with the stop token; seconds: since the start of prefill;
    prompt_tokens: of the question with all before it.

    finish_reason: "stop" the model ended it, "length" it has max_new_tokens, "stopped" the user ended it, "loop" it
    repeated the same tokens again and again (core/chat/text_stream.Repetition).
    """

    column: Column
    tokens: int
    seconds: float
    finish_reason: FinishReason
    question: int = 0
    prompt_tokens: int = 0


def item_of(event: JsonObject) -> Piece | Done:
    """Return the Piece or Done in an event of the chat worker; other keys of the event are ignored."""
    kind = Piece if event["event"] == "piece" else Done
    return kind(**{name: event[name] for name in kind.__dataclass_fields__ if name in event})


class Answer:
    """An answer in progress, in one or both columns ("base": the base model, "tuned": with the adapter), to one or
    several questions: iterate for Piece and Done. Closing it, or leaving `with`, stops the generation. done: the Done
    of each column that has ended."""

    def __init__(self, number: int, stop: Callable[[int, Column | None, int | None], None]):
        """Begin an answer without pieces. number: of this answer, which its client counts. stop: called by close and
        stop_question with that number, a column (None: both) and the number of a question (None: all of them)."""
        self.number = number
        self.done: dict[Column, Done] = {}
        self.stopping = False
        self._stop = stop
        self._arrived: queue.SimpleQueue[Piece | Done | ChatError | None] = queue.SimpleQueue()
        self._over = False

    def __iter__(self) -> Iterator[Piece | Done]:
        """Yield each Piece and Done as it arrives, until the answer is over. Raises ChatError if it failed."""
        try:
            while (item := self._next(None)) is not None:
                yield item
        finally:
            self.close()

    def batches(self, seconds: float = 0.05) -> Iterator[list[Piece | Done]]:
        """Yield the items in lists, each of what comes within `seconds` of its first: a page that redraws at every
        token spends its time on redrawing. Raises ChatError if the answer failed."""
        try:
            while (item := self._next(None)) is not None:
                gathered, deadline = [item], time.monotonic() + seconds
                with contextlib.suppress(queue.Empty):
                    while (item := self._next(max(0.0, deadline - time.monotonic()))) is not None:
                        gathered.append(item)
                yield gathered
        finally:
            self.close()

    def _next(self, timeout_s: float | None) -> Piece | Done | None:
        """Return the next item, None at the end; a Done is also stored in `done`. Raises queue.Empty after timeout_s,
        ChatError if the answer failed."""
        if self._over:
            return None
        item = self._arrived.get(timeout=timeout_s)
        if item is None or isinstance(item, ChatError):
            self._over = True
            if item is not None:
                raise item
        elif isinstance(item, Done):
            self.done[item.column] = item
        return item

    def close(self) -> None:
        """End the iteration, and stop all columns of the answer if they are still generated. Also called at the end of
        `with` and of an iteration."""
        self._over = True
        self._stop(self.number, None, None)

    def stop_question(self, question: int) -> None:
        """End the answers to one of the questions; the others go on."""
        self._stop(self.number, None, question)

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def put(self, item: Piece | Done | ChatError | None) -> None:
        """Add an item for the reader: None for the end, ChatError for a failure."""
        self._arrived.put(item)
