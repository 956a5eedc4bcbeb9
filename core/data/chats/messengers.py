"""Reads exports of messengers.

Telegram's result.json, Discord by DiscordChatExporter (JSON and CSV), a Slack channel's JSON, Instagram's and
Facebook's message_1.json, Signal by signal-export, Microsoft Teams and Skype.
"""

from __future__ import annotations

import csv
import html
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from core.data.chats import dates
from core.data.chats.exported_message import LONGEST_MESSAGE, ExportedMessage, omission_of_text
from core.data.chats.html_text import text_of_html
from core.data.chats.json_stream import objects, text_at
from core.data.reading.file_rows import Limits, Problem, RawRow, Source
from core.data.reading.json_rows import jsonl_rows
from core.data.shapes.left_out import Omission, has_value
from core.files import JsonObject

APP, MEDIA = Omission("chat", "app"), Omission("chat", "media")
FORWARDED = Omission("chat", "forwarded")


def _split_media(message: ExportedMessage, has_media: bool) -> Iterator[ExportedMessage]:
    """Yield an omission in place of a message's media, if it has any, then the message, unless it has media and no
    text.

    The message's omission is set anew: "deleted" for an empty text, "link" for a bare link, else None.
    """
    if has_media:
        yield message._replace(text="", omission=MEDIA)
    if message.text or not has_media:
        yield message._replace(omission=omission_of_text(message.text))


# ---- Telegram ------------------------------------------------------------------------------------
_PICTURES = ("photo", "file", "media_type", "sticker_emoji", "poll", "location_information", "contact_information")


def telegram(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the messages of one chat ("messages"), or of all of them ("chats": {"list": [...]})."""
    for _, message in objects(source, "messages.item"):
        yield from _telegram_message(message, "")
    for chat, message in objects(source, "chats.list.item.messages.item", "chats.list.item.id"):
        yield from _telegram_message(message, chat)


def _telegram_message(message: Mapping[str, object], thread: str) -> Iterator[ExportedMessage]:
    """Yield the message, its media as an omission; those of the service and forwarded ones are marked as left out."""
    # A deleted account has only an id.
    person = text_at(message, "from", "actor") or str(message.get("from_id") or "")
    stamp = message.get("date_unixtime")
    # Older exports have the local `date` alone.
    when = float(stamp) if isinstance(stamp, str) and stamp.isdecimal() else dates.parse_iso(message.get("date"))
    text = join_runs(message.get("text")).strip()
    if message.get("type") == "service" or not person:
        yield ExportedMessage(person, text, when, thread, APP)
    elif has_value(message.get("forwarded_from")):
        yield ExportedMessage(person, text, when, thread, FORWARDED)
    else:
        yield from _split_media(
            ExportedMessage(person, text, when, thread), any(has_value(message.get(name)) for name in _PICTURES)
        )


def join_runs(text: object) -> str:
    """Return a text, joined from its runs: plain ones, and objects for bold text, links and mentions; "" for anything
    else."""
    if isinstance(text, list):
        return "".join(
            run if isinstance(run, str) else str(run.get("text", "")) if isinstance(run, dict) else "" for run in text
        )
    return text if isinstance(text, str) else ""


# ---- Discord -------------------------------------------------------------------------------------
_WRITTEN_BY_PEOPLE = ("Default", "Reply", "19", "0")  # types of messages, by name or by Discord's own numbers


def discord(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the messages of a channel's JSON, media as omissions; those of bots and of Discord itself are marked as
    left out."""
    for _, message in objects(source, "messages.item"):
        author = message.get("author")
        person = text_at(author, "nickname", "name") or str(author.get("id") if isinstance(author, dict) else "")
        when, text = dates.parse_iso(message.get("timestamp")), text_at(message, "content")
        is_bot = isinstance(author, dict) and author.get("isBot") is True
        if is_bot or str(message.get("type", "Default")) not in _WRITTEN_BY_PEOPLE:
            yield ExportedMessage(person, text, when, omission=APP)
            continue
        yield from _split_media(
            ExportedMessage(person, text, when),
            any(has_value(message.get(name)) for name in ("attachments", "stickers")),
        )


DISCORD_COLUMNS = ("authorid", "author", "date", "content", "attachments", "reactions")


def discord_csv(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the messages of a CSV export, attachments as omissions; line is the line of the file in which a record
    begins. Dates are ISO 8601, or in older exports the PC's format, whose order is inferred from all rows."""
    order = dates.order_of(
        numbers[:3] for _, record in _records(source) if (numbers := dates.numbers_in(record["date"]))
    )
    for line, record in _records(source):
        when = dates.moment(record["date"], order)
        # Discord put a number after each name (anna#0412) until names had to be unique.
        person = re.sub(r"#(?:\d{4}|0)$", "", record["author"]).strip()
        if record["attachments"].strip():
            yield ExportedMessage(person, "", when, omission=MEDIA, line=line)
        if record["content"].strip() or not record["attachments"].strip():
            yield ExportedMessage(
                person,
                record["content"].strip(),
                when,
                omission=omission_of_text(record["content"]) if person else APP,
                line=line,
            )


def _records(source: Source) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the records of Discord's CSV with their first lines, by its columns in lower case, "" for those that the
    file lacks."""
    with source.path.open(encoding=source.encoding) as file:  # line ends become \n, in cells too
        records = csv.reader(file, delimiter=source.delimiter or ",")
        names = [name.strip().strip("\ufeff").lower() for name in next(records, [])]
        line = records.line_num + 1
        for record in records:
            yield line, dict.fromkeys(DISCORD_COLUMNS, "") | dict(zip(names, record, strict=False))
            line = records.line_num + 1


# ---- Instagram, Facebook -------------------------------------------------------------------------
_META_REACTION = re.compile(r"Reacted \S+ to your message|Liked a message")
_META_MEDIA = ("photos", "videos", "audio_files", "gifs", "sticker", "files", "share")


def meta(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield messages in order of time, media, reactions and the app's own sentences as omissions; the file has the
    newest first, and each byte of UTF-8 as a character of Latin-1."""
    messages = [
        (dates.stamp_to_seconds(message.get("timestamp_ms"), 1000), message)
        for _, message in objects(source, "messages.item")
    ]
    people: defaultdict[str, set[str]] = defaultdict(set)
    for _, message in messages:
        if words := _after_own_name(message):
            people[words].add(text_at(message, "sender_name"))
    for when, message in sorted(messages, key=lambda each: each[0] or 0.0):
        person, text = _fix_latin1(text_at(message, "sender_name")), _fix_latin1(text_at(message, "content"))
        has_media = any(has_value(message.get(name)) for name in _META_MEDIA)
        if has_media:
            yield ExportedMessage(person, "", when, omission=MEDIA)
        if text or not has_media:
            is_app = not person or has_value(message.get("users")) or _META_REACTION.fullmatch(text) is not None
            is_app = is_app or len(people.get(_after_own_name(message), ())) > 1
            yield ExportedMessage(person, text, when, omission=APP if is_app else omission_of_text(text))


def _after_own_name(message: JsonObject) -> str:
    """Return the words of a message after its sender's first name, with which it begins, without signs; "" for others.
    Where several people have the same, the app wrote it: "Ana reacted ❤ to your message", in any language."""
    name, text = (re.findall(r"\w+", _fix_latin1(text_at(message, key))) for key in ("sender_name", "content"))
    return " ".join(text[1:]) if name[:1] == text[:1] else ""


def _fix_latin1(text: str) -> str:
    """Return a text whose bytes of UTF-8 were written as characters of Latin-1; any other text as it is."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


# ---- Slack ---------------------------------------------------------------------------------------
_SLACK_WRITTEN = ("", "thread_broadcast", "me_message", "file_share", "file_comment", "reply_broadcast")
_SLACK_MARK = re.compile(r"<([@#!]?)([^<>|]+)(?:\|([^<>]*))?>")


def slack(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the messages of one file of a channel, marks as text, files as omissions; those of bots and of Slack are
    marked as left out. Names are those of users.json, else of the messages' profiles, else ids."""
    # Read twice: a name may only occur after the messages that need it.
    names = {
        user: name
        for _, message in objects(source, "item")
        if (known := _slack_name(message))
        for user, name in [known]
    }
    names |= source.people
    for _, message in objects(source, "item"):
        user = text_at(message, "user", "bot_id")
        person, when = names.get(user, user), dates.moment(message.get("ts"), "dmy")
        text = html.unescape(_SLACK_MARK.sub(lambda match: _slack_mark(match, names), text_at(message, "text")))
        if not user or text_at(message, "bot_id") or text_at(message, "subtype") not in _SLACK_WRITTEN:
            yield ExportedMessage(person, text, when, omission=APP)
            continue
        yield from _split_media(ExportedMessage(person, text, when), has_value(message.get("files")))


SLACK_USERS = "users.json"


def slack_users(users: object) -> dict[str, str]:
    """Return {id: name} of a workspace's people; those without either are skipped. users: a list of them, an object of
    them by id, or the answer of Slack's API ("members")."""
    if isinstance(users, dict):
        users = users.get("members") or [{"id": id, **user} for id, user in users.items() if isinstance(user, dict)]
    listed = [user for user in users if isinstance(user, dict)] if isinstance(users, list) else []
    names = {
        text_at(user, "id"): text_at(user.get("profile"), "display_name", "real_name")
        or text_at(user, "real_name", "name")
        for user in listed
    }
    return {id: name for id, name in names.items() if id and name}


def _slack_name(message: Mapping[str, object]) -> tuple[str, str] | None:
    """Return (id, name) of a message's author by its profile; None if it has none."""
    user, name = text_at(message, "user"), text_at(message.get("user_profile"), "display_name", "real_name", "name")
    return (user, name) if user and name else None


def _slack_mark(match: re.Match[str], names: dict[str, str]) -> str:
    """Return the text of a mark: "@name" for a person <@U1>, "#name" for a channel <#C1|name>, "@here" for <!here>, the
    words (else the address) of a link <https://a|words>."""
    sign, target, label = match.groups()
    if sign == "@":
        return "@" + names.get(target, label or target)
    return f"{sign.replace('!', '@')}{label or target}" if sign else (label or target)


# ---- Microsoft Teams, Skype ----------------------------------------------------------------------
_TEAMS_WRITTEN = ("message", "text", "richtext", "richtext/html")


def teams(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield messages by chat and time, the oldest first: of an account's export (MessageList), or of a list of
    Microsoft Graph's."""
    messages = [
        each
        for place, thread in (
            ("conversations.item.MessageList.item", "conversations.item.id"),
            ("item", ""),
            ("value.item", ""),
        )
        # A file has one of these places; the others yield nothing.
        for chat, message in objects(source, place, thread)
        for each in _teams_messages(message, chat)
    ]
    yield from sorted(messages, key=lambda exported: (exported.thread, exported.when or 0.0))


def _teams_messages(message: Mapping[str, object], thread: str) -> Iterator[ExportedMessage]:
    """Yield the message of Teams' export or of its API as text with its chat as thread; those of the app are marked as
    left out, media yielded as omissions."""
    body, author = message.get("body"), message.get("from")
    user = author.get("user") if isinstance(author, dict) else None
    person = text_at(user, "displayName", "id") or text_at(message, "imdisplayname", "displayName", "from")
    text, has_media = text_of_html((text_at(body, "content") or text_at(message, "content"))[:LONGEST_MESSAGE])
    when = dates.parse_iso(text_at(message, "createdDateTime", "originalarrivaltime", "composetime"))
    exported = ExportedMessage(
        # An author may be the address of a contact, which ends in the id.
        person.rpartition("/")[2],
        text,
        when,
        thread or text_at(message, "chatId") or text_at(message.get("channelIdentity"), "channelId"),
    )
    kind = text_at(message, "messageType", "messagetype").lower()
    if kind not in _TEAMS_WRITTEN or not person:
        # Skype's kinds of pictures, films and files: RichText/UriObject and others.
        yield exported._replace(omission=MEDIA if kind.startswith("richtext/") else APP)
    else:
        yield from _split_media(exported, has_media or has_value(message.get("attachments")))


# ---- Signal --------------------------------------------------------------------------------------
def signal(source: Source, limits: Limits) -> Iterator[ExportedMessage | Problem]:
    """Yield the messages of signal-export's data.json in order of time, media as omissions, after the file's
    problems."""
    messages: list[ExportedMessage] = []
    for item in jsonl_rows(source, limits):
        if isinstance(item, Problem):
            yield item
        elif isinstance(item, RawRow) and isinstance(message := item.value, dict):
            exported = ExportedMessage(
                text_at(message, "sender"),
                text_at(message, "body"),
                dates.parse_iso(message.get("date")),
                line=item.line,
            )
            messages += _split_media(exported, any(has_value(message.get(name)) for name in ("attachments", "sticker")))
    yield from sorted(messages, key=lambda exported: exported.when or 0.0)
