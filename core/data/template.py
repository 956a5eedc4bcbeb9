"""The chat template: one object for preview, training, chat and export.

It renders a conversation with the model's own Jinja template in a sandbox (core/data/sandbox), in the template's
notation (core/data/dialect), and marks which characters are trained. For an answer these are exactly what the model has
to generate after its prompt at that point: the prompt, rendered with add_generation_prompt and the same choice of
thinking, must be a prefix of the training text. An answer that a longer conversation renders differently (most
templates drop the thinking of earlier turns) becomes an example of its own, or is not trained. No torch, no
transformers: the web process uses it for previews.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from core.data import dialect
from core.data.conversation import MessageJson, Tools, Turn
from core.data.dialect import CLOSE, OPEN, Dialect
from core.data.sandbox import CLOSES, OPENS, rendered
from core.errors import TemplateError

MAX_TEMPLATE_BYTES = 256 << 10
_DROP_MARKERS = str.maketrans("", "", OPENS + CLOSES)
_ANSWER = "an7Q"

# For base models without a template: plain text, ended by the model's own end token.
PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### User:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ '### Assistant:\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{{ '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)


Part = Literal["", "thinking", "call"]  # parts of an answer; "" is its text
Mark = tuple[int, int, Part]  # characters: start, end exclusive


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, with the trained character ranges.

    spans: trained ranges (start, end exclusive). unlearned: answers that are not trained because this text renders them
    differently from their prompt. thinks: its prompts ask for thinking. marks: ranges of thinking and tool calls.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    unlearned: int = 0
    thinks: bool = False
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class _RenderedAnswer:
    """One answer in its context: text[start:end] is what the model generates after the prompt text[:start]."""

    text: str
    start: int
    end: int
    thinks: bool
    marks: tuple[Mark, ...]

    def is_in(self, other: _RenderedAnswer) -> bool:
        """Return True if another answer's text begins with this one's, to the end of the answer."""
        return other.text.startswith(self.text[: self.end])


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template. source: Jinja; special_tokens: bos_token, eos_token, ... as the template names them."""

    source: str
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    all_special: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raise TemplateError if the source is larger than MAX_TEMPLATE_BYTES."""
        if (size := len(self.source.encode("utf-8", "replace"))) > MAX_TEMPLATE_BYTES:
            raise TemplateError("template.too_large", bytes=size, limit=MAX_TEMPLATE_BYTES)

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the source; the special tokens are not part of it."""
        return hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def without_markers(self) -> str:
        """Source for programs that do not support `{% generation %}` (llama.cpp, Ollama); renders the same."""
        return re.sub(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}", r"{%\1 if true \2%}{%\1 endif \2%}", self.source)

    @cached_property
    def dialect(self) -> Dialect:
        """The features that the template supports, such as a system message, tools and thinking; detected once by
        rendering test conversations. Raises TemplateError for a template that is too slow."""
        return dialect.find(self._render, self.source)

    def with_thinking(self, thinks: bool) -> ChatTemplate:
        """Return a template whose prompts ask for thinking, or not, unless a program sets the variable that decides it:
        for programs that have no option for thinking. Return this template itself if it has no such variable or its
        default is `thinks` already."""
        name, value = self.dialect.switch, "true" if thinks else "false"
        if name is None or self.dialect.thinks == thinks:
            return self
        return replace(
            self, source=f"{{%- if {name} is not defined %}}{{%- set {name} = {value} %}}{{%- endif %}}{self.source}"
        )

    def _render(
        self, messages: list[MessageJson], tools: Tools | None, thinks: bool | None, add_generation_prompt: bool
    ) -> str:
        """Return messages, which are in the template's own notation, as the template renders them, with the markers of
        `{% generation %}` blocks left in. thinks: None leaves the template's default."""
        switches = {} if thinks is None else dict.fromkeys(dialect.SWITCHES, thinks)
        values = {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        return rendered(self.source, **values, **switches, **self.special_tokens)

    def render(
        self,
        turns: Sequence[Turn],
        add_generation_prompt: bool = False,
        tools: Tools | None = None,
        thinks: bool | None = None,
    ) -> str:
        """Return the conversation as the model reads it, without our markers. thinks: None for the template's default.
        Raises TemplateError if the template refuses it."""
        messages = self.dialect.messages(_clean(turns))
        return self._render(messages, _clean(tools) or None, thinks, add_generation_prompt).translate(_DROP_MARKERS)

    def spans(self, turns: Sequence[Turn], tools: Tools | None = None, thinks: bool | None = None) -> Rendered:
        """Return the conversation up to its last answer, with its trained ranges. thinks and errors: as for
        `conversations`."""
        return self.conversations(turns, tools, thinks, mask_history=True)[0]

    def conversations(
        self,
        turns: Sequence[Turn],
        tools: Tools | None = None,
        thinks: bool | None = None,
        mask_history: bool = False,
    ) -> list[Rendered]:
        """Return texts in which each answer of weight 1 is trained once, usually one text; with mask_history only the
        text of the last answer, in which earlier ones that it renders alike are trained too, the others counted as
        unlearned. thinks: whether prompts ask for thinking; False leaves the data's thinking out, None asks where an
        answer has some. Raises TemplateError if the template has no tools or calls, or drops or rewrites content."""
        turns = _clean(turns)
        if tools and not self.dialect.tools:
            raise TemplateError("template.no_tools")
        if not self.dialect.calls and any(turn["role"] == "tool" or turn.get("tool_calls") for turn in turns):
            raise TemplateError("template.no_tool_calls")
        if thinks is False:
            turns = _without_reasoning(turns)
        messages = [dict(turn) for turn in turns]
        answers_at = [i for i, turn in enumerate(messages) if turn["role"] == "assistant" and turn.get("weight", 1)]
        remaining = [self._render_answer(messages[: i + 1], tools, thinks) for i in answers_at]
        texts: list[Rendered] = []
        while remaining and not (mask_history and texts):
            # The last answer's text usually contains the earlier ones as its beginning. Those that the template renders
            # differently in it, such as without their thinking, need a text of their own.
            longest = remaining[-1]
            contained = [answer for answer in remaining if answer.is_in(longest)]
            remaining = [answer for answer in remaining if not answer.is_in(longest)]
            spans = tuple((answer.start, answer.end) for answer in contained)
            marks = tuple(mark for answer in contained for mark in answer.marks)
            texts.insert(0, Rendered(longest.text, spans, len(remaining) if mask_history else 0, longest.thinks, marks))
        for turn in turns[: answers_at[-1]]:
            if turn["role"] in ("system", "user") and turn["content"].strip() not in texts[-1].text:
                raise TemplateError("template.drops_turn", role=turn["role"])
        return texts

    def _render_answer(self, turns: list[MessageJson], tools: Tools | None, thinks: bool | None) -> _RenderedAnswer:
        """Render the last of the turns, an answer, after its prompt; return the text with the range of the answer and
        the ranges of its thinking and tool calls. Thinking that the template cannot write is put before the answer in
        <think> tags. Raises TemplateError if the template drops or rewrites the answer."""
        answer = turns[-1]
        thought = answer.get("reasoning", "").strip()
        asks_thinking = self.dialect.thinks if not self.dialect.switch else bool(thought) if thinks is None else thinks
        switch = asks_thinking if self.dialect.switch else None
        prompt = self.render(turns[:-1], True, tools, switch)
        text, end = self._render_to_end(turns, tools, switch)
        if text.startswith(prompt):
            body = text[len(prompt) : end]
            if thought and thought not in body and self.dialect.reasoning is None:
                # This template knows no thinking: write it as models without a notation of their own do.
                body = f"{'' if prompt.rstrip().endswith('<think>') else OPEN}{thought}{CLOSE}{body}"
        else:
            body = self._continue_prompt(turns, prompt, text[:end], tools, switch)
        places = [body.find(part) for part in _expected_parts(answer)]
        if thought and (places[0] < 0 or any(0 <= place < places[0] for place in places[1:])):
            raise TemplateError("template.drops_thinking")
        if -1 in places:
            raise TemplateError("template.rewrites_answers" if text.strip() else "template.renders_nothing")
        full = prompt + body
        marks = tuple((start + len(prompt), end + len(prompt), part) for start, end, part in _marks(body, answer))
        return _RenderedAnswer(text if text.startswith(full) else full, len(prompt), len(full), asks_thinking, marks)

    def _continue_prompt(
        self, turns: list[MessageJson], prompt: str, text: str, tools: Tools | None, thinks: bool | None
    ) -> str:
        """Return the last answer of text as the continuation of a prompt that is not a prefix of text. Raises
        TemplateError if the beginning of the answer is not found.

        The template renders earlier turns, or thinking that the prompt opens or closes, differently once there is an
        answer.
        """
        before, answer = self.render(turns[:-1], False, tools, thinks), turns[-1]
        # Of "assistant\n<think>\n" only the head is sure to be in text.
        frame = prompt.removeprefix(before) if prompt.startswith(before) else ""
        opened = frame.rfind("<think>")
        head = frame[:opened] if opened >= 0 else frame
        place = next((text.rfind(part) for part in _expected_parts(answer) if part in text), 0)
        begin = text.rfind(head, 0, place) if head.strip() else -1
        body = text[begin + len(head) :]
        # The thought would be opened twice.
        if begin < 0 or (opened >= 0 and "<think>" in body[: len(frame)]):
            raise TemplateError("template.prompt_differs")
        if opened >= 0 and "</think>" not in frame[opened:] + body:
            body = f"{answer.get('reasoning', '').strip()}{CLOSE}{body}"
        return body

    def _render_to_end(self, turns: list[MessageJson], tools: Tools | None, thinks: bool | None) -> tuple[str, int]:
        """Return the turns as text, and the position after its last answer and that answer's end token, which is added
        (`_with_stop`) if a template without markers renders none. Raises TemplateError if markers are not one pair an
        answer."""
        text = self._render(self.dialect.messages(turns), tools, thinks, False)
        if not re.search(r"\{%-?\+?\s*generation\b", self.source):  # the template does not mark answers itself
            end = len(text.rstrip())
            if text.endswith(self._tail):
                end = len(text) - len(self._tail) + len(self._end_of_turn(self._tail))
            if not text[:end].endswith(tuple(self._specials_longest_first)):
                text = self._with_stop(text[:end], turns, tools, thinks)
                end = len(text)
            return text, end
        marked, answers = text.count(OPENS), sum(turn["role"] == "assistant" for turn in turns)
        if marked != answers:
            raise TemplateError("template.markers_differ", found=marked, expected=answers)
        return text.translate(_DROP_MARKERS), len(text[: text.rindex(CLOSES)].translate(_DROP_MARKERS))

    @cached_property
    def _tail(self) -> str:
        """The text that a template without markers renders after the last answer. Raises TemplateError if it renders no
        answer, or changes it."""
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}]
        _, answer, tail = self.render(turns).rpartition(_ANSWER)
        if not answer:
            raise TemplateError(
                "template.rewrites_answers" if self.render(turns).strip() else "template.renders_nothing"
            )
        return tail

    def _end_of_turn(self, after: str) -> str:
        """Return the special tokens at the beginning of a text, with white space before the first of them; "" if it
        begins with none. after: the text that follows an answer."""
        end = after[: len(after) - len(after.lstrip())]
        while token := next((token for token in self._specials_longest_first if after.startswith(end + token)), ""):
            end += token
        return end if end.strip() else ""

    @cached_property
    def _specials_longest_first(self) -> list[str]:
        """The texts of all special tokens that are not empty, the longest first, so that none is matched as part of a
        longer one."""
        return sorted(filter(None, self.all_special), key=len, reverse=True)

    def _with_stop(self, text: str, turns: list[MessageJson], tools: Tools | None, thinks: bool | None) -> str:
        """Return text, an answer without an end token, with one added.

        That token is the beginning of the next turn, or the model's own end token, if there is one; otherwise no model
        would learn to stop.
        """
        turns = _without_reasoning(turns)  # earlier thinking is rendered differently once another turn follows
        after = {"role": "tool" if turns[-1].get("tool_calls") else "user", "content": _ANSWER}
        try:
            shorter, longer = (self.render(messages, False, tools, thinks) for messages in (turns, [*turns, after]))
        except TemplateError:
            shorter, longer = "?", ""
        next_turn = self._end_of_turn(longer[len(shorter.rstrip()) :]) if longer.startswith(shorter.rstrip()) else ""
        return text + (next_turn or self.special_tokens.get("eos_token", ""))

    @cached_property
    def stop(self) -> str:
        """Text that a model generates at the end of its answer ("" if the template has no such token)."""
        rendered = self.spans([{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}])
        return rendered.text[: rendered.spans[-1][1]].rpartition(_ANSWER)[2].strip()


def _clean(value: object) -> Any:
    """Return value, however nested, without our marker characters in its texts."""
    if isinstance(value, str):
        return value.translate(_DROP_MARKERS)
    if isinstance(value, Mapping):
        return {key: _clean(part) for key, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list | tuple) else value


def _without_reasoning(turns: Sequence[Turn]) -> list[MessageJson]:
    """Return the turns as new messages without their thinking (the key "reasoning"); nothing else changes."""
    return [{name: value for name, value in turn.items() if name != "reasoning"} for turn in turns]


def _expected_parts(answer: Turn) -> list[str]:
    """Return the texts that a rendered answer must contain, in order: its thinking, its text, the names of called
    tools."""
    parts = (
        answer.get("reasoning", "").strip(),
        answer["content"].strip(),
        *(call["name"] for call in answer.get("tool_calls", ())),
    )
    return [part for part in parts if part]


def _marks(body: str, answer: Turn) -> Iterator[Mark]:
    """Yield the ranges of thinking and tool calls in a rendered answer, including their tags."""
    thought, content = answer.get("reasoning", "").strip(), answer["content"].strip()
    at = body.find(thought) + len(thought)
    if thought:
        yield 0, at, "thinking"
    if answer.get("tool_calls"):
        tag = body.find("</think>", at)
        thought_end = at if tag < 0 else tag + len("</think>")
        begin = body.find(content, at) + len(content) if content else thought_end
        yield begin + len(body[begin:]) - len(body[begin:].lstrip()), len(body), "call"
