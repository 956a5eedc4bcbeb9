"""Counts of how the chat template framed a dataset's rows (thinking, system messages), so that a chat prompts the same
way. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from core.data.dialect import Dialect
from core.data.labels import Learning
from core.data.sets.tokens import Tokens
from core.messages import Message, msg


@dataclass
class Framing:
    """Counts over the rows passed to `add`.

    thinking, without: examples whose prompt asks for thinking, and those whose prompt does not. closed: examples with
    thinking in the prompt but none to learn. left_out: rows whose thinking was left out. unfolded, unfolded_to: rows of
    several examples, and the number of those examples. unlearned: earlier answers that mask_history leaves out. folded:
    rows whose system message was moved into the first question.
    """

    dialect: Dialect
    learning: Learning
    thinking: int = 0
    without: int = 0
    closed: int = 0
    left_out: int = 0
    unfolded: int = 0
    unfolded_to: int = 0
    unlearned: int = 0
    folded: int = 0

    def add(self, tokens: Tokens) -> None:
        """Add these tokenized rows to all counts."""
        has_thinking, is_conversation = tokens.thoughts[tokens.row], ~tokens.is_text
        self.thinking += int((is_conversation & tokens.thinks).sum())
        self.without += int((is_conversation & ~tokens.thinks).sum())
        self.closed += int((is_conversation & tokens.thinks & ~has_thinking).sum())
        self.unlearned += int(tokens.unlearned.sum()) if self.learning.mask_history else 0
        # The two examples of a pair are no unfolding.
        several, accepted = (tokens.counts > 1) & (not self.learning.pairs), tokens.counts > 0
        self.left_out += int((tokens.thoughts & accepted).sum()) if self.learning.enable_thinking is False else 0
        self.unfolded, self.unfolded_to = (
            self.unfolded + int(several.sum()),
            self.unfolded_to + int(tokens.counts[several].sum()),
        )
        self.folded += 0 if self.dialect.system else int((tokens.system & accepted).sum())

    @property
    def thinks(self) -> bool:
        """True if a chat is to prompt for thinking, as at least half of the examples did; without any, as the dialect
        does."""
        return self.thinking >= self.without if self.thinking + self.without else self.dialect.thinks

    def notes(self) -> list[Message]:
        """Return one sentence for each count that applies and that a person should know."""
        counts = {"thinking": self.thinking, "without": self.without, "examples": self.thinking + self.without}
        # Only what would surprise: each sentence names something that differs from a plain conversation.
        applies = {
            "framing.not_thinking": self.dialect.switch is not None and not self.thinking and bool(self.without),
            "framing.mixed": self.dialect.switch is not None and bool(self.thinking and self.without),
            "framing.closed": bool(self.closed),
            "framing.left_out": bool(self.left_out),
            "framing.unfolded": bool(self.unfolded),
            "framing.unlearned": bool(self.unlearned),
            "framing.folded": bool(self.folded),
        }
        counts |= {
            "closed": self.closed,
            "rows": self.left_out,
            "unfolded": self.unfolded,
            "unfolded_to": self.unfolded_to,
        }
        counts |= {"unlearned": self.unlearned, "folded": self.folded}
        return [msg(key, **counts) for key, does in applies.items() if does]
