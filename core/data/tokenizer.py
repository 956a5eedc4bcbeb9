"""Text to token ids, with the model's own tokenizer.json and its chat template; no torch, no transformers.

core/data/labels decides which of the ids are trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from core import files
from core.data.conversation import Tools, Turn, split_thinking
from core.data.formats import Example
from core.data.labels import Encoded, FullExample, Learning, fit, learned
from core.data.template import PLAIN, ChatTemplate, Rendered
from core.errors import ModelError, TemplateError


class Tokenizer:
    """The tokenizer of one model folder.

    pad_token_id may equal eos_token_id: only the attention mask marks padding. template: class that renders the chat
    template.
    """

    def __init__(self, folder: Path, template: type[ChatTemplate] = ChatTemplate):
        """Read the tokenizer, its special tokens and its chat template. Raises ModelError if tokenizer.json is missing
        or damaged."""
        file, self._folder = folder / "tokenizer.json", folder.name
        if not file.exists():
            raise ModelError("model.no_fast_tokenizer", folder=folder.name)
        try:
            self._fast = FastTokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception for a damaged file
            raise ModelError("model.bad_tokenizer", folder=folder.name, reason=str(error)[:200]) from None
        self._file = file
        # tokenizer.json may say both; rows would be cut unseen.
        self._fast.no_truncation()
        self._fast.no_padding()
        config = files.read_object(folder / "tokenizer_config.json")
        generation = files.read_object(folder / "generation_config.json")
        named = {key: _token_text(config.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
        self.special = {key: value for key, value in named.items() if value}
        self.vocabulary = self._fast.get_vocab_size(with_added_tokens=True)
        added = self._fast.get_added_tokens_decoder().values()
        all_special = frozenset(t.content for t in added if t.special) | frozenset(self.special.values())
        self.eos_token_id = self._id(self.special.get("eos_token"))
        self.pad_token_id = next(
            (i for i in (self._id(self.special.get("pad_token")), self.eos_token_id) if i is not None), 0
        )
        self.template = template(template_source(folder, config), self.special, all_special)
        self.stop_ids = self._stop_ids(generation)
        limit = files.read_object(folder / "config.json").get("max_position_embeddings")
        self.position_limit = limit if isinstance(limit, int) and limit > 0 else None

    @property
    def fingerprint(self) -> str:
        """Return a hash (64 hexadecimal digits) of tokenizer.json, the chat template and the special tokens: tokenizers
        with the same hash give the same tokens for the same rows."""
        parts = (
            self._file.read_bytes(),
            self.template.fingerprint.encode(),
            repr(sorted(self.special.items())).encode(),
        )
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def limit(self, max_length: int) -> int:
        """Return max_length as training uses it: no more than the model's context length."""
        return min(max_length, self.position_limit or max_length)

    def _id(self, token: str | None) -> int | None:
        """Return the id of a token by its text; None for None, or if the vocabulary lacks it."""
        return None if token is None else self._fast.token_to_id(token)

    def _stop_ids(self, generation: Mapping[str, object]) -> frozenset[int]:
        """Return the ids that end an answer: of the tokenizer, the template and generation_config.json."""
        listed = generation.get("eos_token_id", [])
        ids = {self.eos_token_id, self._id(self.template.stop), *(listed if isinstance(listed, list) else [listed])}
        return frozenset(i for i in ids if isinstance(i, int))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text that already contains its special tokens (a rendered template): none are added."""
        return self.encoding(text).ids

    def encoding(self, text: str, with_special: bool = False) -> Any:
        """Return a text's encoding. Raises ModelError if the tokenizer's own patterns take too long. Its engine stops a
        match after ten million steps (0.6 s) with a panic, which is not an Exception."""
        try:
            return self._fast.encode(text, add_special_tokens=with_special)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # Rust's panic class cannot be imported; all others are raised
                raise
            raise ModelError("model.tokenizer_runs_away", folder=self._folder, reason=str(error)[:200]) from None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of token ids. skip_special_tokens: leave out tokens such as the end of a turn."""
        return self._fast.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def with_thinking(self, thinks: bool) -> Tokenizer:
        """Return a copy of this tokenizer whose prompts ask for thinking by default, or do not, if its chat template
        has a switch for that; otherwise the copy acts the same."""
        other = copy(self)
        other.template = self.template.with_thinking(thinks)
        return other

    def prompt(self, turns: Sequence[Turn], tools: Tools | None = None) -> list[int]:
        """Return (T,) ids of the conversation up to where the assistant begins, exactly as in training."""
        return self.encode(self.template.render(turns, True, tools))

    def encode_example(self, example: Example, max_length: int, train_on: str = "assistant") -> Encoded:
        """Return one row as in training, truncated to max_length tokens (a text to its first piece). Raises
        TemplateError."""
        return fit(self.encode_full(example, train_on), max_length)[0]

    def encode_full(self, example: Example, train_on: str = "assistant") -> FullExample:
        """Return a row as one training example that is never shortened: its plain text, or the conversation up to its
        last trained answer.

        Earlier answers are learned too if the template renders them alike in this conversation; the others are not.
        Raises TemplateError.
        """
        return self.encode_row(example, Learning(train_on, mask_history=True))[0]

    def encode_row(self, example: Example, learning: Learning) -> list[FullExample]:
        """Return the training examples of a row before truncation, usually one (ChatTemplate.conversations), two for a
        pair. Raises TemplateError."""
        tools = json.loads(example.tools) if example.tools else None
        if learning.pairs:
            pair = [self.template.spans(turns, tools, learning.enable_thinking) for turns in sides(example)]
            return [self._encode(rendered, False) for rendered in pair]
        if learning.rated:
            return [self._encode_rated(example, learning)]
        if example.text is not None:
            return [self.encode_text(example.text)]
        everything = learning.train_on == "everything"
        conversations = self.template.conversations(
            conversation(example), tools, learning.enable_thinking, learning.mask_history or everything
        )
        return [self._encode(rendered, everything) for rendered in conversations]

    def _encode_rated(self, example: Example, learning: Learning) -> FullExample:
        """Encode the last answer to be learned after all turns before it, of which none is learned. Raises
        TemplateError for a plain text."""
        if example.text is not None:
            raise TemplateError("template.no_rated")
        turns = conversation(example)
        learned = [number for number, turn in enumerate(turns) if turn["role"] == "assistant" and turn.get("weight", 1)]
        *before, answer = turns[: learned[-1] + 1 if learned else None]
        context = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in before]
        tools = json.loads(example.tools) if example.tools else None
        return self._encode(self.template.spans([*context, answer], tools, learning.enable_thinking), False)

    def encode_text(self, text: str) -> FullExample:
        """Encode text between the special tokens that the tokenizer adds, with an end token if it adds none; all tokens
        are learned. Offsets are those in the text with its special tokens."""
        encoding = self.encoding(text, with_special=True)
        ids, added = encoding.ids, encoding.special_tokens_mask
        if self.eos_token_id is not None and (not ids or ids[-1] != self.eos_token_id):
            ids.append(self.eos_token_id)  # otherwise a model trained on texts never learns to stop
            added.append(1)
        offsets = encoding.offsets + [(0, 0)] * (len(ids) - len(encoding))
        # The text shown has special tokens in it, as a person would see them: offsets behind them move.
        begin = next((i for i, special in enumerate(added) if not special), 0)
        shown = ""
        for i, special in enumerate(added):
            if i == begin:
                before, shown = len(shown), shown + text
            if special:
                at = len(shown)
                shown += self._fast.id_to_token(ids[i]) or ""
                offsets[i] = (at, len(shown))
            else:
                offsets[i] = (before + offsets[i][0], before + offsets[i][1])
        return FullExample(ids, [True] * len(ids), shown, offsets)

    def _encode(self, rendered: Rendered, everything: bool) -> FullExample:
        """Return the rendered text as tokens, of which those in its spans, or everything, are learned."""
        encoding = self.encoding(rendered.text)
        labels = learned(encoding.offsets, [(0, len(rendered.text))] if everything else rendered.spans)
        return FullExample(encoding.ids, labels, rendered.text, encoding.offsets, rendered)


def sides(example: Example) -> list[list[Turn]]:
    """Return the conversations with the better and with the worse answer; their common answers get weight 0.

    Raises TemplateError if there is no worse answer, or both are the same.
    """
    better, worse = example.messages, example.rejected
    if not worse:
        raise TemplateError("template.no_pair")
    # What both sides have in common teaches no preference.
    shared = next(
        (i for i, (a, b) in enumerate(zip(better, worse, strict=False)) if a != b), min(len(better), len(worse))
    )
    if not all(any(turn.role == "assistant" and turn.weight for turn in side[shared:]) for side in (better, worse)):
        raise TemplateError("template.same_answers")
    common = [turn.as_dict() | ({"weight": 0} if turn.role == "assistant" else {}) for turn in better[:shared]]
    return [[*common, *(turn.as_dict() for turn in side[shared:])] for side in (better, worse)]


def conversation(example: Example) -> list[Turn]:
    """Return the turns of an example; prompt and completion become a question and its answer, as in chat."""
    if example.messages:
        return [message.as_dict() for message in example.messages]
    thought, text = split_thinking(example.completion or "")
    answer = (
        {"content": text, "reasoning": thought} if thought and text.strip() else {"content": example.completion or ""}
    )
    return [{"role": "user", "content": example.prompt or ""}, {"role": "assistant", **answer}]


def template_source(folder: Path, config: Mapping[str, object]) -> str:
    """Return the chat template of a model folder: its own file's, or the configuration's (of several the default, else
    the first), else PLAIN."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text("utf-8")
    source = config.get("chat_template")
    if isinstance(source, list):  # several templates: [{"name": "default", "template": ...}, ...]
        named = {item.get("name"): item.get("template") for item in source if isinstance(item, dict)}
        source = named.get("default") or next(iter(named.values()), None)
    return source if isinstance(source, str) and source else PLAIN


def _token_text(token: object) -> str | None:
    """Return the text of a special token, stored as a string or as {"content": string, ...}; None for anything else."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
