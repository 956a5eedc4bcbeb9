"""Reads WhatsApp's export: lines that begin with a date, from Android or iOS, in any date order, clock and script."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, groupby

from core.data.chats import dates
from core.data.chats.exported_message import MARKS, ExportedMessage, omission_of_text
from core.data.chats.irc import LEVELS
from core.data.reading.file_rows import Limits, Source
from core.data.shapes.left_out import Omission
from core.data.shapes.roles import words_of

_BLANK = r"[\s\u202f\u00a0]"
# The beginning of a message on both systems; some clocks contain U+202F or U+00A0. Runs of blanks are possessive (++),
# so that a line of blanks takes no quadratic time.
_HEAD = re.compile(
    rf"""^[\u200e\u200f\ufeff]*\[?
    (\d{{1,4}})(?:[./-]|\.{_BLANK}|[年년]{_BLANK}*)(\d{{1,2}})(?:[./-]|\.{_BLANK}|[月월]{_BLANK}*)(\d{{1,4}})[日일]?\.?[,،]?
    {_BLANK}++(?:星期.|周.|[(（].[)）])?{_BLANK}*+(?P<before>{dates.HALVES})?{_BLANK}*+
    (\d{{1,2}})[:.](\d{{2}})(?:[:.](\d{{2}}))?(?:{_BLANK}*+(?P<after>{dates.HALVES}))?
    (?:\]{_BLANK}|{_BLANK}++-{_BLANK}++|,{_BLANK})(?P<rest>.*)$""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# <Media omitted>, IMG-1.jpg (file attached), [사진 생략]
_MEDIA = re.compile(
    r"^\u200e|^<[^<>]{3,40}>$|^\S+\.(?:jpe?g|png|webp|gif|opus|mp3|m4a|mp4|3gp|pdf|vcf|docx?)\s\([^()]{2,30}\)"
    r"|^[\[［<＜][^<>\[\]]{2,12}(?:省略|생략)[\]］>＞]$",
    re.IGNORECASE,
)
# A place, a poll's first line and its last, and the app's text about a call, under the caller's name.
_PLACE = re.compile(r"^(?:\S+: ?)?https://(?:maps\.google\.com|maps\.app\.goo\.gl|foursquare\.com)/\S+$")
_ASKS, _OPTION = re.compile(r"\w+:"), re.compile(r"\w+: .+ \(\d+ \w+\)")
_CALL = re.compile(
    r"^(?:(?:missed |silenced )?(?:group )?(?:voice|video) call|(?:verpasster )?(?:sprach|video)anruf"
    r"|(?:llamada|videollamada) (?:de voz )?perdida|appel (?:vocal|vidéo) manqué"
    r"|(?:ligação|chamada) de (?:voz|vídeo) perdida|(?:未接)?(?:语音|視訊|視頻|视频|語音)通[话話])"
    r"[,.。，]?(?: \d.{0,20}| .{0,20}\d{2}:\d{2}.{0,5})?$",
    re.IGNORECASE,
)
_DELETED = re.compile(
    r"^(?:this message was deleted|you deleted this message|diese nachricht wurde gelöscht"
    r"|du hast diese nachricht gelöscht|se eliminó este mensaje|eliminaste este mensaje|ce message a été supprimé"
    r"|(?:esta )?mensagem(?: foi)? apagada|(?:você )?apag(?:ou|aste) esta mensagem"
    r"|questo messaggio è stato eliminato|сообщение удалено|삭제된 메시지입니다"
    r"|このメッセージは削除されました|null|此消息已删除|您撤回了一条消息|您已刪除此訊息|此訊息已刪除)[.。]?$",
    re.IGNORECASE,
)
# <This message was edited>
_EDITED = re.compile(
    r"\u200e?<[^<>]{0,80}(?:edited|bearbeitet|editado|modifi|编辑|編輯|수정)[^<>]{0,80}>\s*$", re.IGNORECASE
)
# Of a notice in a language that is not listed above: a few words, exactly the same from several people.
_LONGEST_NOTICE, _WORDS_OF_A_NOTICE, _TIMES, _PEOPLE = 120, 3, 5, 3
# Of a text that does not begin with a message, or has long ones: messages with a name, and lines above the first one.
_MIN_NAMED, _LINES_BEFORE = 4, 10
# Between the name and the message; some languages use a wide colon.
_NAME_ENDS = re.compile(r": |：|:$")


def is_chat(lines: Iterable[str]) -> bool:
    """Return True if two lines or more begin as messages and name a person: of an export that begins with one a third
    of all lines, of any other one in ten, near its beginning, by people who write more than once."""
    heads = [_HEAD.match(line.rstrip("\n")) for line in lines]
    matches = [match for match in heads if match]
    names = Counter(match["rest"][: ends.start()] for match in matches if (ends := _NAME_ENDS.search(match["rest"])))
    if heads and heads[0] and 3 * len(matches) >= len(heads):
        return names.total() >= 2
    # Another app's lines, and those of programs, have a comma after the time.
    is_other = any(match.string[match.start("rest") - 2] == "," for match in matches) or not LEVELS.isdisjoint(
        name.lower() for name in names
    )
    are_people = 2 * len(names) <= names.total() >= _MIN_NAMED and not is_other
    return are_people and 10 * len(matches) >= len(heads) and any(heads[:_LINES_BEFORE])


def messages(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the messages of an export with their line numbers and times, each with the lines that continue it. The
    order of dates is inferred from all of them. Text above the first message is an omission."""
    order = dates.order_of(numbers[:3] for _, _, numbers in _lines(source) if numbers)
    notices = _notices(source)
    current: ExportedMessage | None = None
    more: list[str] = []
    for number, line, numbers in chain(_lines(source), [(0, "", (0, 0, 0, 0, 0, 0))]):  # what ends the last message
        if numbers is None:
            more.append(line)
            continue
        if current:
            yield _complete(current, more, notices)
        elif above := "\n".join(more).strip():
            yield ExportedMessage("", above, omission=Omission("beside", above[:40].split("\n")[0]), line=1)
        more = []
        ends = _NAME_ENDS.search(line)
        person = MARKS.sub("", line[: ends.start()]).strip(" ~\u202f\u00a0") if ends else ""
        # Without a name the app wrote it: somebody joined.
        current = ExportedMessage(
            person, line[ends.end() :] if ends else line, dates.seconds(numbers, order), line=number
        )


def _notices(source: Source) -> set[str]:
    """Return texts that WhatsApp itself writes under people's names, in any language: short lines of three words or
    more that stand in the export at least _TIMES times, under at least _PEOPLE names, always in exactly the same
    spelling, and that are no question. People vary what they repeat."""
    counts = Counter(
        (" ".join(words_of(text)).casefold(), text.strip(), line[: ends.start()])
        for _, line, numbers in _lines(source)
        if numbers and (ends := _NAME_ENDS.search(line)) and len(text := line[ends.end() :]) <= _LONGEST_NOTICE
    )
    return {
        group[0][1]
        # Several spellings of the same words are people's.
        for words, each in groupby(sorted(counts), key=lambda one: one[0])
        if len(words.split()) >= _WORDS_OF_A_NOTICE
        and len(group := [*each]) >= _PEOPLE
        and len({text for _, text, _ in group}) == 1
        and not group[0][1].endswith(("?", "？", "؟"))
        and sum(counts[one] for one in group) >= _TIMES
    }


def _lines(source: Source) -> Iterator[tuple[int, str, dates.Numbers | None]]:
    """Yield (number, text after the date, numbers of the date), or (number, line, None) for a line that continues a
    message."""
    with source.path.open(encoding=source.encoding) as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            match = _HEAD.match(line)
            if match is None:
                yield number, line, None
                continue
            first, second, third, _, hour, minute, second_of, _, rest = match.groups()
            half = match["before"] or match["after"]
            yield (
                number,
                rest,
                (int(first), int(second), int(third), dates.hour_of(int(hour), half), int(minute), int(second_of or 0)),
            )


def _is_poll(text: str) -> bool:
    """Return True for the text of a poll. One pattern for all lines would need quadratic time in a long message."""
    first, _, rest = text.partition("\n")
    question, _, last = rest.rpartition("\n")
    return bool(question and _ASKS.fullmatch(first) and _OPTION.fullmatch(last))


def _complete(message: ExportedMessage, more: list[str], notices: set[str]) -> ExportedMessage:
    """Return the message with its further lines, without marks; calls and what the app wrote (notices among it), media,
    places and polls, and deleted ones are marked as left out."""
    text = "\n".join([message.text, *more]).strip("\n ")
    if not message.person or _CALL.match(text):
        return message._replace(text=text, omission=Omission("chat", "app"))
    # Marks still stand: on iOS U+200E begins what the app writes.
    if _MEDIA.search(text) or _PLACE.match(text) or _is_poll(text):
        return message._replace(text=text, omission=Omission("chat", "media"))
    text = MARKS.sub("", _EDITED.sub("", text)).strip()
    by_app = Omission("chat", "deleted" if _DELETED.match(text) else "app")
    omission = by_app if text in notices or _DELETED.match(text) else omission_of_text(text)
    return message._replace(text=text, omission=omission)
