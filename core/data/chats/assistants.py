"""Conversations with assistants and characters: archives of ChatGPT, DeepSeek, Claude, Grok and Gemini, Claude
Code, SillyTavern, Character.AI.

Each conversation is a thread. ChatGPT stores a tree (`mapping`), Claude a list with `parent_message_uuid`, in which a
regenerated answer is a branch: the newest is used. Anything but text of the person or the assistant (pictures, tools,
hidden instructions) is reported as left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from core.data.chats import dates
from core.data.chats.exported_message import LONGEST_MESSAGE, ExportedMessage, omission_of_text
from core.data.chats.html_text import text_of_html
from core.data.chats.json_stream import objects, text_at
from core.data.reading.file_rows import Limits, Problem, Source, omission_warning
from core.data.reading.json_rows import json_rows, jsonl_rows
from core.data.shapes.left_out import Notes, Omission, has_value
from core.files import JsonObject
from core.values import MIB

YOU = "You"
LARGEST_TALK = 16 * MIB  # bytes, with all branches and results of tools


_Reader = Callable[[JsonObject, str, Notes], Iterator[ExportedMessage]]


def _read_each(source: Source, limits: Limits, read: _Reader) -> Iterator[ExportedMessage | Problem]:
    """Yield the messages that read makes of each JSON object of a file (called with it, its number and its notes), then
    its omissions. Objects larger than limits.row_bytes pass up to LARGEST_TALK; a Problem is passed on."""
    rows = jsonl_rows if source.kind == "jsonl" else json_rows
    # Larger than a row of a dataset may be: what is made of a conversation is cut into rows later.
    for item in rows(source, limits.model_copy(update={"row_bytes": max(limits.row_bytes, LARGEST_TALK)})):
        if isinstance(item, Problem):
            yield item
        elif isinstance(item, Omission):
            yield omission_warning(item, 1)
        elif isinstance(item.value, dict):
            notes = Notes()
            yield from read(item.value, str(item.row), notes)
            yield from (
                ExportedMessage("", "", thread=str(item.row), omission=omission) for omission in notes.omissions
            )


# ---- ChatGPT -------------------------------------------------------------------------------------
_MESSAGE = ("author", "content", "id", "create_time", "update_time", "status", "end_turn", "weight", "recipient")


def chatgpt(source: Source, limits: Limits) -> Iterator[ExportedMessage | Problem]:
    """Yield the messages of ChatGPT's conversations.json, each conversation a thread; of branches, the one open last.

    What is left out (pictures, tools, other branches) follows the messages of its conversation as entries with an
    omission and no text. A Problem of the file is passed on.
    """
    yield from _read_each(source, limits, _chatgpt_messages)


def _chatgpt_messages(conversation: JsonObject, thread: str, notes: Notes) -> Iterator[ExportedMessage]:
    """Yield the messages of the branch that was open last; other branches with text, and what is no text, are noted as
    omissions. Nothing for a conversation without a mapping."""
    nodes = conversation.get("mapping")
    notes.add_unread("column", conversation, ("mapping", "current_node"))
    if not isinstance(nodes, dict):
        return
    nodes = {id: node for id, node in nodes.items() if isinstance(node, dict)}
    branch = list(_branch(nodes, conversation.get("current_node")))
    # With notes of their own: what branches that are not read would leave out is not counted.
    if any(_chatgpt_text(node.get("message"), Notes()) for id, node in nodes.items() if id not in branch):
        notes.add_omission("branch")
    for id in branch:
        if role_and_text := _chatgpt_text(message := nodes[id].get("message"), notes):
            role, text = role_and_text
            person = YOU if role == "user" else "ChatGPT"
            yield ExportedMessage(person, text, _time(message), thread, is_model=role != "user")


# ---- DeepSeek ------------------------------------------------------------------------------------


def deepseek(source: Source, limits: Limits) -> Iterator[ExportedMessage | Problem]:
    """Yield the messages of an account's export of DeepSeek, each conversation a thread, with the file's problems; of
    branches the one with the newest message."""
    yield from _read_each(source, limits, _deepseek_messages)


def _deepseek_messages(conversation: JsonObject, thread: str, notes: Notes) -> Iterator[ExportedMessage]:
    """Yield requests and answers on the branch that ends with the newest message; other branches, and parts such as
    thinking, are noted as omissions."""
    tree = conversation.get("mapping")
    nodes = {id: node for id, node in tree.items() if isinstance(node, dict)} if isinstance(tree, dict) else {}
    # No field names the open message, as ChatGPT's does.
    branch = list(_branch(nodes, None))
    if any(node.get("message") for id, node in nodes.items() if id not in branch):
        notes.add_omission("branch")
    for id in branch:
        message = nodes[id].get("message")
        fragments = message.get("fragments") if isinstance(message, dict) else None
        # An answer has other fragments too, such as THINK.
        for part in fragments if isinstance(fragments, list) else ():
            kind, text = (part.get("type"), part.get("content")) if isinstance(part, dict) else (None, None)
            if kind in ("REQUEST", "RESPONSE") and isinstance(text, str) and text.strip():
                person = YOU if kind == "REQUEST" else "DeepSeek"
                yield ExportedMessage(person, text, _time(message), thread, is_model=kind == "RESPONSE")
            elif has_value(text):
                notes.add_omission("message", str(kind))


def _branch(nodes: Mapping[str, JsonObject], last: object) -> list[str]:
    """Return the ids from a tree's first message to `last`; if no node has that id, to the newest message that nothing
    answers. [] for an empty tree."""
    if not isinstance(last, str) or last not in nodes:
        leaves = [id for id, node in nodes.items() if not node.get("children")]
        last = max(leaves, key=lambda id: _time(nodes[id].get("message")) or 0.0, default=None)
    path: dict[str, None] = {}
    # A damaged file may name a message among its own parents, so each id is followed once.
    while isinstance(last, str) and last in nodes and last not in path:
        path[last] = None
        last = nodes[last].get("parent")
    return list(path)[::-1]


def _time(message: object) -> float | None:
    """Return the time of a message of ChatGPT or DeepSeek in seconds since 1970; None if it has none."""
    if not isinstance(message, dict):
        return None
    written = message.get("create_time", message.get("inserted_at"))
    return dates.parse_iso(written) if isinstance(written, str) else dates.stamp_to_seconds(written)


def _chatgpt_text(message: object, notes: Notes) -> tuple[str, str] | None:
    """Return (role, text) of a written message of the user or the assistant; None for all others, which are noted, and
    for an empty one."""
    if not isinstance(message, dict):
        return None
    author, content = message.get("author"), message.get("content")
    role = author.get("role") if isinstance(author, dict) else None
    kind = content.get("content_type") if isinstance(content, dict) else None
    parts = content.get("parts") if isinstance(content, dict) else None
    # The app's own messages to the model, which its page does not show.
    hidden = isinstance(data := message.get("metadata"), dict) and data.get("is_visually_hidden_from_conversation")
    if (
        role not in ("user", "assistant")
        or kind not in ("text", "multimodal_text")
        or not isinstance(parts, list)
        or hidden
    ):
        if has_value(content):
            notes.add_omission("message", str(kind if role in ("user", "assistant") and not hidden else role))
        return None
    for part in parts:
        if has_value(part) and not isinstance(part, str):
            notes.add_omission("message", str(part.get("content_type")) if isinstance(part, dict) else "part")
    notes.add_unread("field", message, _MESSAGE)
    text = "\n".join(part for part in parts if isinstance(part, str)).strip()
    return (role, text) if text else None


# ---- Claude --------------------------------------------------------------------------------------
_CLAUDE_MESSAGE = ("sender", "content", "text", "uuid", "created_at", "updated_at", "parent_message_uuid")


def claude(source: Source, limits: Limits) -> Iterator[ExportedMessage | Problem]:
    """Yield the messages of an archive of Claude, each conversation a thread, with the file's problems; of branches the
    newest."""
    yield from _read_each(source, limits, _claude_messages)


def _claude_messages(conversation: JsonObject, thread: str, notes: Notes) -> Iterator[ExportedMessage]:
    """Yield the messages of the newest branch with their times; what is not text is noted."""
    messages = conversation.get("chat_messages")
    notes.add_unread("column", conversation, ("chat_messages",))
    for message in _on_newest_branch(messages, notes) if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            notes.add_omission("message", "part")
            continue
        text = "\n".join(_claude_parts(message.get("content"), notes)).strip() or message.get("text")
        notes.add_unread("field", message, _CLAUDE_MESSAGE)
        is_model, when = message.get("sender") == "assistant", dates.parse_iso(message.get("created_at"))
        if message.get("sender") not in ("human", "assistant"):
            notes.add_omission("message", str(message.get("sender")))
        elif isinstance(text, str) and text.strip():
            yield ExportedMessage("Claude" if is_model else YOU, text.strip(), when, thread, is_model=is_model)


def claude_code(source: Source, limits: Limits) -> Iterator[ExportedMessage | Problem]:
    """Yield the texts of sessions of Claude Code; calls of tools, their results and side talks are left out."""
    yield from _read_each(source, limits, _claude_code_message)


def _claude_code_message(entry: JsonObject, _line: str, notes: Notes) -> Iterator[ExportedMessage]:
    """Yield the message of a line of Claude Code's log, its session the thread; those of subagents and of the app
    itself are marked as left out, a line without message is noted."""
    message = entry.get("message")
    if not isinstance(message, dict):
        notes.add_omission("message", str(entry.get("type")))
        return
    content, is_model = message.get("content"), message.get("role") == "assistant"
    text = content if isinstance(content, str) else "\n".join(_claude_parts(content, notes))
    if text.strip():
        # Sidechains are of subagents, meta lines of the program.
        is_beside = entry.get("isSidechain") is True or entry.get("isMeta") is True
        omission = Omission("chat", "app") if is_beside else omission_of_text(text)
        person, when = "Claude" if is_model else YOU, dates.parse_iso(entry.get("timestamp"))
        yield ExportedMessage(person, text.strip(), when, str(entry.get("sessionId")), omission, is_model=is_model)


# ---- Grok ----------------------------------------------------------------------------------------
# <grok:render card_id="1"><a>1</a></grok:render>
_GROK_CARD = re.compile(r"<grok:render\b[^<]*(?:<(?!/?grok:render)[^<]*)*</grok:render>")


def grok(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the messages of an account's export of Grok, each conversation a thread, without times. Marks of pictures
    and links are removed from the texts; each generated picture or film is an omission."""
    for number, (_, conversation) in enumerate(objects(source, "conversations.item"), 1):
        listed = conversation.get("responses")
        for response in listed if isinstance(listed, list) else ():
            message = response.get("response") if isinstance(response, dict) else None
            sender, text = text_at(message, "sender").lower(), _GROK_CARD.sub("", text_at(message, "message"))
            is_model = sender not in ("human", "user")
            omission = (
                omission_of_text(text) if sender in ("human", "user", "assistant") else Omission("message", sender)
            )
            yield ExportedMessage(
                "Grok" if is_model else YOU, text.strip(), None, str(number), omission, is_model=is_model
            )
    yield from (
        ExportedMessage("", "", omission=Omission("chat", "media")) for _ in objects(source, "media_generations.item")
    )


# ---- Gemini --------------------------------------------------------------------------------------
def gemini(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the prompts in a list of Google's activities (Takeout), each with its answer: a conversation of its own, as
    nothing says which belong together. Activities without an answer, and attached files, are marked as left out."""
    for number, (_, activity) in enumerate(objects(source, "item"), 1):
        parts = activity.get("safeHtmlItem")
        answers = [text_at(part, "html") for part in parts] if isinstance(parts, list) else []
        # The title: "Prompted Why is the sky blue?"
        question, thread = text_at(activity, "title").removeprefix("Prompted "), str(number)
        if not any(answers):
            yield ExportedMessage(YOU, question, None, thread, Omission("chat", "app"))
            continue
        if has_value(activity.get("attachedFiles")):
            yield ExportedMessage(YOU, "", None, thread, Omission("chat", "media"))
        yield ExportedMessage(YOU, question, None, thread, omission_of_text(question))
        # Bounded before the HTML is parsed.
        text, _ = text_of_html("".join(answers)[:LONGEST_MESSAGE])
        yield ExportedMessage("Gemini", text, None, thread, omission_of_text(text), is_model=True)


def _on_newest_branch(messages: list[object], notes: Notes) -> list[object]:
    """Return the messages from the first one to the newest, without other branches, which are noted as one omission.
    All messages stay if no message has two answers, or if ids are missing."""
    known = [message for message in messages if isinstance(message, dict)]
    nodes = {str(message.get("uuid")): {"parent": message.get("parent_message_uuid")} for message in known}
    parents = [parent for node in nodes.values() if isinstance(parent := node["parent"], str)]
    # If no message has two answers there is one branch, and the file's order is right.
    if len(set(parents)) == len(parents) or len(nodes) < len(messages):
        return messages
    # Of messages of one time, the last in the file.
    newest = max(enumerate(known), key=lambda item: (dates.parse_iso(item[1].get("created_at")) or 0.0, item[0]))[1]
    branch = set(_branch(nodes, str(newest.get("uuid"))))
    notes.add_omission("branch")
    return [message for message in known if str(message.get("uuid")) in branch]


def _claude_parts(content: object, notes: Notes) -> Iterator[str]:
    """Yield the texts among the parts of a message's content; other parts are noted."""
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            yield part["text"]
        elif has_value(part):
            notes.add_omission("message", str(part.get("type")) if isinstance(part, dict) else "part")


# ---- SillyTavern ---------------------------------------------------------------------------------
_TAVERN = ("name", "is_user", "is_system", "is_name", "send_date", "mes", "extra", "swipe_id", "swipe_info",
    "gen_started",
           "gen_finished", "gen_id", "title", "force_avatar", "original_avatar", "api", "model")  # fmt: skip


def tavern(source: Source, limits: Limits) -> Iterator[ExportedMessage | Problem]:
    """Yield a character's chat: the first line describes the chat, each other is a message. Of several `swipes` the
    shown one is used."""
    yield from _read_each(source, limits, _tavern_message)


def _tavern_message(message: JsonObject, _line: str, notes: Notes) -> Iterator[ExportedMessage]:
    """Yield the message of a line of SillyTavern's log, with the reply that was shown; others to choose from are noted,
    lines of the app marked as left out, a line without text or name is skipped."""
    text, name = message.get("mes"), message.get("name")
    if not isinstance(text, str) or not isinstance(name, str):
        return
    when = _parse_date(message.get("send_date"))
    if message.get("is_system") is True:
        yield ExportedMessage(name, text, when, omission=Omission("chat", "app"))
        return
    # Answers to choose from; `mes` is the one shown.
    swipes = message.get("swipes")
    if isinstance(swipes, list) and len(swipes) > 1:
        notes.add_omission("branch")
    notes.add_unread("field", message, (*_TAVERN, "swipes"))
    yield ExportedMessage(
        name, text.strip(), when, omission=omission_of_text(text), is_model=message.get("is_user") is False
    )


def _parse_date(value: object) -> float | None:
    """Parse "2023-11-6 @12h 34m 56s", "June 19, 2023 2:20pm", ISO 8601, or milliseconds since 1970 to seconds since
    1970; None for anything else."""
    if isinstance(value, int | float):
        return dates.stamp_to_seconds(value, 1000)
    if not isinstance(value, str):
        return None
    # Milliseconds, which some versions add after the seconds, are cut off.
    forms: Iterable[str] = ("%Y-%m-%d @%Hh %Mm %Ss", "%Y-%m-%d@%Hh%Mm%Ss", "%B %d, %Y %I:%M%p")
    for form in forms:
        try:
            return (
                datetime.strptime(value.rsplit(" ", 1)[0] if value.endswith("ms") else value, form)
                .replace(tzinfo=UTC)
                .timestamp()
            )
        except ValueError:
            continue
    return dates.parse_iso(value)


# ---- Character.AI --------------------------------------------------------------------------------
def character_ai(source: Source, limits: Limits) -> Iterator[ExportedMessage]:
    """Yield the turns of a chat as its server sends them, with several answers each (`candidates`), in order of time.
    Of several answers the chosen one is yielded, the others as an omission."""
    turns = [
        turn
        for place in ("turns.item", "item")
        for _, turn in objects(source, place)
        if isinstance(turn.get("candidates"), list)
    ]
    for turn in sorted(turns, key=lambda turn: dates.parse_iso(turn.get("create_time")) or 0.0):
        author = turn["author"] if isinstance(turn.get("author"), dict) else {}
        answers = [one for one in turn["candidates"] if isinstance(one, dict)]
        chosen = next(
            (one for one in answers if one.get("candidate_id") == turn.get("primary_candidate_id")),
            (answers or [{}])[0],
        )
        name, when = str(author.get("name") or "?"), dates.parse_iso(turn.get("create_time"))
        text = str(chosen.get("raw_content") or "").strip()
        yield ExportedMessage(
            name, text, when, omission=omission_of_text(text), is_model=author.get("is_human") is not True
        )
        if len(answers) > 1:
            # Notes that other answers were left out.
            yield ExportedMessage(name, "", when, omission=Omission("branch"))
