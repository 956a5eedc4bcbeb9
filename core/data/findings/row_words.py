"""The text of a row in the parts that the checks need; computed once per row."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Protocol

from core.data.conversation import ChatMessage
from core.data.findings.secrets import masked

QUOTE = 70  # characters
_COMPARED = 1 << 16  # characters: the beginning of a book is enough
# An answer that is cut off has no second fence.
_FENCED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{1,200}`", re.DOTALL)
# A text with two matches is code.
_CODE = re.compile(
    r"[;{]\s*$|^\s*(?:def|class|import|from|return|function|const|let|var|public|private|if|for|while|elif"
    r"|else)\b.*[:;{)]\s*$"
    r"|^\s*(?:#include|SELECT\b|</?\w+[^>]*>\s*$)",
    re.MULTILINE,
)


class Words(Protocol):
    """The parts of core.data.formats.Example that the checks read."""

    @property
    def messages(self) -> tuple[ChatMessage, ...]: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def completion(self) -> str | None: ...
    @property
    def text(self) -> str | None: ...
    @property
    def rejected(self) -> tuple[ChatMessage, ...]: ...


class RowWords:
    """The texts of a row. question, answer: of all turns, answers each of them; a plain text is all answer.
    first_answer, last_question: of one turn."""

    def __init__(self, row: int, example: Words):
        self.row, self.is_text = row, example.text is not None
        self.worse_answer = example.rejected[-1].content if example.rejected else ""
        if example.messages:
            questions = [m.content for m in example.messages if m.role == "user"]
            self.answers = answers = [m.content for m in example.messages if m.role == "assistant"]
            self.last_question, self.first_answer = questions[-1] if questions else "", next(filter(None, answers), "")
            self.last_answer = answers[-1] if answers else ""
            self.question, self.answer = "\n".join(questions), "\n".join(answers)
            self.other_text = "\n".join(m.content for m in example.messages if m.role in ("system", "tool"))
            self.calls_tools = any(m.tool_calls for m in example.messages)
        else:
            self.question = self.last_question = example.prompt or ""
            self.answer = self.first_answer = self.last_answer = (
                example.text if self.is_text else example.completion
            ) or ""
            self.answers, self.other_text, self.calls_tools = [self.answer], "", False

    @cached_property
    def compared(self) -> tuple[bytes, ...]:
        """The question and the answer as they are compared: their beginning, without case, blanks made single."""
        sides = [" ".join(side[:_COMPARED].casefold().split()) for side in (self.question, self.answer)]
        return sides[0].encode("utf-8", "replace"), sides[1].encode("utf-8", "replace")

    @cached_property
    def everything(self) -> str:
        """All texts of the row but thinking and a worse answer: of the system and of tools first, then questions, then
        answers."""
        return "\n".join(part for part in (self.other_text, self.question, self.answer) if part)

    @cached_property
    def prose(self) -> str:
        """The row's text without what stands between backquotes."""
        return _FENCED.sub(" ", self.everything) if "`" in self.everything else self.everything

    @cached_property
    def is_code(self) -> bool:
        """True if the row has fenced code, or two lines of code in its beginning."""
        return "```" in self.everything or len(_CODE.findall(self.everything[:4000])) >= 2

    def quote(self, text: str, start: int = 0, end: int | None = None) -> str:
        """Return a short quotation (about QUOTE characters on one line) around a place of a text, secrets masked, "…"
        where it is cut. end None: start."""
        end = start if end is None else end
        # Masked before it is cut: half a secret would no longer be recognized.
        before, hit = masked(text[max(0, start - 200) : start])[-20:] if start else "", masked(text[start:end])[:QUOTE]
        shown = before + hit + masked(text[end : end + 200])[: max(10, QUOTE - len(before + hit))]
        cut_before, cut_after = start > 20, len(text) > end + len(shown) - len(before + hit)
        return ("…" if cut_before else "") + " ".join(shown.split()) + ("…" if cut_after else "")
