"""Reads logs of IRC programs, and other logs whose lines begin with a time and a name.

irssi, ZNC, mIRC, HexChat    12:03 <@anna> Hello      [12:03:04] <anna> Hello      anna> Hello
WeeChat                      2025-03-12 12:03:04<tab>@anna<tab>Hello
meetings, messengers, games  [12:03] Anna: Hello      12:03:04 From Anna to Everyone: Hello
                             [Anna] [12:03] Hello     2013년 2월 28일 오후 11:17, Anna : Hello
scripts                      Anna: Hello
posts                        [2025-03-12 12:03] Anna, and the text in the lines below
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from core.data.chats import dates
from core.data.chats.exported_message import ExportedMessage, omission_of_text
from core.data.reading.file_rows import Limits, Source
from core.data.shapes.left_out import NEARLY_ALL, Omission
from core.data.shapes.roles import QUESTION_MARKS, means_something
from core.data.shapes.speakers import role_of

_DAY, _END = 86_400, "\0"  # seconds; after the last line
_WORDS_OF_A_NAME = 3  # more before a colon are a sentence
_SCRIPT, _LINES_OF_ONE = 0.5, 4  # share of the lines of a script, and lines that each speaks at least, on average
_STAMP = rf"""
    [\[(]?(?P<date>\d{{4}}[-/.]\d\d[-/.]\d\d|\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{2,4}}|[A-Z][a-z]{{2}}[ ]\d{{1,2}}
    |\d{{4}}(?:[년年]|\.[ ])[ ]?\d{{1,2}}(?:[월月]|\.[ ])[ ]?\d{{1,2}}[일日.]
    |\d{{1,2}}[ -][A-Z][a-z]{{2}}[ -]\d{{2,4}})?
    ,?[T ]?(?P<before>(?i:{dates.HALVES}))?[ ]?
    (?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d)?
    [ ]?(?P<half>(?i:{dates.HALVES}))?[\])]?,?"""
_TIME = rf"{_STAMP}[ \t]+"
_NICK = r"[~&@%+ ]?(?P<nick>[^\s<>:/*#-][^\s<>:/]{0,39})"
_SPEAKER = rf"(?:{_TIME})?(?P<nick>[^\W\d_][^<>:*\t/\[\]]{{0,39}}?)[ ]?:"
# Tried in this order, the strictest first: many texts have lines with a colon.
_STYLES = {
    "angles": rf"(?:{_TIME})?<{_NICK}>[ \t](?P<text>.*)",
    "tabs": rf"{_TIME}{_NICK}\t(?P<text>.*)",
    "arrow": rf"(?:{_TIME})?{_NICK}>[ ](?P<text>.*)",
    # Tags of a channel or a rank before the name, and whom it is to after it.
    "colon": rf"{_TIME}(?:\[[^\[\]\s]{{1,12}}\][ ]+){{0,3}}(?:From[ ]+)?(?P<nick>[^\s<>:*#-][^<>:\t]{{0,39}}?)"
    r"(?:[ ]+(?:to|->)[ ]+[^:]{1,40})?[ ]?:[ \t]+"
    r"(?P<text>.*)",
    "named": rf"\[(?P<nick>[^\s\[\]][^\[\]]{{0,39}})\][ ]{_TIME}(?P<text>.*)",
    "script": rf"{_SPEAKER}[ \t]+(?P<text>.*)",
    # A date and seconds without brackets are a program's too; a diary has none.
    "posts": rf"(?=[\[(]|\d{{4}}-\d\d-\d\d[ T]\d{{1,2}}:\d\d:\d\d){_TIME}"
    r"(?P<nick>[^\s<>:*#-][^<>:\t()]{0,39}?)(?:[ ]?\([^()]*\))?(?P<text>)[ ]*\Z",
}
_LEAST = {"colon": 0.5, "named": 0.5, "script": _SCRIPT, "posts": 0.0}  # share of the lines
_MESSAGES = {name: re.compile(pattern, re.VERBOSE | re.DOTALL) for name, pattern in _STYLES.items()}
# Of a script, without a blank after the colon.
_TIGHT = re.compile(rf"{_SPEAKER}(?P<text>[^\s/].*)", re.VERBOSE | re.DOTALL)
_TIMED = re.compile(_TIME, re.VERBOSE)
# * anna waves
_ACTION = re.compile(rf"(?:{_TIME})?[ ]?\*[ \t]+{_NICK}[ \t]+(?P<text>.*)", re.VERBOSE | re.DOTALL)
# *** anna has joined, -!- anna, --> anna, Session Start: Tue
_EVENT = re.compile(
    rf"(?:{_TIME})?(?:\*{{3}}|-!-|-->|<--|---|--|=-=|=!=|\*[ \t]|-[^\s-]+-|Session[ ](?:Start|Close|Ident|Time)\b)",
    re.VERBOSE,
)
_BY_APP = re.compile(
    r"(?:has |have )?(?:joined|left|quit|parted|is now known as|sets? (?:the )?(?:mode|topic)|changed? (?:the )?topic|"
    r"was kicked)\b"
)
# <TXT=interview1>, alone in a line of a script; no tag of a page
_MARK_LINE = re.compile(r"\s*<[A-Z]{2}[^<>]{0,60}>\s*")
# --- 12.03.2024 09:00 ---
_DAY_LINE = re.compile(rf"[-= ]*{_STAMP}[-= ]*\Z", re.VERBOSE)
# sshd[411]
_PROCESS = re.compile(r"\[[^\]]*\d\]$")  # of a system's log
LEVELS = {"trace", "debug", "info", "notice", "warn", "warning", "error", "critical", "fatal"}  # of a program's log
# --- Day changed Tue Mar 12 2024
_NEW_DAY = re.compile(r"(?:Day changed|Log opened|Session Start).{0,40}?([A-Z][a-z]{2}) +(\d{1,2})\b.{0,40}?(\d{4})")


class _LogStyle(NamedTuple):
    name: str
    message: re.Pattern[str]


def recognize(lines: Sequence[str]) -> str:
    """Return "irc" for the log of an IRC program, "log" for a script or the log of another program, each of two people
    or more; "" for any other text. lines: the first ones."""
    style = _style(lines)
    return "" if style is None else "log" if style.name in _LEAST else "irc"


def _style(lines: Iterable[str]) -> _LogStyle | None:
    """Return the notation in which nearly all first lines (half of them in some notations) are messages or events, of
    two names or more that write repeatedly; None if none fits.

    Names of programs, log levels and markup tags do not count.
    """
    every = [line.rstrip("\n") if line.strip() else "" for line in _unwrapped(lines)]
    lines = [*filter(None, every)]
    for name, message in _MESSAGES.items():
        nicks = Counter(match["nick"] for line in lines if (match := message.match(line)))
        events = sum(bool(_EVENT.match(line)) and not message.match(line) for line in lines)
        of_chat = nicks.total() + events
        # <b> is a tag and no nick if </b> stands there too.
        is_markup = name == "angles" and any(f"</{nick}>" in line for nick in nicks for line in lines)
        least = 4 if name in ("colon", "posts") else 2
        # People write more than once; fields of a program's log differ in nearly every line.
        are_people = len(nicks) > 1 and 2 * len(nicks) <= max(4, nicks.total()) and nicks.total() >= least
        are_people = are_people and not any(nick.lower() in LEVELS or _PROCESS.search(nick) for nick in nicks)
        if name == "script":
            of_chat = nicks.total()
            are_people = are_people and _is_script(every, [*map(message.match, every)])
        elif name == "posts" and are_people:  # most stand above a text
            above = (not message.match(below) for line, below in pairwise([*lines, ""]) if message.match(line))
            are_people = 5 * sum(above) >= 4 * nicks.total()
        if are_people and not is_markup and of_chat >= _LEAST.get(name, 0.8) * len(lines):
            return _LogStyle(name, message)
    return None


def _unwrapped(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines; of a log that Python wrote as bytes, b'it\\'s' from the first line on, what is inside, decoded."""
    quote = ""
    for number, line in enumerate(lines):
        begins = (quote or number == 0) and line[:2] in ("b'", 'b"')
        quote = line[1] if begins else quote
        inside = re.sub(rf"(?<!\\){quote}$", "", line[2 if begins else 0 :].rstrip("\n")) if quote else ""
        text = inside.encode("latin-1", "replace").decode("unicode_escape", "replace").encode("latin-1", "replace")
        yield text.decode(errors="replace") if quote else line


def _is_script(lines: Sequence[str], matches: Sequence[re.Match[str] | None]) -> bool:
    """Return True if the lines with a name and a colon are those of speakers, not fields of a record. matches: a match
    or None for each line.

    Lines without a name must be few, or a quarter of the speeches questions; hardly any of them may begin a paragraph.
    """
    names = [match["nick"].strip() for match in matches if match]
    asking = sum(match["text"].rstrip().endswith(QUESTION_MARKS) for match in matches if match)
    others = [before for before, line, match in zip(["", *lines], lines, matches, strict=False) if line and not match]
    # A letter alone, as Q and A, names a side and no person.
    is_clear = len(others) * 9 <= len(names) or 4 * asking >= len(names) and min(map(len, names)) > 1
    return is_clear and sum(not before for before in others) * 9 <= len(names) and _are_speakers(names)


def _are_speakers(names: Sequence[str]) -> bool:
    """Return True for the names of people: each with several lines, in no fixed order, no roles, no names of fields,
    few words that begin with a capital; none has nearly all lines, as nobody would answer."""
    count, most = len({*names}), max(map(names.count, {*names}), default=0)
    if (
        count * _LINES_OF_ONE > len(names)
        or most > NEARLY_ALL * len(names)
        or any(role_of(name) or means_something(name) for name in {*names})
    ):
        return False
    are_names = all(len(name.split()) <= _WORDS_OF_A_NAME and not name[0].islower() for name in names)
    # Fields of a record come in the same order again and again, people do not.
    return are_names and (count == 2 or len({*pairwise(names)}) > count + 1)


def messages(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the messages of a log, each with the lines that continue it, and its events and days as lines of the app,
    left out. Nothing if its notation is unknown."""
    with source.path.open(encoding=source.encoding) as file:
        style = _style(file.readline(4096) for _ in range(200))
    if style is None:
        return
    is_post, clock, nicks, forms = style.name == "posts", _Clock(), set[str](), set[str]()
    current: ExportedMessage | None = None
    with source.path.open(encoding=source.encoding) as file:
        # The next message, or _END, shows that one is complete.
        for number, line in enumerate(chain(_unwrapped(file), [_END]), 1):
            line = line.rstrip("\n")
            message = style.message.match(line)
            if message is None and style.name == "script" and (tight := _TIGHT.match(line)) and tight["nick"] in nicks:
                message = tight
            action = None if message or is_post else _ACTION.match(line)
            # Only of somebody who has written: other lines of this form are the app's.
            is_action = action is not None and action["nick"] in nicks and not _BY_APP.match(action["text"])
            match = message or (action if is_action else None)
            form = _time_with_zeros(line)
            is_day = (day := _DAY_LINE.match(line)) and day["date"]
            is_mark = style.name == "script" and _MARK_LINE.fullmatch(line)
            by_app = not is_post and (_EVENT.match(line) or is_mark or is_day or form in forms)
            if match is None and not by_app and line != _END:
                # In a log blank lines mean nothing.
                if current and (line.strip() or is_post):
                    current = current._replace(text=f"{current.text}\n{line}")
                continue
            if current:
                # Many programs indent the further lines of a message.
                text = textwrap.dedent(current.text).strip()
                yield current._replace(text=text, omission=current.omission or omission_of_text(text))
            if match is None:
                clock.read_day(line)
                current = ExportedMessage("", line, omission=Omission("chat", "app"), line=number)
                continue
            nicks.add(match["nick"])
            forms.update([form] if form else [])
            text = match["text"] if message else f"* {match['nick']} {match['text']}"
            is_model = role_of(match["nick"]) == "assistant"
            current = ExportedMessage(match["nick"].strip(), text, clock.time(match), line=number, is_model=is_model)


def _time_with_zeros(line: str) -> str:
    """Return the time at the beginning of a line with each run of digits replaced by 0, so that times in the same
    notation give the same text; "" if the line begins with no time. By it a line in the notation of the messages is not
    taken for the continuation of one."""
    time = _TIMED.match(line)
    return re.sub(r"\d+", "0", time[0]) if time else ""


class _Clock:
    """Times of lines, which mostly have no date: a time before that of the line above is of the next day."""

    def __init__(self) -> None:
        self._day, self._before = 0.0, 0.0

    def read_day(self, line: str) -> None:
        """Take the date from a line that announces a new day; other lines are ignored."""
        match = _NEW_DAY.search(line)
        if match and (day := dates.moment("{1} {0} {2} 00:00".format(*match.groups()), "dmy")) is not None:
            self._day = self._before = day

    def time(self, match: re.Match[str]) -> float | None:
        """Return the time of a line in seconds since 1970, or since the first day's midnight if the log has no date;
        None without a time. A time before that of the line above is on the next day."""
        if match["hour"] is None:
            return None
        hour, minute = dates.hour_of(int(match["hour"]), match["before"] or match["half"]), int(match["minute"])
        of_day = hour * 3600 + minute * 60 + int(match["second"] or 0)
        numbers = dates.numbers_in(match["date"]) if match["date"] else None
        if numbers and (day := dates.seconds(numbers, dates.order_of([numbers[:3]]))) is not None:
            return day + of_day
        if self._day + of_day < self._before:
            self._day += _DAY
        self._before = self._day + of_day
        return self._before
