"""Makes rows of a chat of any app: the voice's messages are the answers, everyone else's the questions.

Consecutive messages of one side are one turn; if there are several other people, each line begins with its author. A
silence begins a new conversation. A conversation becomes rows of about ROW_TOKENS that begin with a question; a later
row of a conversation begins with the turns before it, as context whose answers are not trained again. Messages that
cannot be trained are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from core.data.chats.exported_message import ExportedMessage
from core.data.chats.kinds import messages
from core.data.chats.overview import Chat, Overview, read_as, summarize
from core.data.chats.stand_ins import StandIns
from core.data.reading.file_rows import Limits, Problem, RawRow, Source
from core.data.shapes.left_out import Omission
from core.errors import DataError

ROW_TOKENS = 400  # estimated, so that nearly every row fits the default max_length
CONTEXT_TOKENS = 100  # of a row, for earlier turns
# Estimates of tokens; in a chat of short turns the frame of a turn matters most.
_FRAME, _CHARACTER, _CJK_CHARACTER = 8, 0.28, 0.75
_CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U0001f000-\U0001faff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class Turn:
    """The messages that one side of a chat wrote in succession. line: of the first of them in the export."""

    role: str
    text: str
    line: int | None

    @property
    def tokens(self) -> float:
        """The estimated tokens of the turn, with its frame in a chat template."""
        wide = len(_CJK.findall(self.text))
        return _FRAME + _CJK_CHARACTER * wide + _CHARACTER * (len(self.text) - wide)

    def message(self, weight: int = 1) -> dict[str, object]:
        """Return the turn as a message of a row. weight: 0 for an answer that is context and not trained."""
        return {"role": self.role, "content": self.text} | ({} if weight else {"weight": 0})


def chat_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem]:
    """Yield numbered rows {"messages": [...]} of a chat, and problems; what was left out belongs to the next row, or to
    the last one. Raises DataError if nobody answers."""
    chat, overview = read_as(source), summarize(source)
    rows = _Rows(chat, overview)
    waiting: RawRow | None = None
    for item in rows.convert(messages(source, limits)):
        if isinstance(item, Problem):
            yield item
            continue
        if waiting:
            yield waiting
        waiting = RawRow(
            (waiting.row if waiting else 0) + 1, {"messages": item.messages}, item.line, tuple(rows.omissions)
        )
        rows.omissions.clear()
    # What was left out after the last row belongs to it, so each row is held back by one.
    if waiting is None:
        key = "data.chat_without_answers" if chat.count > 1 else "data.chat_of_one"
        raise DataError(key, file=source.path.name, voice=chat.voice)
    yield RawRow(waiting.row, waiting.value, waiting.line, (*waiting.omissions, *rows.omissions))


@dataclass(frozen=True)
class _ChatRow:
    """The messages of a row, and the line in the export of the first that is no context."""

    messages: list[dict[str, object]]
    line: int | None


class _Rows:
    """Makes the rows of one chat, and collects in `omissions` what it leaves out."""

    def __init__(self, chat: Chat, overview: Overview):
        self._voice, self._overview = chat.voice, overview
        self._gap = chat.gap_hours * 3600 if chat.gap_hours else None
        others = (name for name, _ in overview.people.most_common() if name != chat.voice)
        self._stand_ins = StandIns(others, chat.voice, overview.written) if chat.pseudonyms else None
        self._system: list[dict[str, object]] = []  # what each row of the conversation begins with
        self.omissions: list[Omission] = []

    def convert(
        self, exported: Iterator[ExportedMessage | Problem] | Iterator[ExportedMessage]
    ) -> Iterator[_ChatRow | Problem]:
        """Yield the rows of an export's threads, which come one after another. A conversation ends with its thread, or
        at a silence longer than the chosen gap; a system message before it begins its rows. Notes omissions."""
        conversation: list[ExportedMessage] = []
        before: float | None = None
        for message in exported:
            if isinstance(message, Problem):
                yield message
                continue
            if message.omission is not None:
                self.omissions.append(message.omission)
                continue
            is_late = (
                self._gap is not None
                and before is not None
                and message.when is not None
                and message.when - before > self._gap
            )
            if conversation and (message.thread != conversation[0].thread or is_late):
                yield from self._rows(self._turns(conversation))
                conversation, self._system = [], []
            if message.is_system:
                if conversation:
                    self.omissions.append(Omission("message", "system"))
                else:
                    self._system = [{"role": "system", "content": message.text}]
                continue
            # A message without a time neither ends a silence nor begins one.
            if not conversation or message.when is not None:
                before = message.when
            conversation.append(message)
        yield from self._rows(self._turns(conversation))

    def _turns(self, conversation: list[ExportedMessage]) -> list[Turn]:
        """Return a conversation as turns: the voice's messages in succession are one of the assistant, the others' one
        of the user, with stand-ins if they are chosen. Among more than two people each line of the others names its
        person."""
        turns: list[Turn] = []
        # Between two people the roles say who speaks.
        named = bool(conversation) and len(self._overview.in_thread[conversation[0].thread]) > 2
        for is_voice, group in groupby(conversation, lambda message: message.person == self._voice):
            run = list(group)
            lines = []
            for message in run:
                text = self._stand_ins.replaced(message.text, is_voice) if self._stand_ins else message.text
                person = (
                    self._stand_ins.people.get(message.person, message.person) if self._stand_ins else message.person
                )
                lines.append(text if is_voice or not named else f"{person}: {text}")
            turns.append(Turn("assistant" if is_voice else "user", "\n".join(lines), run[0].line))
        return turns

    def _rows(self, turns: list[Turn]) -> Iterator[_ChatRow]:
        """Divide a conversation into rows of question and answer pairs with at most ROW_TOKENS tokens; a longer pair is
        a row alone. Each further row begins with the last pairs of the one before, where they fit, as context that is
        not trained.

        An answer at the beginning and a question at the end are left out and added to `omissions`.
        """
        if turns and turns[0].role == "assistant":
            self.omissions.append(Omission("chat", "unasked"))
            turns = turns[1:]
        if turns and turns[-1].role == "user":
            self.omissions.append(Omission("chat", "unanswered"))
            turns = turns[:-1]
        row: list[tuple[Turn, Turn]] = []
        context: list[tuple[Turn, Turn]] = []
        size = 0.0
        for pair in zip(turns[::2], turns[1::2], strict=True):
            length = pair[0].tokens + pair[1].tokens
            if row and size + length > ROW_TOKENS:
                yield self._row(context, row)
                context = _last(context + row)
                row, size = [], sum(question.tokens + answer.tokens for question, answer in context)
                if size + length > ROW_TOKENS:
                    # A long question and answer need the room: they stand in a row without the turns before.
                    context, size = [], 0.0
            row.append(pair)
            size += length
        if row:
            yield self._row(context, row)

    def _row(self, context: list[tuple[Turn, Turn]], row: list[tuple[Turn, Turn]]) -> _ChatRow:
        """Return the row of these pairs, after a system message and the context, whose answers are not trained."""
        known = [turn.message(weight=int(turn.role == "user")) for pair in context for turn in pair]
        return _ChatRow(self._system + known + [turn.message() for pair in row for turn in pair], row[0][0].line)


def _last(pairs: list[tuple[Turn, Turn]]) -> list[tuple[Turn, Turn]]:
    """Return the last pairs of turns that together have at most CONTEXT_TOKENS tokens."""
    last: list[tuple[Turn, Turn]] = []
    size = 0.0
    # The next question refers to the last turns.
    for pair in reversed(pairs):
        size += pair[0].tokens + pair[1].tokens
        if size > CONTEXT_TOKENS:
            break
        last.insert(0, pair)
    return last
