"""Real chat templates, as the families ship them: the files inside the wheel of TRL, read and never imported."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.data.template import ChatTemplate

FOLDER = Path(find_spec("trl").submodule_search_locations[0]) / "chat_templates"
NAMES = sorted(file.stem for file in FOLDER.glob("*.jinja") if not file.stem.endswith("_training"))
TWINS = [name for name in NAMES if (FOLDER / f"{name}_training.jinja").exists()]
TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
_SPECIAL = re.compile(
    r"<\|[a-zA-Z_]+\|>|<｜[^｜]+｜>|<\|tool_response>|<turn\|>|<end_of_turn>|<end_of_utterance>|<\|END[A-Z_]+\|>|</s>"
)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "its name"}},
                "required": ["city"],
            },
        },
    }
]
CALL = {"tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str, reasoning: str = "", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **({"reasoning": reasoning} if reasoning else {}), **more}


SYSTEM = {"role": "system", "content": "Be brief."}
RESULT = {"role": "tool", "content": "20 degrees", "name": "get_weather"}
# (turns, tools) by name.
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[Any] | None]] = {
    "plain": ([user("Hello there"), answer("Hi, friend!")], None),
    "system": ([SYSTEM, user("Hello there"), answer("Hi, friend!")], None),
    "turns": ([user("Hello there"), answer("Hi, friend!"), user("And now?"), answer("Now we talk.")], None),
    "thinking": ([user("What is 2+2?"), answer("It is 4.", "Two and two\n\nmake four.")], None),
    "thinking_turns": (
        [
            user("What is 2+2?"),
            answer("It is 4.", "Two and two make four."),
            user("And 3+3?"),
            answer("It is 6.", "Three and three."),
        ],
        None,
    ),
    "tools": ([user("Weather in Paris?"), answer("", **CALL), RESULT, answer("It is 20 degrees.")], TOOLS),
    "thinking_tools": (
        [
            SYSTEM,
            user("Weather in Paris?"),
            answer("", "I must look.", **CALL),
            RESULT,
            answer("It is 20 degrees.", "Now I know."),
        ],
        TOOLS,
    ),
}


def source(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text("utf-8")


def template(name: str) -> ChatTemplate:
    text = source(name)
    return ChatTemplate(text, TOKENS, frozenset(_SPECIAL.findall(text)) | {"<eos>"})


def tokenizer_folder(folder: Path, starter: Path, name: str = "qwen3") -> Path:
    """Fill folder with the starter's tokenizer and a family's template, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(starter / file, folder / file)
    (folder / "chat_template.jinja").write_text(source(name), "utf-8", newline="\n")
    return folder
