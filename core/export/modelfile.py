"""An Ollama Modelfile from a chat template: TEMPLATE in Go's template language, stops, and the app's own settings.

The Go template is derived by rendering the training template with sentinel words in the place of the texts, and
believed only when it renders two conversations of three turns to the same characters as the training template.
Ollama hands a template `.System` (all system messages) and `.Messages` (role by role, alternating). No torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from core.data.conversation import Turn
from core.data.template import ChatTemplate
from core.errors import TemplateError
from core.messages import Message, msg

_S, _U, _A = "sys7QZ", "usr7QZ", "ast7QZ"
_ASKS: list[Turn] = [
    {"role": "user", "content": "What is tea?"},
    {"role": "assistant", "content": "A drink, made of {leaves}."},
    {"role": "user", "content": 'Is it "hot"?\nReally?'},
    {"role": "assistant", "content": "Mostly."},
    {"role": "user", "content": "Why?"},
]
_SYSTEM: Turn = {"role": "system", "content": "Be brief."}


@dataclass(frozen=True)
class Derived:
    """template: Go source, or None with the reason why; notes: what it cannot do."""

    template: str | None
    notes: tuple[Message, ...] = ()


def derive(template: ChatTemplate) -> Derived:
    if "strftime_now" in template.source:
        return _without("export.template_has_date")
    turns = [("user", _U), ("assistant", _A), ("user", _U), ("assistant", _A), ("user", _U)]
    asks: list[Turn] = [{"role": role, "content": word} for role, word in turns]
    try:
        head, *between, tail = re.split(f"{_U}|{_A}", template.render(asks, add_generation_prompt=True))
        with_system = _with_system(template, asks)
    except (TemplateError, ValueError):
        return _without("export.template_refuses")
    if len(between) != 4 or between[:2] != between[2:]:
        return _without("export.template_varies")
    to_answer, to_question = between[:2]
    opening = _literal(head)
    if with_system is not None:
        before, after = with_system
        opening = f"{{{{ if .System }}}}{_literal(before)}{{{{ .System }}}}{_literal(after)}{{{{ else }}}}{opening}{{{{ end }}}}"
    # Ollama's messages alternate, so what stands between two texts can be written after the answer and before it.
    source = (
        f'{opening}{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{{{{ .Content }}}}'
        f'{{{{ else if eq .Role "assistant" }}}}{_literal(to_answer)}{{{{ .Content }}}}{_literal(to_question)}'
        f"{{{{ end }}}}{{{{ end }}}}{_literal(tail)}"
    )
    for conversation in [_ASKS] + ([[_SYSTEM, *_ASKS]] if with_system is not None else []):
        if render(source, conversation) != template.render(conversation, add_generation_prompt=True):
            return _without("export.template_varies")
    if '"""' in source:
        return _without("export.template_quotes")
    return Derived(source, () if with_system is not None else (msg("export.template_no_system"),))


def _with_system(template: ChatTemplate, asks: Sequence[Turn]) -> tuple[str, str] | None:
    """What stands before and after the system text, or None where the template knows no system message."""
    try:
        rendered = template.render([{"role": "system", "content": _S}, *asks], add_generation_prompt=True)
    except TemplateError:
        return None
    before, found, rest = rendered.partition(_S)
    return (before, rest.partition(_U)[0]) if found and _U not in before else None


def _without(key: str) -> Derived:
    return Derived(None, (msg("export.no_template", reason=msg(key)),))


def _literal(words: str) -> str:
    return words.replace("{{", '{{ "{{" }}')


def render(source: str, messages: Sequence[Turn]) -> str:
    """What Ollama makes of a template that `derive` wrote: if, else if, else, range, eq and fields; nothing else."""
    parts = re.split(r"\{\{ (.*?) \}\}", source)
    system = "\n\n".join(turn["content"] for turn in messages if turn["role"] == "system")
    position = 0

    def block(turn: Turn | None, live: bool) -> str:
        """Text up to the `else` or `end` that closes this block; position is left on it."""
        nonlocal position
        written = []
        while position < len(parts):
            if position % 2 == 0:
                written.append(parts[position] if live else "")
                position += 1
                continue
            action = parts[position]
            if action == "end" or action.startswith("else"):
                break
            position += 1
            if action.startswith("if "):
                written.append(branches(action.removeprefix("if "), turn, live))
            elif action == "range .Messages":
                start = position
                turns: list[Turn | None] = [*messages] if live else []
                for item in turns or [None]:
                    position = start
                    written.append(block(item, live and item is not None))
                position += 1
            elif live:
                written.append(value(action, turn))
        return "".join(written)

    def branches(condition: str, turn: Turn | None, live: bool) -> str:
        nonlocal position
        result, taken = "", False
        while True:
            chosen = live and not taken and holds(condition, turn)
            words = block(turn, chosen)
            result, taken = (words, True) if chosen else (result, taken)
            action, position = parts[position], position + 1
            if action == "end":
                return result
            condition = action.removeprefix("else").strip().removeprefix("if ") or "true"

    def holds(condition: str, turn: Turn | None) -> bool:
        if condition.startswith("eq .Role "):
            return turn is not None and turn["role"] == condition.split('"')[1]
        return condition == "true" or bool(value(condition, turn))

    def value(action: str, turn: Turn | None) -> str:
        if action.startswith('"'):
            return action.strip('"')
        return system if action == ".System" else turn["content"] if turn and action == ".Content" else ""

    return block(None, True)


def write(gguf_name: str, derived: Derived, stops: Sequence[str], run_name: str) -> str:
    """The Modelfile. stops: what ends an answer, as the training template writes it."""
    lines = [f"# {' '.join(run_name.split())}, made with LoRA Garage", f"FROM ./{gguf_name}"]
    if derived.template is not None:
        lines.append(f'TEMPLATE """{derived.template}"""')
    else:
        # Ollama since 0.30 renders the template in the file itself; earlier ones take the nearest that they know.
        lines.append("REQUIRES 0.30.0")
    quotes = {stop: '"""' if '"' in stop else '"' for stop in stops if stop and "\n" not in stop}
    lines += [f"PARAMETER stop {quote}{stop}{quote}" for stop, quote in quotes.items()]
    lines += [
        "# As in the app's chat: the likeliest token each time, and no penalty for a style that repeats itself.",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    return "\n".join(lines) + "\n"
