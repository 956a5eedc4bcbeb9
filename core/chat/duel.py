"""Base and fine-tuned answers side by side from one copy of the weights. Chat worker only (torch, peft).

Both columns are rows of one batch: PEFT adds the adapter to the tuned row and leaves the base row as it is. On a
memory-bound GPU the second row is nearly free; on the CPU one batch takes about 0.7 of the time of two answers one
after the other. Several questions are more rows. Adapters that PEFT cannot mix (DoRA) are answered in turn. Nothing is
trained and no weight changes.

PEFT's own context leaves its hooks on the model when an exception passes through it, which makes every later answer
silently wrong; and it selects the tuned rows by a list, which is copied to the GPU for every layer: see
`_adapter_rows`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Protocol

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import VARIANT_KWARG_KEYS
from transformers import PretrainedConfig, PreTrainedModel

from core.chat.answer import COLUMNS, MAX_ROWS, ApiSampling, Column, Done, FinishReason, Piece, Sampling
from core.chat.answer_marks import marks_of
from core.chat.text_stream import REPLACEMENT, Repetition, TextStream
from core.data.conversation import Turn
from core.data.dialect import OPEN
from core.data.template import ChatTemplate
from core.data.tokenizer import Tokenizer
from core.engine.adapter import ADAPTER
from core.engine.decoding.decoder import DecodedRows, Decoder
from core.engine.variants.prepacked import prepacked
from core.errors import ChatError, GarageError, TemplateError
from core.files import JsonObject

BASE = "__base__"  # peft's name for "no adapter" in a mixed batch
MAX_CONTEXT = 8192  # longer conversations need more cache memory than was estimated

FREE_SHARE = 0.8  # of a GPU's free memory for conversations; the rest is for logits and a growing desktop
MIN_CONTEXT = 512  # tokens; less would be useless, and a full GPU raises its own error


Questions = Sequence[Mapping[Column, Sequence[Turn] | None]]


class StopSignal(Protocol):
    """Returns whether to end the whole answer, or this column of it to this question."""

    def __call__(self, column: Column | None = None, question: int | None = None) -> bool: ...


def never(column: Column | None = None, question: int | None = None) -> bool:
    """A StopSignal that never stops."""
    return False


class Duel:
    """One loaded base, with or without one adapter, which answers in two columns: "base", without the adapter, and
    "tuned", with it. One answer at a time.

    tuned_template: the template that the adapter was trained with, if it is not the base's own.
    """

    def __init__(
        self, model: PreTrainedModel | PeftModel, tokenizer: Tokenizer, tuned_template: ChatTemplate | None = None
    ):
        """Prepare templates, stop ids and marks of both columns, the context limit (by the model and the free memory),
        and test whether both columns can share a batch."""
        self.tokenizer = tokenizer
        self._tuned = model if isinstance(model, PeftModel) else None
        self._model: torch.nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
        self._templates: dict[Column, ChatTemplate] = {
            "base": tokenizer.template,
            "tuned": tuned_template or tokenizer.template,
        }
        self._stop_ids = {column: tokenizer.stop_ids | self._end_of_turn(column) for column in COLUMNS}
        self._marks = {column: marks_of(self._templates[column]) for column in COLUMNS}
        longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        free_bytes = free_on_card(self._model.device)
        fitting = (
            MAX_CONTEXT
            if free_bytes is None
            else tokens_that_fit(self._model.config.get_text_config(), free_bytes, self._model.dtype.itemsize)
        )
        self.context_limit: int = min(longest or MAX_CONTEXT, MAX_CONTEXT, fitting)
        self._too_long = "chat.too_long_for_card" if fitting == self.context_limit < MAX_CONTEXT else "chat.too_long"
        self.decoder = Decoder(self._model, tokenizer.pad_token_id)
        self._one_at_a_time = threading.Lock()
        self.mixed: bool = self._tuned is not None and self._can_mix()

    def _end_of_turn(self, column: Column) -> frozenset[int]:
        """Return the token that ends a turn in column's template, as a set; an empty one if that takes several
        tokens."""
        ids = self.tokenizer.encode(self._templates[column].stop)
        return frozenset(ids) if len(ids) == 1 else frozenset()

    @property
    def thinks(self) -> bool | None:
        """The default of enable_thinking: as the adapter was trained, or as the bare base does; None if the template
        has no such option."""
        dialect = self._templates["tuned"].dialect
        return dialect.thinks if dialect.switch else None

    def prompt(self, column: Column, turns: Sequence[Turn], sampling: Sampling) -> list[int]:
        """Return the token ids (T,) of a conversation in column's template, up to the answer; for an ApiSampling
        without template, those of the last turn's text alone. With enable_thinking None in sampling both columns think
        as the tuned model was trained.

        Raises ChatError if turns do not end with a question or a tool's result, or if prompt and answer (for
        ApiSampling one token of it) do not fit into the context, TemplateError for tools that the template has no place
        for.
        """
        if not turns or turns[-1]["role"] not in ("user", "tool"):
            raise ChatError("chat.no_question")
        template, tools, max_new_tokens = self._templates[column], None, sampling.max_new_tokens
        # Valid UTF-8: half a surrogate pair, which a browser can send, becomes a question mark.
        readable = [
            {
                name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
                for name, value in turn.items()
            }
            for turn in turns
        ]
        if isinstance(sampling, ApiSampling):
            tools, max_new_tokens = sampling.tools, 1
            if tools and not template.dialect.tools:
                raise TemplateError("template.no_tools")
        if isinstance(sampling, ApiSampling) and sampling.without_template:
            ids: list[int] = self.tokenizer.encoding(readable[-1]["content"], with_special=True).ids
        else:
            thinks = self.thinks if sampling.enable_thinking is None else sampling.enable_thinking
            ids = self.tokenizer.encode(
                template.render(readable, add_generation_prompt=True, tools=tools, thinks=thinks)
            )
        if len(ids) + max_new_tokens > self.context_limit:
            raise ChatError(
                self._too_long, tokens=len(ids), max_new_tokens=max_new_tokens, context_limit=self.context_limit
            )
        return ids

    def answer_all(
        self,
        questions: Questions,
        sampling: Sampling | Sequence[Sampling],
        stopped: StopSignal = never,
        strength: float = 1.0,
        arriving: Callable[[], Sequence[tuple[Questions, Sequence[Sampling]]]] = tuple,
    ) -> Generator[Piece | Done]:
        """Yield pieces of each column of each question as they are generated, in batches that fit, then its Done.
        sampling: of all questions, where a question that is repeated draws with the next seed each time, or one for
        each. strength: factor of the adapter's output.

        stopped is called before every layer, so that it also ends a long prefill, and for each column of each question
        after every token. arriving, called before every token, returns further questions with their sampling, which are
        numbered on and join the batch once they fit. Of those in which one cannot be answered none is, nor of later
        ones. Raises ChatError (no question, no space in the context, no adapter, an adapter without a
        strength, another answer running, logits that are not finite), TemplateError.
        """
        if strength != 1 and self._tuned is not None and self._tuned.peft_config[ADAPTER].use_dora:
            raise ChatError("chat.no_strength")  # its trained magnitudes would not be scaled
        if not self._one_at_a_time.acquire(blocking=False):
            raise ChatError("chat.already_answering")
        try:
            rows = self._new_replies(questions, sampling)
            newcomers = _Newcomers(len(questions), self._new_replies, arriving)
            with at_strength(self._model, strength), prepacked(self._model):
                while rows:
                    by_column = [[row for row in rows if row.column == column] for column in COLUMNS]
                    for batch in (
                        batch for rows in ([rows] if self.mixed else by_column) for batch in self._batches(rows)
                    ):
                        yield from self._decode(batch, stopped, newcomers)
                    rows, newcomers.rows = newcomers.look(), []
        finally:
            self._one_at_a_time.release()

    def _new_replies(
        self, questions: Questions, sampling: Sampling | Sequence[Sampling], first: int = 0
    ) -> list[_Reply]:
        """Return a reply for each column of each question, as `answer_all` has them. first: number of the first. Raises
        ChatError without a question, or without an adapter for "tuned"."""
        rows = list[_Reply]()
        for number, question in enumerate(questions):
            for column in COLUMNS:
                if turns := question.get(column):
                    if column == "tuned" and self._tuned is None:
                        raise ChatError("chat.no_adapter")
                    how, earlier = (sampling, rows) if isinstance(sampling, Sampling) else (sampling[number], ())
                    rows.append(self._new_reply(first + number, column, turns, how, earlier))
        if not rows:
            raise ChatError("chat.no_question")
        return rows

    def _fit(self, rows: Sequence[_Reply], width: int = 0) -> bool:
        """Return whether rows can be one batch: at most MAX_ROWS, and so few that their number times the longest prompt
        plus the longest answer allowed stays within the tokens of two full contexts. width: tokens that the rows of a
        running batch have already; a prompt counts as at least that long."""
        longest = max(width, *(len(row.prompt) for row in rows)) + max(row.max_new_tokens for row in rows)
        return len(rows) <= MAX_ROWS and len(rows) * longest <= len(COLUMNS) * self.context_limit

    def _batches(self, rows: list[_Reply]) -> Iterator[list[_Reply]]:
        """Yield batches of at most MAX_ROWS successive rows that fit into the memory of two full contexts; each row is
        padded to its batch's longest."""
        batch = list[_Reply]()
        for row in rows:
            if batch and not self._fit([*batch, row]):
                yield batch
                batch = []
            batch = [*batch, row]
        if batch:
            yield batch

    def _opening(self, column: Column, prompt: list[int]) -> str:
        """Return the common opening mark of a thought if the prompt ends with that of column's template, so that the
        answer begins inside a thought; else ""."""
        end = self.tokenizer.decode(prompt[-16:], skip_special_tokens=False).rstrip()
        openings = (OPEN.rstrip(), *(mark for mark, replacement in self._marks[column].items() if replacement == OPEN))
        return OPEN if end.endswith(openings) else ""

    def _new_reply(
        self, number: int, column: Column, turns: Sequence[Turn], sampling: Sampling, earlier: Sequence[_Reply]
    ) -> _Reply:
        """Return the reply of one column before its first token, with the encoded prompt and a seeded generator.
        number: of the question, among those answered together. earlier: replies that share the sampling; the seed is
        one larger for each of them with the same column and prompt, so that repeated questions differ. Raises ChatError
        if turns do not end with a question, or are too long."""
        prompt = self.prompt(column, turns, sampling)
        repeats = sum(reply.column == column and reply.prompt == prompt for reply in earlier)
        generator = torch.Generator(self._model.device).manual_seed(sampling.seed + repeats)
        stops = sampling.stop if isinstance(sampling, ApiSampling) else ()
        stream = TextStream(self.tokenizer, self._marks[column], stops)
        room = self.context_limit - len(prompt)
        return _Reply(number, column, prompt, self._stop_ids[column], sampling, room, generator, stream)

    def _decode(self, rows: list[_Reply], stopped: StopSignal, newcomers: _Newcomers) -> Iterator[Piece | Done]:
        """Generate the rows' answers as one batch; yield their text as it comes, and their Done when they end. Ended
        rows leave the batch, and newcomers join it."""
        rows, decoding = yield from self._begin(rows, stopped)
        while rows:
            new = list[_Reply]()
            with self._as_rows([row.column for row in rows], stopped):
                while not any(row.finish_reason for row in rows) and not (
                    new := self._joining(rows, decoding, newcomers)
                ):
                    yield from self._step(decoding, rows, stopped)
            if new:
                new, read = yield from self._begin(new, stopped)
                with self._as_rows([row.column for row in new], stopped):
                    is_read = yield from self._step(read, new, stopped)
                if is_read:
                    decoding.join(read)
                    order = sorted(range(len(rows) + len(new)), key=lambda i: COLUMNS.index([*rows, *new][i].column))
                    rows = [[*rows, *new][i] for i in order]
                    decoding.keep(torch.tensor(order))
                else:
                    for row in new:
                        yield from row.finish()
            alive = [i for i, row in enumerate(rows) if not row.finish_reason]
            for row in rows:
                if row.finish_reason:
                    yield from row.finish()
            rows = [rows[i] for i in alive]
            if rows:  # continue with a smaller batch
                decoding.keep(alive)

    def _begin(
        self, rows: list[_Reply], stopped: StopSignal
    ) -> Generator[Piece | Done, None, tuple[list[_Reply], DecodedRows]]:
        """Return rows that are decoded together from their beginning, those without the adapter first, and their
        decoding; what their prompts begin of their answers, such as the opening of a thought, is yielded as pieces. A
        common beginning of the prompts is read once if all are of one column."""
        rows = sorted(rows, key=lambda row: COLUMNS.index(row.column))
        decoding = DecodedRows(self.decoder, [row.prompt for row in rows])
        if rows[0].column == rows[-1].column:  # with and without the adapter a prompt has two caches
            with self._as_rows([rows[0].column], stopped), suppress(_StopNow):
                decoding.read_shared()
        for row in rows:
            row.since = time.perf_counter()
            if opening := self._opening(row.column, row.prompt):
                yield row.piece(opening)
        return rows, decoding

    def _joining(self, rows: Sequence[_Reply], decoding: DecodedRows, newcomers: _Newcomers) -> list[_Reply]:
        """Remove the newcomers that can join the running batch from their queue, and return them; [] if none can.

        They are taken from the front, up to the first that does not fit into the limits of rows and memory or, where
        both columns cannot share a batch, is of the other column. rows: the batch's, at least one. None can join if the
        cache of decoding cannot take other rows.
        """
        new, waiting = list[_Reply](), newcomers.look()
        while (
            waiting
            and decoding.can_join()
            and (self.mixed or waiting[0].column == rows[0].column)
            and self._fit([*rows, *new, waiting[0]], decoding.width)
        ):
            new.append(waiting.pop(0))
        return new

    def _step(self, decoding: DecodedRows, rows: Sequence[_Reply], stopped: StopSignal) -> Generator[Piece, None, bool]:
        """Generate one token of each row, and yield its text; sets the finish_reason of rows that end. Return False if
        all were stopped before it."""
        try:
            logits = decoding.next_logits()
        except _StopNow:
            for row in rows:
                row.finish_reason = "stopped"
            return False
        chosen = [choose(row_logits, row.sampling, row.generator) for row_logits, row in zip(logits, rows, strict=True)]
        for row, token, row_logits in zip(rows, chosen, logits, strict=True):
            if row.top_logprobs is not None and token not in row.stop_ids:
                row.logprobs.append(token_logprobs(self.tokenizer, row_logits, token, row.top_logprobs))
            if text := row.take(token):
                yield row.piece(text)
            if not row.finish_reason and stopped(row.column, row.number):
                row.finish_reason = "stopped"
        decoding.append(torch.tensor(chosen))
        return True

    @contextmanager
    def _as_rows(self, columns: Sequence[Column], stopped: StopSignal) -> Iterator[None]:
        """Context manager: compute row i of a batch with the adapter if columns[i] is "tuned", else without; a layer
        raises _StopNow once stopped."""
        with ExitStack() as stack:
            if self._tuned is not None and "tuned" not in columns:
                stack.enter_context(self._tuned.disable_adapter())
            elif self.mixed:
                stack.enter_context(_adapter_rows(self._tuned, columns))
            stack.enter_context(_interruptible(self._model, stopped))
            yield

    def _can_mix(self) -> bool:
        """Return whether PEFT computes this adapter and the bare base in one batch; it refuses DoRA and some layer
        kinds.

        The test has three tokens a row: experts and routers see all tokens of a batch as rows, so with one token each
        the wrong axis would also have two entries, and the error would go unnoticed.
        """
        ids, mask = self.decoder.left_padded([[self.decoder.pad_token_id] * 3] * 2)
        try:
            with _adapter_rows(self._tuned, COLUMNS):
                self.decoder.forward(ids, mask, None)
        except (ValueError, TypeError):
            return False
        return True


@contextmanager
def _adapter_rows(tuned: PeftModel, columns: Sequence[Column]) -> Iterator[None]:
    """Context manager: install PEFT's hooks for a mixed batch whose tuned rows come last, with a faster product for
    plain layers, and always remove them afterwards.

    PEFT 0.21 removes them after its `yield` without a try/finally, so an exception in its context skips the removal.
    Therefore its context is always left without an exception, which is raised outside it.
    """
    names = [ADAPTER if column == "tuned" else BASE for column in columns]
    plain = [
        layer
        for layer in tuned.modules()
        if isinstance(layer, LoraLayer) and ADAPTER in layer.lora_A and not layer.lora_variant
    ]
    hooks = tuned._enable_peft_forward_hooks(adapter_names=names)
    hooks.__enter__()
    try:
        for layer in plain:
            layer._mixed_batch_forward = partial(_mixed, layer, names.count(BASE))
        yield
    finally:
        for layer in plain:
            vars(layer).pop("_mixed_batch_forward", None)
        hooks.__exit__(None, None, None)


def _mixed(
    layer: LoraLayer, first: int, x: torch.Tensor, *args: object, adapter_names: Sequence[str], **kwargs: object
) -> torch.Tensor:
    """Return PEFT's product of a plain layer, with the adapter on the rows from `first` on: the same numbers, without
    waiting for the GPU."""
    result = layer.base_layer(
        x, *args, **{name: value for name, value in kwargs.items() if name not in VARIANT_KWARG_KEYS}
    )
    a, b = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    result[first:].add_((b(a(x[first:].to(a.weight.dtype))) * layer.scaling[ADAPTER]).to(result.dtype))
    return result


@contextmanager
def at_strength(model: torch.nn.Module, strength: float) -> Iterator[None]:
    """Context manager: multiply what the adapter adds to the output of each layer by strength during the block, and
    restore its scale afterwards. At 1 nothing is touched; at 0 zeros are added to the base's output."""
    layers = (
        [layer for layer in model.modules() if isinstance(layer, LoraLayer) and ADAPTER in layer.scaling]
        if strength != 1
        else []
    )
    trained_scales = [layer.scaling[ADAPTER] for layer in layers]
    try:
        for layer, scale in zip(layers, trained_scales, strict=True):
            layer.scaling[ADAPTER] = strength * scale
        yield
    finally:
        for layer, scale in zip(layers, trained_scales, strict=True):
            layer.scaling[ADAPTER] = scale


class _StopNow(Exception):
    """Leaves a forward pass between two layers."""


@contextmanager
def _interruptible(model: torch.nn.Module, stopped: StopSignal) -> Iterator[None]:
    """Context manager: raise _StopNow before any block of model once stopped() is true: one token of a large model on
    the CPU takes longer than a user waits."""

    def raise_if_stopped(module: torch.nn.Module, arguments: object) -> None:
        """Raise _StopNow if the answer is to end; called before each block of the model computes."""
        if stopped():
            raise _StopNow

    blocks = [block for layers in model.modules() if isinstance(layers, torch.nn.ModuleList) for block in layers]
    with ExitStack() as hooks:
        for block in blocks or [model]:
            hooks.enter_context(block.register_forward_pre_hook(raise_if_stopped))
        yield


def free_on_card(device: torch.device) -> int | None:
    """Return the bytes that this process may still allocate on the GPU (core.engine.device.stay_within_card); None on a
    CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    used = torch.cuda.memory_allocated(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    return int(max(0, min(free + torch.cuda.memory_reserved(device) - used, allowed - used)))


def tokens_that_fit(config: PretrainedConfig, free: int, width: int) -> int:
    """Return the longest context, a multiple of 64 of at least MIN_CONTEXT, of which both columns fit into free bytes:
    keys and values of all layers, and one layer's activations for a whole prompt.

    width: bytes of a number. Families that cache less (windows, latent attention) have memory to spare; if the config
    lacks these fields it is MAX_CONTEXT.
    """

    def config_limit(name: str, default: int) -> int:
        """Return a number of the config, of one for each layer the largest; default if it is missing or 0."""
        value = getattr(config, name, None) or default
        return max(value) if isinstance(value, list | tuple) else int(value)  # some families: one for each layer

    layers, heads, hidden = (
        config_limit(name, 0) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    if not (layers and heads and hidden):
        return MAX_CONTEXT
    cached = 2 * layers * config_limit("num_key_value_heads", heads) * config_limit("head_dim", hidden // heads)
    activations = 4 * hidden + 3 * config_limit("intermediate_size", 4 * hidden)
    token_bytes = len(COLUMNS) * width * (cached + activations)
    return max(MIN_CONTEXT, int(FREE_SHARE * free / token_bytes) // 64 * 64)


def choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Return the next token id: the likeliest if greedy, else drawn by generator after temperature, then top-p, in
    transformers' order. logits: (V,) float32. Raises ChatError if they are not finite."""
    best = logits.argmax()
    if not torch.isfinite(logits[best]):
        raise ChatError("chat.not_finite")
    if sampling.greedy:
        return int(best)
    probabilities, order = torch.softmax(logits / sampling.temperature, dim=-1).sort(descending=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities[before >= sampling.top_p] = 0  # the first token that crosses top_p stays
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])


def token_logprobs(tokenizer: Tokenizer, logits: torch.Tensor, token: int, top: int) -> JsonObject:
    """Return OpenAI's object for one token: its text, the natural logarithm of its probability before temperature, and
    the same of the `top` likeliest. logits: (V,) float32. bytes is null for a part of a character."""
    logprobs = torch.log_softmax(logits, dim=-1)

    def token_json(id: int) -> JsonObject:
        """Return a token's text, logprob and UTF-8 bytes."""
        text = tokenizer.decode([id], skip_special_tokens=False)
        as_bytes = None if REPLACEMENT in text else list(text.encode())
        return {"token": text, "logprob": float(logprobs[id]), "bytes": as_bytes}

    return token_json(token) | {"top_logprobs": [token_json(int(id)) for id in logprobs.topk(top).indices]}


class _Reply:
    """One column's answer while it is generated. logprobs: of the tokens since the last piece, if sampling requests
    them."""

    def __init__(
        self,
        number: int,
        column: Column,
        prompt: list[int],
        stop_ids: frozenset[int],
        sampling: Sampling,
        room: int,
        generator: torch.Generator,
        stream: TextStream,
    ):
        """Begin an answer without tokens. room: tokens that the context has for it."""
        self.number, self.column, self.prompt, self.generator = number, column, prompt, generator
        self.sampling, self.max_new_tokens = sampling, min(room, sampling.max_new_tokens)
        self.top_logprobs = sampling.top_logprobs if isinstance(sampling, ApiSampling) else None
        self.logprobs = list[JsonObject]()
        self.finish_reason: FinishReason | None = None
        self.since = 0.0
        self.stop_ids = stop_ids
        self._text = stream
        self._tokens = 0
        self._repetition = Repetition()

    def take(self, token: int) -> str:
        """Count a token and return the text that becomes complete with it; "" for a stop token, and while a character,
        a mark or a stop text is incomplete. Set finish_reason at a stop token or stop text ("stop"), at the limit of
        tokens ("length") or if the answer only repeats itself ("loop")."""
        self._tokens += 1
        if token in self.stop_ids:
            self.finish_reason = "stop"
            return ""
        if self._tokens >= self.max_new_tokens:
            self.finish_reason = "length"
        elif self._repetition.is_loop(token):
            self.finish_reason = "loop"
        text = self._text.add(token)
        if self._text.ended:
            self.finish_reason = "stop"
        return text

    def piece(self, text: str) -> Piece:
        """Return a piece of the answer with the log probabilities since the last one, which are then forgotten."""
        logprobs, self.logprobs = tuple(self.logprobs), []
        return Piece(self.column, text, self.number, logprobs)

    def finish(self) -> Iterator[Piece | Done]:
        """Yield the rest of the text, if any, and the reply's Done."""
        if (rest := self._text.rest()) or self.logprobs:
            yield self.piece(rest)
        assert self.finish_reason, "an answer is over for a reason"
        seconds = time.perf_counter() - self.since
        yield Done(self.column, self._tokens, seconds, self.finish_reason, self.number, len(self.prompt))


class _Newcomers:
    """The rows of questions that arrive while others are answered, in their order."""

    def __init__(
        self,
        first: int,
        replies: Callable[[Questions, Sequence[Sampling], int], list[_Reply]],
        arriving: Callable[[], Sequence[tuple[Questions, Sequence[Sampling]]]],
    ):
        """Begin without rows. first: number of the first question; replies: returns the rows of questions."""
        self._next, self._replies, self._arriving, self._is_open = first, replies, arriving, True
        self.rows = list[_Reply]()

    def look(self) -> list[_Reply]:
        """Encode the questions that have arrived since the last call, and return the list of all rows that wait, from
        which the caller removes those that it takes.

        After a question that cannot be answered no further one is accepted; their numbers are used up all the same.
        """
        for questions, sampling in self._arriving():
            if self._is_open:
                try:
                    self.rows += self._replies(questions, sampling, self._next)
                except GarageError:
                    self._is_open = False
                self._next += len(questions)
        return self.rows
