"""The Modelfile beside a GGUF file: stops, and the settings of the app's own chat. No torch.

It has no TEMPLATE: since 0.30 Ollama renders the chat template in the file itself, with thinking and tools, and for
many families passes over a TEMPLATE in Go's language that has less of them (ollama/ollama, server/images.go).
"""

from __future__ import annotations

from collections.abc import Sequence

from core.data.template import ChatTemplate
from core.messages import Message, msg
from core.presets import load

# Ollama takes a template of its own for one that is less than 100 edits from it (server/model.go) and loses what the
# two do not share: the starter's is 41 from ChatML, without its system prompt.
OURS = (
    "{# The template that this model was trained with: to be rendered as it is, not in favour of a similar one that "
    "the program has of its own. #}"
)


def file_template(template: ChatTemplate) -> str:
    """The chat template to store in the GGUF file, for every program that reads it.

    llama-server passes enable_thinking to every template. The result ignores it for a run trained without thinking.
    """
    switch = template.dialect.switch
    off = f"{{%- set {switch} = false %}}" if switch and not template.dialect.thinks else ""
    return OURS + off + template.without_markers


def write(gguf_name: str, stops: Sequence[str], run_name: str, least: str) -> str:
    """Its lines, which end in LF everywhere.

    gguf_name: of a file beside it, without spaces and quotes. stops: what ends an answer, as the training template
    writes it. least: the Ollama from which on the family is known.
    """
    quotes = {stop: '"""' if '"' in stop else '"' for stop in stops if stop and "\n" not in stop}
    lines = [
        f"# {' '.join(run_name.split())}, made with LoRA Garage",
        f"FROM ./{gguf_name}",
        f"REQUIRES {least}",
        *(f"PARAMETER stop {quote}{stop}{quote}" for stop, quote in quotes.items()),
        "# As in the app's chat: the likeliest token each time, and no penalty for a style that repeats itself.",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    return "\n".join(lines) + "\n"


def notes(model_type: str) -> tuple[Message, ...]:
    """What Ollama will not do as the training did. model_type: of the base's config.json."""
    family = model_type.removesuffix("_text")
    return (msg("export.ollama_own_template", family=family),) if family in load("ollama")["own_templates"] else ()
