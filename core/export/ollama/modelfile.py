"""The Modelfile beside a GGUF file: stop strings, and the sampling settings of the app's chat. No torch.

It has no TEMPLATE: since 0.30 Ollama renders the chat template in the file itself, with thinking and tools, and for
many families ignores a TEMPLATE in Go's language that lacks them (ollama/ollama, server/images.go).
"""

from __future__ import annotations

from collections.abc import Sequence

from core.data.template import ChatTemplate
from core.messages import Message, msg
from core.presets import load

# Ollama replaces a template that is less than 100 edits from a built-in one by that one (server/model.go), which loses
# their differences: the starter's is 41 from ChatML and would lose its default system prompt. This comment adds edits.
OURS = (
    "{# The template that this model was trained with: to be rendered as it is, not in favour of a similar one that "
    "the program has of its own. #}"
)


def file_template(template: ChatTemplate) -> str:
    """Return the chat template to store in the GGUF file, without training markers, for every program that reads it.

    llama-server passes enable_thinking to every template. The result ignores it for a run trained without thinking.
    """
    switch = template.dialect.switch
    off = f"{{%- set {switch} = false %}}" if switch and not template.dialect.thinks else ""
    return OURS + off + template.without_markers


def render(gguf_name: str, stops: Sequence[str], run_name: str, least: str) -> str:
    """Return the text of an Ollama Modelfile: the GGUF file, the least Ollama version, the stop strings, and the
    sampling of the app's chat (temperature 0, no penalty for repetition). LF line ends everywhere.

    gguf_name: the file beside it, without spaces and quotes. stops: strings that end an answer in the training
    template; empty ones and those with a line break are left out. least: the first Ollama version that knows the
    family.
    """
    # Ollama reads quotes within three of them.
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
    """Return notes on what Ollama does differently from training; () if nothing. model_type: of the base's
    config.json."""
    family = model_type.removesuffix("_text")
    return (msg("export.ollama_own_template", family=family),) if family in load("ollama")["own_templates"] else ()
