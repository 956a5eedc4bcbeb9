"""How the template framed the rows of a dataset (thinking, system messages), counted, so that a chat asks the same way.
No torch."""

from __future__ import annotations

from dataclasses import dataclass

from core.data.dialect import Dialect
from core.data.labels import Learning
from core.data.sets.tokens import Tokens
from core.messages import Message, msg


@dataclass
class Framing:
    """Of what `add` was told. thinking, without: examples that the prompt asks with and without thinking. closed: of
    those with, the ones that have none to learn. left_out: rows whose thinking was left out. unfolded, unfolded_to:
    rows of several examples, and those. unlearned: earlier answers that mask_history leaves. folded: rows whose system
    message stands in the first question."""

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
        """Of rows that were counted, as core/data/sets/tokens keeps them."""
        thoughts, talks = tokens.thoughts[tokens.row], ~tokens.is_text
        self.thinking += int((talks & tokens.thinks).sum())
        self.without += int((talks & ~tokens.thinks).sum())
        self.closed += int((talks & tokens.thinks & ~thoughts).sum())
        self.unlearned += int(tokens.unlearned.sum()) if self.learning.mask_history else 0
        several, accepted = (tokens.counts > 1) & (not self.learning.pairs), tokens.counts > 0
        self.left_out += int((tokens.thoughts & accepted).sum()) if self.learning.enable_thinking is False else 0
        self.unfolded, self.unfolded_to = (
            self.unfolded + int(several.sum()),
            self.unfolded_to + int(tokens.counts[several].sum()),
        )
        self.folded += 0 if self.dialect.system else int((tokens.system & accepted).sum())

    @property
    def thinks(self) -> bool:
        """Whether a chat asks with thinking, as most of what was learned."""
        return self.thinking >= self.without if self.thinking + self.without else self.dialect.thinks

    def notes(self) -> list[Message]:
        """What a person should know of it, a sentence each."""
        counts = {"thinking": self.thinking, "without": self.without, "examples": self.thinking + self.without}
        found = {
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
        return [msg(key, **counts) for key, is_so in found.items() if is_so]
