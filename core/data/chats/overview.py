"""A summary of a chat before its rows are made: messages per person, and conversations per length of silence."""

from __future__ import annotations

import difflib
import re
from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

from core.data.chats.exported_message import ExportedMessage
from core.data.chats.kinds import KINDS, Kind, messages
from core.data.reading.file_rows import DEFAULT_LIMITS, Limits, Source
from core.errors import DataError
from core.messages import Message, msg
from core.progress import Check, go_on
from core.values import Frozen

GAP_HOURS = 6.0
SHORTEST_HOURS = 0.25  # shortest silence that can begin a conversation
LADDER = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 24.0, 48.0, 72.0, 168.0)  # hours to choose from
CHECK_EVERY = 20  # messages
MAX_SHOWN = 8  # people in a note
MAX_KEPT = 2_000  # people in a report
_WORD = re.compile(r"[^\W\d_]{2,40}")


class Person(Frozen):
    """A person of a chat. messages: those that can be trained."""

    name: str
    messages: int


class Chat(Frozen):
    """The way a chat is read. guessed: the voice was not chosen by a person. known: it is that of an assistant.

    ladder: hours of silence, and the number of conversations that they make; empty if the export marks where one ends.
    """

    app: str
    people: tuple[Person, ...]  # those with the most messages first
    count: int  # of people
    voice: str
    guessed: bool
    known: bool
    gap_hours: float | None
    conversations: int
    pseudonyms: bool
    ladder: tuple[tuple[float, int], ...] = ()

    def note(self) -> Message:
        """Return a note on who wrote how much, whose voice is learned, where conversations end, and whether names are
        replaced."""
        listed = [msg("data.counted", name=person.name, count=person.messages) for person in self.people[:MAX_SHOWN]]
        gap = msg("data.note_chat_gap", hours=self.gap_hours) if self.gap_hours else msg("data.note_chat_whole")
        how = msg("data.note_chat_guessed" if self.guessed else "data.note_chat_said", voice=self.voice)
        private = msg("data.note_chat_stand_ins" if self.pseudonyms else "data.note_chat_as_it_is")
        about = {"people": listed, "count": self.count, "how": how, "gap": gap, "conversations": self.conversations}
        if not self.app:
            return msg("data.note_chat_table", **about, private=private)
        return msg("data.note_chat", **about, app=self.app, private=private)


@dataclass
class Overview:
    """Counts of a chat.

    people: trainable messages by person, in the order of their first message. silences: hours between two messages of a
    thread, sorted. timed: a message has a time. words: of a chat among people, with their numbers; capitals, smalls:
    messages that begin with a capital or a small letter.
    """

    kind: Kind
    people: Counter[str] = field(default_factory=Counter)
    models: set[str] = field(default_factory=set)
    in_thread: dict[str, set[str]] = field(default_factory=dict)
    silences: array[float] = field(default_factory=lambda: array("f"))
    timed: bool = False
    words: Counter[str] = field(default_factory=Counter)
    capitals: int = 0
    smalls: int = 0

    def add_text(self, text: str) -> None:
        """Count the words of a message, and whether it begins with a capital or a small letter."""
        self.words.update(_WORD.findall(text))
        self.capitals += text[:1].isupper()
        self.smalls += text[:1].islower()

    @property
    def written(self) -> Counter[str]:
        """The words as written; none if most messages begin with a small letter, where case tells nothing."""
        return self.words if self.capitals > self.smalls else Counter()

    @property
    def by_silence(self) -> bool:
        """True if a silence ends a conversation: times are known, and the app marks no ends."""
        return self.kind.by_silence and self.timed

    def conversations(self, hours: float) -> int:
        """Return the number of conversations if a silence of more than so many hours begins another one; the number of
        threads where no silence does (by_silence False)."""
        return len(self.in_thread) + (len(self.silences) - bisect_right(self.silences, hours) if self.by_silence else 0)

    def default_voice(self) -> str:
        """Return the person with the most messages, of models if there are any; "" for an empty chat. Of equals it is
        the one whose first message is later: that one was asked."""
        order = {person: place for place, person in enumerate(self.people) if not self.models or person in self.models}
        return max(order, key=lambda person: (self.people[person], order[person]), default="")

    def voice(self, name: str, file: str) -> str:
        """Return the person with a name, in any case. Raises DataError with the nearest names, else the most frequent
        ones."""
        if name in self.people:
            return name
        folded = {person.casefold(): person for person in self.people}
        if person := folded.get(name.strip().casefold()):
            return person
        near = difflib.get_close_matches(name.strip().casefold(), folded, n=5, cutoff=0.5)
        # People type "Anna" for "Anna Maria Berg".
        begins = [known for known in folded if name.strip() and known.startswith(name.strip().casefold())]
        names = list(dict.fromkeys(folded[known] for known in [*begins, *near])) or [
            known for known, _ in self.people.most_common(5)
        ]
        raise DataError("data.no_such_voice", voice=name[:80], file=file, names=names, count=len(self.people))


def summarize(source: Source, check: Check = go_on) -> Overview:
    """Return the counts of a chat (people, silences, words), for which the export is read once; the results of the last
    four readings are cached. check: called while it is read, and may raise."""
    reading = source.chat, source.sha256, source.encoding, source.sheet, source.message_columns
    return _summarize(reading, _Known(source, check))


class _Known:
    """A source that is no part of the cache's key, because its checksum and how it is read are. check: called while it
    is read."""

    def __init__(self, source: Source, check: Check):
        self.source, self.check = source, check

    def __eq__(self, other: object) -> bool:
        """Return True for any other _Known, whatever its source, so that the cache ignores it."""
        return isinstance(other, _Known)

    def __hash__(self) -> int:
        """Return 0 for every source, so that the cache ignores it."""
        return 0


@lru_cache(maxsize=4)
def _summarize(reading: tuple[object, ...], known: _Known, limits: Limits = DEFAULT_LIMITS) -> Overview:
    """Read all messages once, and count them by person and thread, with the silences between them (hours, sorted) and,
    among people, their words. Calls known's check at times."""
    overview = Overview(KINDS[known.source.chat])
    before: dict[str, float] = {}
    for number, message in enumerate(messages(known.source, limits)):
        if number % CHECK_EVERY == 0:
            known.check()
        if not isinstance(message, ExportedMessage) or message.omission is not None or message.is_system:
            continue
        overview.people[message.person] += 1
        if overview.kind.among_people:
            overview.add_text(message.text)
        if message.is_model:
            overview.models.add(message.person)
        overview.in_thread.setdefault(message.thread, set()).add(message.person)
        if message.when is not None:
            overview.timed = True
            hours = (message.when - before.get(message.thread, message.when)) / 3600
            if hours > SHORTEST_HOURS:
                overview.silences.append(hours)
            before[message.thread] = message.when
    # fp32 and sorted: the number of conversations for any gap is then one binary search.
    overview.silences = array("f", sorted(overview.silences))
    return overview


def read_as(source: Source, check: Check = go_on) -> Chat:
    """Return how the chat is read: its choices, completed by defaults (voice, gap, stand-ins among people), and its
    counts. Raises DataError for an empty chat or an unknown voice."""
    overview, choices = summarize(source, check), source.choices
    if not overview.people:
        raise DataError("data.chat_is_empty", file=source.path.name, app=overview.kind.name or source.path.name)
    voice = overview.voice(choices.voice, source.path.name) if choices.voice else overview.default_voice()
    gap = choices.gap_hours or GAP_HOURS
    by_silence = overview.by_silence
    return Chat(
        app=overview.kind.name,
        people=tuple(Person(name=name, messages=count) for name, count in overview.people.most_common(MAX_KEPT)),
        count=len(overview.people),
        voice=voice,
        guessed=not choices.voice,
        known=voice in overview.models,
        gap_hours=gap if by_silence else None,
        conversations=overview.conversations(gap),
        pseudonyms=overview.kind.among_people if choices.pseudonyms is None else choices.pseudonyms,
        ladder=tuple((hours, overview.conversations(hours)) for hours in LADDER) if by_silence else (),
    )
