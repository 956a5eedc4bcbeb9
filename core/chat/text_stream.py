"""The text of an answer while its tokens come, and whether it only repeats itself. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from core.chat.answer_marks import MarkReplacer, Marks
from core.data.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
END = "\ufdd0"  # stands for a stop text while pieces are joined; no text contains this noncharacter
LOOP_TOKENS = 64  # consecutive tokens that equal the token one period before
LOOP_TIMES = 3  # and at least this many periods
LONGEST_PERIOD = 64  # tokens


class Repetition:
    """Detects an answer that only repeats itself, as a base model's answer to a question often does.

    For each period up to LONGEST_PERIOD it counts the newest tokens that equal the token one period before.
    """

    def __init__(self) -> None:
        """Begin without tokens."""
        self._newest = deque[int](maxlen=LONGEST_PERIOD)
        self._equal = [0] * LONGEST_PERIOD  # of the period place + 1

    def is_loop(self, token: int) -> bool:
        """Add token; return whether the answer has repeated one block LOOP_TIMES and for LOOP_TOKENS."""
        for place, before in enumerate(reversed(self._newest)):
            self._equal[place] = self._equal[place] + 1 if before == token else 0
        self._newest.append(token)
        return any(
            equal >= max(LOOP_TOKENS, LOOP_TIMES * (place + 1)) for place, equal in enumerate(self._equal) if equal
        )


class TextStream:
    """Converts token ids to text piece by piece: the joined pieces are the decoded whole without special tokens, up to
    the first of the stop texts, after which `ended` is true. With marks (answer_marks), special tokens stay and marks
    are replaced.

    A character may need several tokens, so text that ends in U+FFFD waits. Each piece is decoded together with the one
    before it, because tokenizers treat the space before a first word differently; earlier tokens are not decoded again.
    """

    def __init__(self, tokenizer: Tokenizer, marks: Marks | None = None, stops: Sequence[str] = ()):
        """Begin without tokens."""
        self._tokenizer, self._skips, self._replacer = tokenizer, not marks, MarkReplacer(marks or {})
        self._stops, self.ended = MarkReplacer(dict.fromkeys(stops, END)), False
        self._window: list[int] = []
        self._emitted = 0  # ids of the window whose text was returned

    def add(self, token: int) -> str:
        """Add a token and return the text that it completes, with marks replaced; "" if it ends within a character."""
        self._window.append(token)
        new = self._new_text()
        if not new or new.endswith(REPLACEMENT):
            return ""
        del self._window[: self._emitted]
        self._emitted = len(self._window)
        return self._before_stop(self._stops.add(self._replacer.add(new)))

    def rest(self) -> str:
        """Return the remaining text of an answer that ended within a character, a mark or a stop text; "" once a stop
        text has come."""
        rest = self._replacer.add(self._new_text().rstrip(REPLACEMENT)) + self._replacer.rest()
        return "" if self.ended else self._before_stop(self._stops.add(rest) + self._stops.rest())

    def _before_stop(self, text: str) -> str:
        """Return the text before the first END, the sign that has replaced a stop text, and set `ended` if there is
        one; without it the whole text."""
        text, end, _ = text.partition(END)
        self.ended = self.ended or bool(end)
        return text

    def _new_text(self) -> str:
        """Return the text of the newest tokens that was not returned before, complete or not: it may end in U+FFFD
        within a character.

        It changes nothing: the callers decide whether the text waits, and note what was returned.
        """
        earlier = self._tokenizer.decode(self._window[: self._emitted], self._skips)
        return self._tokenizer.decode(self._window, self._skips)[len(earlier) :]
