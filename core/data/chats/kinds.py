"""The app that exported a chat, recognized by the export's contents, and the properties of each app's exports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from core.data.chats import assistants, dates, irc, message_rows, messengers, whatsapp
from core.data.chats.exported_message import LONGEST_MESSAGE, ExportedMessage
from core.data.chats.json_stream import OPENING, keys_in
from core.data.reading.file_rows import Limits, Problem, Readable, Source
from core.data.reading.suffixes import FileKind
from core.data.shapes.left_out import Omission

_LISTS = ("item", "value.item")  # of messages: the file itself, or an answer of Microsoft Graph
_LOOKED_AT = 200  # lines, to distinguish a chat from another text


class Kind(NamedTuple):
    """Properties of an app's exports.

    by_silence: a silence begins a new conversation, if times are known; otherwise the export marks where each ends.
    among_people: the others are people too, whose names are replaced by default.
    """

    name: str  # the app's usual name; "" for a table or a log of any program
    messages: Callable[[Source, Limits], Iterator[ExportedMessage | Problem] | Iterator[ExportedMessage]]
    by_silence: bool = True
    among_people: bool = True


KINDS = {
    "whatsapp": Kind("WhatsApp", whatsapp.messages),
    "telegram": Kind("Telegram", messengers.telegram),
    "discord": Kind("Discord", messengers.discord),
    "discord_csv": Kind("Discord", messengers.discord_csv),
    "meta": Kind("Instagram, Facebook", messengers.meta),
    "slack": Kind("Slack", messengers.slack),
    "signal": Kind("Signal", messengers.signal),
    "teams": Kind("Microsoft Teams, Skype", messengers.teams),
    "chatgpt": Kind("ChatGPT", assistants.chatgpt, False, False),
    "deepseek": Kind("DeepSeek", assistants.deepseek, False, False),
    "claude": Kind("Claude", assistants.claude, False, False),
    "claude_code": Kind("Claude Code", assistants.claude_code, False, False),
    "grok": Kind("Grok", assistants.grok, False, False),
    "gemini": Kind("Gemini", assistants.gemini, False, False),
    "tavern": Kind("SillyTavern", assistants.tavern, False, False),
    "character_ai": Kind("Character.AI", assistants.character_ai, False, False),
    "irc": Kind("IRC", irc.messages),
    "log": Kind("", irc.messages),
    "roles": Kind("", message_rows.messages, among_people=False),
    "names": Kind("", message_rows.messages),
}


def messages(source: Source, limits: Limits) -> Iterator[ExportedMessage | Problem]:
    """Yield the messages of all files of a source; threads of different files are different,
    except of Slack's days in one folder. Messages longer than LONGEST_MESSAGE are left out, as an omission."""
    for part in source.parts or (source,):
        # Slack writes a file for each day into the channel's folder; any other file is a channel of its own.
        is_of_day = source.chat == "slack" and dates.parse_iso(part.path.stem) is not None
        prefix = PurePosixPath(part.path.name).parent if is_of_day else part.path.name
        for item in KINDS[source.chat].messages(part, limits):
            if isinstance(item, ExportedMessage) and len(item.text) > LONGEST_MESSAGE:
                item = item._replace(text="", omission=Omission("chat", "long"))
            yield (
                item._replace(thread=f"{prefix}/{item.thread}")
                if source.parts and isinstance(item, ExportedMessage)
                else item
            )


def recognize(path: Readable, kind: FileKind, encoding: str) -> str:
    """Return the app (a name of KINDS) that exported a file, by the file's opening; "" for a file that is no chat."""
    if kind not in ("txt", "csv", "json", "jsonl"):
        return ""
    with path.open(encoding=encoding, errors="replace") as file:
        if kind == "txt":
            # Bounded: a text may be one line of 2 GiB.
            lines = [file.readline(4096) for _ in range(_LOOKED_AT)]
            # First, as "[12.03.24, 21:14:05] Anna: Hi" fits a log too.
            is_whatsapp = whatsapp.is_chat([line for line in lines if line.strip()])
            return "whatsapp" if is_whatsapp else irc.recognize(lines)
        head = file.read(OPENING)
    if kind == "csv":
        names = {
            # The delimiter is not known yet; no name holds one.
            name.strip('" \r\ufeff').lower()
            for name in head.partition("\n")[0].replace(";", ",").replace("\t", ",").split(",")
        }
        return "discord_csv" if set(messengers.DISCORD_COLUMNS[:4]) <= names else ""
    return _app_of_keys(keys_in(head, kind == "jsonl"))


def _app_of_keys(keys: set[str]) -> str:
    """Return the app whose export has these paths of keys, the first that matches; "" for no chat."""

    def has_keys(*names: str) -> bool:
        """Return True if the export has all of these paths of keys."""
        return keys.issuperset(names)

    def has_any_of(names: Iterable[str]) -> bool:
        """Return True if the export has at least one of these paths of keys."""
        return not keys.isdisjoint(names)

    # Before ChatGPT, whose `mapping` DeepSeek's export has too.
    if any(key.endswith("fragments.item.type") for key in keys):
        return "deepseek"
    if has_any_of(("item.mapping", "mapping")):
        return "chatgpt"
    if has_any_of(("item.chat_messages", "chat_messages")):
        return "claude"
    if has_keys("sessionId", "parentUuid", "message.role"):
        return "claude_code"
    if has_keys(
        "conversations.item.responses.item.response.sender", "conversations.item.responses.item.response.message"
    ):
        return "grok"
    if has_keys("item.title", "item.time", "item.safeHtmlItem.item.html"):
        return "gemini"
    if any(
        has_keys(*(f"{place}.{name}" for name in ("messageType", "createdDateTime", "body.content")))
        for place in _LISTS
    ):
        return "teams"
    # An account's own export; above, what Microsoft Graph lists.
    if has_keys("conversations.item.MessageList.item.messagetype", "conversations.item.MessageList.item.content"):
        return "teams"
    if has_keys("mes", "is_user"):
        return "tavern"
    if has_any_of(f"{place}.candidates.item.raw_content" for place in ("turns.item", "item")):
        return "character_ai"
    if has_keys("messages.item.author.id", "messages.item.timestamp", "messages.item.content"):
        return "discord"
    if has_keys("date", "sender", "body") and has_any_of(("reactions", "attachments.item", "quote")):
        return "signal"
    if has_keys("messages.item.sender_name", "messages.item.timestamp_ms"):
        return "meta"
    for place in ("messages.item", "chats.list.item.messages.item"):
        if has_keys(f"{place}.date") and has_any_of(
            f"{place}.{name}" for name in ("from_id", "actor_id", "date_unixtime")
        ):
            return "telegram"
    return "slack" if has_keys("item.ts", "item.type", "item.text") and has_any_of(("item.user", "item.bot_id")) else ""
