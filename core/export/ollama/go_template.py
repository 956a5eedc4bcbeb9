"""An Ollama template as a tree: written as Go template text, and rendered here as Ollama would. No torch.

Only what `deriving` needs: the fields that Ollama hands over (.System, .Tools, .Messages, .Think, .IsThinkSet; of a
message .Role, .Content, .Thinking, .ToolCalls), `if`, `range`, and two variables that say which message came before and
which question was the last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.data.conversation import Turn

BEGIN = (
    '{{ $before := "" }}{{ $asked := -1 }}'
    '{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}{{ $asked = $i }}{{ end }}{{ end }}'
)


@dataclass
class Asked:
    """What a request says, and where the rendering is in it. item: the tool, the call or the argument."""

    turns: Sequence[Turn]
    tools: Sequence[Any] = ()
    think: bool | None = None
    place: int = -1
    before: str = ""
    item: Any = None

    @property
    def system(self) -> str:
        return "\n\n".join(turn["content"] for turn in self.turns if turn["role"] == "system")

    @property
    def turn(self) -> Turn:
        return self.turns[self.place]

    @property
    def after_the_question(self) -> bool:
        return self.place > max((i for i, turn in enumerate(self.turns) if turn["role"] == "user"), default=-1)


def _comes_after(kind: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.before == kind


# Conditions and values by how Go writes them.
CONDITIONS: dict[str, Callable[[Asked], bool]] = {
    ".System": lambda asked: bool(asked.system),
    ".Tools": lambda asked: bool(asked.tools),
    ".Think": lambda asked: bool(asked.think),
    "or .Think (not .IsThinkSet)": lambda asked: asked.think is not False,
    ".Content": lambda asked: bool(asked.turn["content"]),
    ".Thinking": lambda asked: bool(asked.turn.get("reasoning")),
    "and .Thinking (gt $i $asked)": lambda asked: bool(asked.turn.get("reasoning")) and asked.after_the_question,
    "gt $i $asked": lambda asked: asked.after_the_question,
    ".ToolCalls": lambda asked: bool(asked.turn.get("tool_calls")),
    **{f'eq $before "{kind}"': _comes_after(kind) for kind in ("user", "assistant", "call", "tool")},
}
VALUES: dict[str, Callable[[Asked], str]] = {
    ".System": lambda asked: asked.system,
    ".Content": lambda asked: asked.turn["content"],
    ".Thinking": lambda asked: asked.turn.get("reasoning", ""),
    "json .": lambda asked: compact(asked.item),  # a tool; Ollama's own String() is not there in every version of it
    "json .Function": lambda asked: compact(asked.item["function"]),
    ".Function.Name": lambda asked: asked.item["name"],
    "json .Function.Arguments": lambda asked: compact(asked.item["arguments"]),
    "$key": lambda asked: asked.item[0],
    "json $value": lambda asked: compact(asked.item[1]),
}


def compact(value: Any) -> str:
    """As Go's encoding/json writes it, but for <, > and &, which it escapes: the value stays the same."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Node:
    def source(self) -> str:
        raise NotImplementedError

    def render(self, asked: Asked) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class Text(Node):
    words: str

    def source(self) -> str:
        words = self.words.replace("{{", '{{ "{{" }}')
        # else it would begin the action after it
        return f'{words[:-1]}{{{{ "{{" }}}}' if words.endswith("{") else words

    def render(self, asked: Asked) -> str:
        return self.words


@dataclass(frozen=True)
class Value(Node):
    of: str

    def source(self) -> str:
        return f"{{{{ {self.of} }}}}"

    def render(self, asked: Asked) -> str:
        return VALUES[self.of](asked)


@dataclass(frozen=True)
class Many(Node):
    nodes: tuple[Node, ...] = ()

    def source(self) -> str:
        return "".join(node.source() for node in self.nodes)

    def render(self, asked: Asked) -> str:
        return "".join(node.render(asked) for node in self.nodes)


@dataclass(frozen=True)
class If(Node):
    """The first of the branches (condition, nodes) that holds; "" always holds."""

    branches: tuple[tuple[str, Node], ...]

    def source(self) -> str:
        written = [f"else if {condition}" if condition else "else" for condition, _ in self.branches]
        written[0] = written[0].removeprefix("else ")
        parts = [f"{{{{ {head} }}}}{node.source()}" for head, (_, node) in zip(written, self.branches, strict=True)]
        return "".join(parts) + "{{ end }}"

    def render(self, asked: Asked) -> str:
        chosen = (node for condition, node in self.branches if not condition or CONDITIONS[condition](asked))
        return next(chosen, Many()).render(asked)


@dataclass(frozen=True)
class Each(Node):
    """body for each of the tools, the calls of a message, or the arguments of a call."""

    over: str
    body: Node
    between: str

    def source(self) -> str:
        if self.over == ".Function.Arguments":
            begin, step = f"{{{{ $m := 0 }}}}{{{{ range $key, $value := {self.over} }}}}{{{{ if $m }}}}", "{{ $m = 1 }}"
        else:
            begin, step = f"{{{{ range $n, $_ := {self.over} }}}}{{{{ if $n }}}}", ""
        return f"{begin}{Text(self.between).source()}{{{{ end }}}}{step}{self.body.source()}{{{{ end }}}}"

    def render(self, asked: Asked) -> str:
        outer = asked.item
        if self.over == ".Function.Arguments":
            found: Sequence[Any] = sorted(outer["arguments"].items())
        else:
            found = asked.tools if self.over == ".Tools" else asked.turn["tool_calls"]
        written = []
        for item in found:
            asked.item = item
            written.append(self.body.render(asked))
        asked.item = outer
        return self.between.join(written)


@dataclass(frozen=True)
class Messages(Node):
    """What is written of each kind of message; Go's range over .Messages keeps $before."""

    user: Node
    assistant: Node
    tool: Node | None = None

    def source(self) -> str:
        said = '{{ if .ToolCalls }}{{ $before = "call" }}{{ else }}{{ $before = "assistant" }}{{ end }}'
        parts = [
            f'{{{{ if eq .Role "user" }}}}{self.user.source()}{{{{ $before = "user" }}}}',
            f'{{{{ else if eq .Role "assistant" }}}}{self.assistant.source()}'
            + (said if self.tool else '{{ $before = "assistant" }}'),
        ]
        if self.tool:
            parts.append(f'{{{{ else if eq .Role "tool" }}}}{self.tool.source()}{{{{ $before = "tool" }}}}')
        return "{{ range $i, $_ := .Messages }}" + "".join(parts) + "{{ end }}{{ end }}"

    def render(self, asked: Asked) -> str:
        written, nodes = [], {"user": self.user, "assistant": self.assistant, "tool": self.tool}
        for place, turn in enumerate(asked.turns):
            asked.place = place
            if node := nodes.get(turn["role"]):
                written.append(node.render(asked))
                asked.before = "call" if self.tool and turn.get("tool_calls") else turn["role"]
        return "".join(written)
