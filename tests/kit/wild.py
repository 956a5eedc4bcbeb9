"""Data as people have it: every shape that docs/data.md describes, as a small file, and what is learned of it.

becomes: one text per example, its messages joined by " | " with the first letter of their roles; a text alone as it is;
a prompt before " > " and its completion. If it is one text, the file is refused with a sentence that contains it. left:
names of what is reported as left out.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.kit.office import ods, xlsx, zipped


class Shape(NamedTuple):
    file: str
    content: Any  # bytes, a text, or what is written as JSON; a list of Lines as JSON Lines
    becomes: list[str] | str
    left: tuple[str, ...] = ()


class Lines(list[Any]):
    pass


def written(shape: Shape) -> bytes:
    content = shape.content
    if isinstance(content, Lines):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    return (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )


U, A, B = (
    {"role": role, "content": text} for role, text in (("user", "Why?"), ("assistant", "So."), ("assistant", "No."))
)
S = {"role": "system", "content": "Be brief."}
PAIR = ["u Why? | a So."]
HUMAN, GPT = {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
SHEET = {"Fragen": [["Frage", "Antwort", "Nr"], ["Why?", "So.", 1]]}
BOOK = "It was a long day and nobody came by. " * 900
SUBMITTED = {"user_id": "u", "status": "submitted"}
INFO = {"mine": {"file_name": "mine.json", "columns": {"prompt": "q", "response": "a"}}}
ANDROID = (
    "12/03/2025, 21:14 - Messages are end-to-end encrypted.\n12/03/2025, 21:14 - Maria: Why?\n12/03/2025, 21:15 "
    "- Jo: So.\n12/03/2025, 21:16 - Maria: <Media omitted>\n"
)
IOS = (
    "[12.03.25, 21:14:10] Maria: Hallo\n\u200e[12.03.25, 21:14:40] Maria: \u200eBild weggelassen\n[12.03.25, "
    "21:15:10] Jo: So.\nund so.\n"
)


def slack(user: str, text: str, ts: int) -> dict[str, Any]:
    return {"type": "message", "user": user, "text": text, "ts": f"{ts}.0", "user_profile": {"real_name": user}}


def meta(who: str, text: str, minute: int, **more: Any) -> dict[str, Any]:
    return {"sender_name": who, "timestamp_ms": 1741813200000 + 60000 * minute, "content": text, **more}


# What was once taken wrongly without a word.
SILENT = {
    "a book in one line": Shape("book.txt", BOOK, [BOOK[:15998].strip(), BOOK[15998:31996].strip(),
        BOOK[31996:].strip()]),
    "thinking beside an answer": Shape("a.jsonl", Lines([{"messages": [U, A | {"reasoning_content": "Hm."}]}]),
        ["u Why? | a (Hm.) So."]),
    "pictures": Shape("a.jsonl", Lines([{"messages": [{"role": "user", "content": "<image>Why?"}, A],
        "images": ["a.png"]}, {"messages": [U, A]}]), PAIR),
    "parts with a picture": Shape("a.jsonl", Lines([{"messages": [{"role": "user", "content": [{"type": "image_url",
        "image_url": {"url": "x"}}]}, A]}, {"messages": [U, A]}]), PAIR),
    "preferences after a conversation": Shape("a.json", [{"conversations": [HUMAN], "chosen": GPT,
        "rejected": {"from": "gpt", "value": "No."}}], PAIR, ("rejected",)),
    "preferences of OpenAI": Shape("a.jsonl", Lines([{"input": {"messages": [U]}, "preferred_output": [A],
        "non_preferred_output": [B]}]), PAIR, ("non_preferred_output",)),
    "preferences by other names": Shape("a.jsonl", Lines([{"prompt": "Why?", "rejected": "It rained, I think.",
        "accepted": "So."}]), PAIR, ("rejected",)),
    "the better one by its number": Shape("a.jsonl", Lines([{"prompt": "Why?", "response_0": "No.", "response_1": "So.",
        "better_response_id": 1}]), PAIR, ("rejected",)),
    "answers marked as good or bad": Shape("a.jsonl", Lines([{"messages": [U, A], "label": True}, {"messages": [U, B],
        "label": False}]), PAIR, ("",)),
    "an answer of weight 0": Shape("a.jsonl", Lines([{"messages": [U, B | {"weight": 0}, U, A]}]),
        ["u Why? | a0 No. | u Why? | a So."]),
    "an answer not to be trained": Shape("a.jsonl", Lines([{"conversations": [{**HUMAN, "train": False}, {"from": "gpt",
        "value": "No.", "train": False}, HUMAN, {**GPT, "train": True}]}, {"messages": [U, B | {"loss": False}, U,
        A | {"loss": True}]}]), ["u Why? | a0 No. | u Why? | a So."] * 2),
    "an answer that was annotated and skipped": Shape("a.json", [{"id": 1, "data": {"text": "Why?"},
        "annotations": [{"was_cancelled": True, "result": [{"value": {"choices": ["No."]}}]}]}, {"id": 2,
        "data": {"text": "Why?"}, "annotations": [{"was_cancelled": False,
            "result": [{"value": {"choices": ["So."]}}]}]}], PAIR, ("id",)),
    "a bench's questions": Shape("a.jsonl", Lines([{"question_id": 81, "category": "writing", "turns": ["Why?",
        "And then?"]}]), "turns are the questions of a benchmark"),
    "an unfilled placeholder": Shape("a.csv", "question,answer\nWhy?,I am {{name}}.\n", ["u Why? | a I am {{name}}."]),
}  # fmt: skip
# What was once refused although it is plain.
PLAIN = {
    "input, output": Shape("a.csv", "input,output\nWhy?,So.\n", PAIR),
    "query, response": Shape("a.csv", "query,response\nWhy?,So.\n", PAIR),
    "frage;antwort": Shape("a.csv", "frage;antwort\nWhy?;So.\n", PAIR),
    "two columns in Polish": Shape("a.csv", ("pytanie,odpowiedź\nWhy did nobody come to us?,Because it rained the "
                                             "whole "
                                             "day long.\n"), [("u Why did nobody come to us? | a Because it rained the "
                                                               "whole day long.")]),
    "customer and agent": Shape("a.csv", "Customer Message,Agent Reply,Date\nWhy?,So.,2025-03-01\n", PAIR, ("date",)),
    "src, tgt": Shape("a.tsv", "src\ttgt\nWhy?\tSo.\n", PAIR),
    "user, bot": Shape("a.csv", "user,bot\nWhy?,So.\n", PAIR),
    "a title above a table, links and a number beside it": Shape("a.csv", ("About these questions,,,\n,,,\n"
                                                                           "url_source,question_text,answer_text,question_id\nhttps://example.org/a-page,Why?,So.,q-1\n"), PAIR, ("", "url_source", "question_id")),
    "a system prompt beside a prompt": Shape("a.csv", "system_prompt,user_prompt,expected_output\nBe brief.,Why?,So.\n",
        ["s Be brief. | u Why? | a So."]),
    "problem, solution": Shape("a.jsonl", Lines([{"problem": "Why?", "solution": "So."}]), PAIR),
    "context, question, answer": Shape("a.jsonl", Lines([{"context": "It rains.", "question": "Why?",
        "answer": "So."}]), ["u It rains.\n\nWhy? | a So."]),
    "a pair of translations": Shape("a.jsonl", Lines([{"translation": {"en": "Where are we now?",
        "de": "Wo sind wir denn jetzt bloß?"}}]), ["u Where are we now? | a Wo sind wir denn jetzt bloß?"]),
    "Excel": Shape("a.xlsx", xlsx(SHEET), PAIR, ("nr",)),
    "OpenDocument": Shape("a.ods", ods(SHEET), PAIR, ("nr",)),
    "a table that is called .xls": Shape("a.xls", "Frage\tAntwort\nWhy?\tSo.\n", PAIR),
    "content in parts": Shape("a.jsonl", Lines([{"messages": [{"role": "user", "content": [{"type": "text",
        "value": "Why?"}]}, A]}]), PAIR),
    "tool calls of OpenAI": Shape("a.jsonl", Lines([{"messages": [U, {"role": "assistant", "content": None,
        "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "1", "content": "3"}, A], "tools": [{"type": "function",
        "function": {"name": "add"}}]}]), ["u Why? | a [add] | t 3 | a So."]),
    "function_call, observation": Shape("a.json", [{"conversations": [HUMAN, {"from": "function_call",
        "value": '{"name": "add", "arguments": {}}'}, {"from": "observation", "value": "3"}, GPT], "tools": "[]"}],
        ["u Why? | a [add] | t 3 | a So."]),
    "Hermes's tool calls": Shape("a.json", [{"conversations": [HUMAN, {"from": "gpt",
        "value": "<tool_call>{}</tool_call>"}, {"from": "tool", "value": "3"}, GPT]}],
        ["u Why? | a <tool_call>{}</tool_call> | t 3 | a So."]),
    "Anthropic's tool calls": Shape("a.jsonl", Lines([{"messages": [U, {"role": "assistant",
        "content": [{"type": "text", "text": "Well."}, {"type": "tool_use", "id": "1", "name": "add", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text",
            "text": "3"}]}]}, A], "tools": [{"name": "add", "input_schema": {"type": "object"}}]}]),
            ["u Why? | a Well. [add] | t 3 | a So."]),
    "xLAM": Shape("a.jsonl", Lines([{"id": 1, "query": "Why?", "tools": '[{"name": "add", "parameters": {}}]',
        "answers": '[{"name": "add", "arguments": {}}]'}]), ["u Why? | a [add]"], ("id",)),
    "rows of the datasets server": Shape("rows.json", {"features": [{"name": "question"}], "rows": [{"row_idx": 0,
        "row": {"question": "Why?", "answer": "So."}, "truncated_cells": []}], "num_rows_total": 1}, PAIR, ("features",
        "num_rows_total")),
    "TRL's prompt and completion": Shape("a.jsonl", Lines([{"prompt": [U], "completion": [A]}]), PAIR),
    "a list of texts that alternate": Shape("a.jsonl", Lines([{"dialog": ["Why?", "So."], "act": [1, 2]}]), PAIR,
        ("act",)),
    "UltraChat": Shape("a.jsonl", Lines([{"id": "1", "data": ["Why?", "So."]}]), PAIR, ("id",)),
    "turns of input and output": Shape("a.jsonl", Lines([{"conversation": [{"input": "Why?", "output": "So."}]}]),
        PAIR),
    "turns by other names": Shape("a.json", [{"dialogue": [{"speaker": "Customer", "text": "Why?"}, {"speaker": "Agent",
        "text": "So.", "mood": "fine"}]}], PAIR, ("mood",)),
    "turns of LangChain": Shape("a.jsonl", Lines([{"messages": [{"role": "human", "content": "Why?"}, {"role": "ai",
        "content": "So."}]}]), PAIR),
    "conversations as lists": Shape("a.json", [[U, A], [U, A]], PAIR * 2),
    "conversations as lists, a line each": Shape("a.jsonl", Lines([[U, A], ["Why?", "So."]]), PAIR * 2),
    "one conversation, a message each": Shape("a.json", [S, U, A], [f"s Be brief. | {PAIR[0]}"]),
    "two models side by side": Shape("a.json", [{"conversation_a": [U, A], "conversation_b": [U, B],
        "winner": "model_a"}, {"conversation_a": [U, A], "conversation_b": [U, B], "winner": "tie"}], PAIR,
        ("rejected",)),
    "Open WebUI": Shape("a.json", [{"id": "1", "title": "t", "chat": {"models": ["m"], "history": {"currentId": "2"},
        "messages": [{"id": "1", **U}, {"id": "2", **A}]}}], PAIR, ("id", "title", "models", "history")),
    "Bedrock": Shape("a.jsonl", Lines([{"system": [{"text": "Be brief."}], "messages": [{"role": "user",
        "content": [{"text": "Why?"}]}, {"role": "assistant", "content": [{"text": "So."}]}]}]),
        ["s Be brief. | u Why? | a So."]),
    "Cohere": Shape("a.jsonl", Lines([{"messages": [{"role": "System", "content": "Be brief."}, {"role": "User",
        "content": "Why?"}, {"role": "Chatbot", "content": "So."}]}]), ["s Be brief. | u Why? | a So."]),
    "Anki": Shape("a.txt", "#separator:tab\n#html:true\n#tags column:3\nWhy?\tSo.\tgeo\n", PAIR, ("column 3",)),
    "a glossary": Shape("a.csv", "term,definition\nWhy?,So.\n", PAIR),
    "a tree of messages": Shape("a.jsonl", Lines([{"message_id": "1", "parent_id": None, "role": "prompter",
        "text": "Why?"}, {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "So."}]),
        PAIR),
    "SQuAD": Shape("a.json", {"data": [{"title": "t", "paragraphs": [{"context": "It rains.",
        "qas": [{"question": "Why?", "answers": [{"text": "So.", "answer_start": 0}]}]}]}]},
        ["u It rains.\n\nWhy? | a So."], ("title", "answer_start")),
    "an object of columns": Shape("a.json", {"question": ["Why?"], "answer": ["So."]}, PAIR),
    "an object of rows by their keys": Shape("a.json", {"one": {"question": "Why?", "answer": "So."},
        "two": {"question": "Why?", "answer": "So."}}, PAIR * 2, ("key",)),
    "answers by their questions": Shape("a.json", {"Why is it?": "So.", "なぜ？": "それで"}, ["u Why is it? | a So.",
        "u なぜ？ | a それで"]),
    "rows under a key": Shape("a.json", {"version": "1", "examples": [{"question": "Why?", "answer": "So."}]}, PAIR,
        ("version",)),
    "a zip of files": Shape("a.zip", zipped({"a.csv": "question,answer\nWhy?,So.\n", "README.md": "About"}), PAIR),
    "LLaMA-Factory's folder": Shape("a.zip", zipped({"dataset_info.json": json.dumps(INFO),
        "mine.json": json.dumps([{"q": "Why?", "a": "So."}])}), PAIR),
    "easy-dataset": Shape("a.json", [{"instruction": "Why?", "input": "", "output": "So.", "system": ""}], PAIR),
    "Kiln": Shape("a.jsonl", Lines([{"messages": [S, U, A]}]), ["s Be brief. | u Why? | a So."]),
    "Kiln for Gemini": Shape("a.jsonl", Lines([{"systemInstruction": {"role": "system",
        "parts": [{"text": "Be brief."}]}, "contents": [{"role": "user", "parts": [{"text": "Why?"}]}, {"role": "model",
            "parts": [{"text": "So."}]}]}]), ["s Be brief. | u Why? | a So."]),
    "Label Studio": Shape("a.json", [{"id": 1, "data": {"text": "Why?"},
        "annotations": [{"result": [{"value": {"choices": ["So."]}}]}]}], PAIR, ("id",)),
    "Label Studio's JSON-MIN": Shape("a.json", [{"id": 1, "text": "Why?", "sentiment": "So."}], ["u Why? | a So."], ("id",)),
    "Argilla's records": Shape("a.json", [{"id": "1", "fields": {"text": "Why?"}, "responses": {"label": [{**SUBMITTED,
        "value": "So."}, {**SUBMITTED, "value": "No."}]}, "metadata": {}}], PAIR, ("id", "label")),
    "Argilla's columns": Shape("a.jsonl", Lines([{"prompt": "Why?", "corrected-response": [{"user_id": "u",
        "value": "No.", "status": "discarded"}, {**SUBMITTED, "value": "So."}]}]), PAIR),
    "Markdown": Shape("a.md", "# Rain\n\nIt rains.\n", ["# Rain", "It rains."]),
}  # fmt: skip
# Chats and archives.
CHATS = {
    "WhatsApp, Android": Shape("a.txt", ANDROID, PAIR, ("app", "media")),
    "WhatsApp, iOS": Shape("_chat.txt", IOS, ["u Hallo | a So.\nund so."], ("media",)),
    "WhatsApp, calls, places and polls": Shape("a.txt",
        ANDROID + "".join(f"12/03/2025, 21:17 - Maria: {text}\n" for text in ("location: https://maps.google.com/?q=1,2", "POLL:\nWhy?\nOPTION: So (1 vote)", "Missed voice call")), PAIR, ("app", "media")),
    "Telegram": Shape("result.json", {"name": "Jo", "messages": [{"id": 1, "type": "message",
        "date_unixtime": "1741813200", "date": "2025-03-12T21:00:00", "from": "Maria", "from_id": "u1", "text": ["Wh",
            {"type": "bold", "text": "y?"}]}, {"id": 2, "type": "message", "date_unixtime": "1741813260",
            "date": "2025-03-12T21:01:00", "from": "Jo", "from_id": "u2", "text": "So."}]}, PAIR),
    "Discord, JSON": Shape("a.json", {"guild": {}, "messages": [{"id": str(i), "type": "Default",
        "timestamp": f"2025-03-12T21:0{i}:00+00:00", "content": text, "author": {"id": who, "name": who,
            "isBot": False}} for i, (who, text) in enumerate((("Maria", "Why?"), ("Jo", "So.")))]}, PAIR),
    "Discord, CSV": Shape("a.csv", ("AuthorID,Author,Date,Content,Attachments,Reactions\n"
                                    "1,Maria,2025-03-12T21:00:00.0000000+00:00,Why?,,\n"
                                    "2,Jo,2025-03-12T21:01:00.0000000+00:00,So.,,\n"), PAIR),
    "a folder of Slack": Shape("a.zip", zipped({"general/2025-01-01.json": json.dumps([slack("Maria", "Why?",
        1735689600), slack("Jo", "So.", 1735689660)]), "users.json": "[]"}), PAIR),
    "Slack with its users": Shape("a.zip", zipped({"general/2025-01-01.json": json.dumps([{"type": "message",
        "user": "U1", "text": "Why, <@U2>?", "ts": "1735689600.0"}, {"type": "message", "user": "U2", "text": "So.",
        "ts": "1735689660.0"}]), "users.json": json.dumps([{"id": "U1", "name": "maria"}, {"id": "U2", "name": "jo",
        "profile": {"real_name": "Jo"}}])}), ["u Why, @Jo? | a So."]),
    "Instagram, Facebook": Shape("message_1.json", {"participants": [{"name": "Maria"}, {"name": "Jo"}],
        "messages": [meta("Jo", "", 2, photos=[{"uri": "a.jpg"}]), meta("Jo", "So, \u00c3\u00bcber.", 1), meta("Maria",
            "Why?", 0)], "title": "Jo"}, ["u Why? | a So, über."], ("media",)),
    "Signal, signal-export": Shape("data.json", Lines([{"date": f"2025-03-12T21:0{i}:00", "sender": who, "body": text,
        "quote": "", "sticker": "", "reactions": [], "attachments": []} for i, (who, text) in enumerate((("Maria",
            "Why?"), ("Me", "So.")))]), PAIR),
    "ChatGPT": Shape("conversations.json", [{"title": "t", "current_node": "b", "mapping": {"a": {"id": "a",
        "parent": None, "children": ["b", "c"], "message": {"author": {"role": "user"},
            "content": {"content_type": "text", "parts": ["Why?"]}}}, **{id: {"id": id, "parent": "a", "children": [],
            "message": {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": [text]}}} for id,
            text in (("b", "So."), ("c", "No."))}}}], PAIR, ("", "title")),
    "Claude": Shape("conversations.json", [{"uuid": "1", "name": "t", "chat_messages": [{"sender": "human",
        "text": "Why?"}, {"sender": "assistant", "text": "So."}]}], PAIR, ("uuid", "name")),
    "Claude, an answer asked for again": Shape("conversations.json", [{"uuid": "1", "chat_messages": [{"uuid": "a",
        "parent_message_uuid": "0", "sender": "human", "text": "Why?"}, {"uuid": "b", "parent_message_uuid": "a",
        "sender": "assistant", "text": "No."}, {"uuid": "c", "parent_message_uuid": "a", "sender": "assistant",
        "text": "So."}]}], PAIR, ("", "uuid")),
    "SillyTavern": Shape("a.jsonl", Lines([{"user_name": "Maria", "character_name": "Jo"}, {"name": "Maria",
        "is_user": True, "mes": "Why?"}, {"name": "Jo", "is_user": False, "mes": "So.", "swipes": ["No.", "So."]}]),
        PAIR, ("",)),
    "Character.AI": Shape("a.json", {"turns": [{"create_time": f"2024-03-01T10:0{i}:00Z", "author": {"name": who,
        **human}, "candidates": [{"candidate_id": "1", "raw_content": text}], "primary_candidate_id": "1"} for i, who,
        human, text in ((1, "Jo", {}, "So."), (0, "Maria", {"is_human": True}, "Why?"))]}, PAIR),
}  # fmt: skip
SHAPES = {**SILENT, **PLAIN, **CHATS}
