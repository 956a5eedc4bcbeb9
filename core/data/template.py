"""The chat template: one object for preview, training, chat and export.

It renders a conversation with the model's own Jinja template in a sandbox (template_sandbox.py) and
says which characters are the assistant's. Where the template has `{% generation %}` markers they decide; where it has
none, the answers are found by rendering once more with a sentinel in the place of each answer, which works for every
template that pastes the answers in unchanged (or trimmed) and is checked against the real rendering each time.
No torch, no transformers: the web process previews with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser

from core.data.sandbox import Sandbox
from core.errors import TemplateError, reason_of

MAX_TEMPLATE_BYTES = 256 << 10
# Markers that survive rendering as text; private-use characters, removed from whatever the conversation holds.
_OPEN, _CLOSE, _SENTINEL = "\ue0f0", "\ue0f1", "\ue0f2"
_OURS = str.maketrans("", "", _OPEN + _CLOSE + _SENTINEL)

# For base models that come without a template: plain words, ended by the model's own end token.
PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### User:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ '### Assistant:\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{{ '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)

Turn = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": str}


class _Generation(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}`: the assistant's own words, framed by two marker characters."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_frame"), [], [], body).set_lineno(line)

    def _frame(self, caller: Any) -> str:
        return _OPEN + caller() + _CLOSE


# What a template of somebody else's may end in, besides jinja's own errors.
_ITS_FAULT = (
    jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, NameError, RuntimeError, SyntaxError,
    MemoryError, AssertionError,
)  # fmt: skip


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and the character ranges (start, end exclusive) that the assistant wrote."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ChatTemplate:
    """source: Jinja; special_tokens: bos_token, eos_token, ... as the template names them."""

    source: str
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    all_special: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.source.encode("utf-8", "replace")) > MAX_TEMPLATE_BYTES:
            raise TemplateError("template.too_large", bytes=len(self.source), limit=MAX_TEMPLATE_BYTES)

    @property
    def has_markers(self) -> bool:
        return re.search(r"\{%-?\+?\s*generation\b", self.source) is not None

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def without_markers(self) -> str:
        """The source for programs that do not know `{% generation %}` (llama.cpp, Ollama); renders the same."""
        return re.sub(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}", r"{%\1 if true \2%}{%\1 endif \2%}", self.source)

    @cached_property
    def _sandbox(self) -> Sandbox:
        return Sandbox(extensions=[_Generation, jinja2.ext.loopcontrols])

    @cached_property
    def _compiled(self) -> jinja2.Template:
        try:
            return self._sandbox.from_string(self.source)
        except _ITS_FAULT as error:
            raise TemplateError("template.broken", reason=reason_of(error)) from None

    def _render(self, messages: Sequence[Turn], add_generation_prompt: bool) -> str:
        try:
            return self._sandbox.rendered(
                self._compiled,
                brought=sum(1000 + len(turn["content"]) for turn in messages),
                messages=[dict(turn) for turn in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                **self.special_tokens,
            )
        except TemplateError:
            raise  # of compiling
        except _ITS_FAULT as error:
            raise TemplateError("template.cannot_render", reason=reason_of(error)) from None

    def render(self, messages: Sequence[Turn], add_generation_prompt: bool = False) -> str:
        """The conversation as the model reads it. Raises TemplateError where the template refuses it."""
        return self._render(_clean(messages), add_generation_prompt).translate(_OURS)

    def spans(self, messages: Sequence[Turn]) -> Rendered:
        """The conversation with the assistant's ranges: from where a chat would let the model begin, to the end token.

        Raises TemplateError where the answers cannot be told apart from the rest.
        """
        messages = _clean(messages)
        found = self._marked(messages) if self.has_markers else self._by_sentinel(messages)
        starts = [self._chat_start(found.text, messages[:i]) for i, turn in enumerate(messages) if turn["role"] == "assistant"]
        spans: list[tuple[int, int]] = []
        for (start, end), chat_start in zip(found.spans, starts, strict=True):
            floor = spans[-1][1] if spans else 0
            spans.append((chat_start if chat_start is not None and floor <= chat_start <= end else start, end))
        return Rendered(found.text, tuple(spans))

    def _chat_start(self, text: str, before: Sequence[Turn]) -> int | None:
        """Where the model would take over if it were asked to answer here."""
        try:
            prompt = self._render(before, add_generation_prompt=True).translate(_OURS)
        except TemplateError:
            return None
        return len(prompt) if text.startswith(prompt) else None

    def _marked(self, messages: Sequence[Turn]) -> Rendered:
        spans, plain, position = [], [], 0
        for part in re.split(f"([{_OPEN}{_CLOSE}])", self._render(messages, add_generation_prompt=False)):
            if part == _OPEN:
                spans.append((position, position))
            elif part == _CLOSE:
                spans[-1] = (spans[-1][0], position)
            else:
                plain.append(part)
                position += len(part)
        answers = sum(turn["role"] == "assistant" for turn in messages)
        if len(spans) != answers:
            raise TemplateError("template.markers_differ", found=len(spans), expected=answers)
        return Rendered("".join(plain), tuple(spans))

    def _by_sentinel(self, messages: Sequence[Turn]) -> Rendered:
        answers = [turn["content"] for turn in messages if turn["role"] == "assistant"]
        probe = [{**turn, "content": _SENTINEL} if turn["role"] == "assistant" else turn for turn in messages]
        pieces = self._render(probe, add_generation_prompt=False).split(_SENTINEL)
        text = self._render(messages, add_generation_prompt=False)
        if len(pieces) != len(answers) + 1:
            raise TemplateError("template.no_answers_found", found=len(pieces) - 1, expected=len(answers))
        for candidate in (answers, [answer.strip() for answer in answers]):
            if "".join(part for pair in zip_longest(pieces, candidate, fillvalue="") for part in pair) == text:
                break
        else:
            raise TemplateError("template.rewrites_answers")
        spans, position = [], 0
        for piece, answer, after in zip(pieces, candidate, pieces[1:], strict=False):
            start = position + len(piece)
            spans.append((start, start + len(answer) + len(self._end_of_turn(after))))
            position = start + len(answer)
        return Rendered(text, tuple(spans))

    def _end_of_turn(self, after: str) -> str:
        """The special token that closes an answer (with white space before it), or "" where there is none."""
        stripped = after.lstrip()
        for token in sorted(self.all_special, key=len, reverse=True):
            if token and stripped.startswith(token):
                return after[: len(after) - len(stripped)] + token
        return ""

    @cached_property
    def stop(self) -> str:
        """What a model writes when its answer is over ("" where the template has no such token)."""
        rendered = self.spans([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        tail = rendered.text[rendered.spans[-1][0] : rendered.spans[-1][1]]
        return tail[tail.index("b") + 1 :].strip()


def _clean(messages: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": turn["role"], "content": turn["content"].translate(_OURS)} for turn in messages]
