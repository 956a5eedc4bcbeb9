"""Commands that use a finished export in other programs, for the page and the command line. No torch.

To add a program: a line here, and its sentence `in_...` in elsewhere.yaml.
"""

from __future__ import annotations

from pathlib import Path

from core import COMMAND, files
from core.export.records import ExportResult
from core.models import loading


def commands(result: ExportResult, folder: Path) -> list[tuple[str, str]]:
    """Return pairs of (key below `elsewhere.`, command to type), the most likely use of this kind of export first."""
    if result.kind == "adapter":
        base = str(files.read_object(folder / "adapter_config.json").get("base_model_name_or_path") or "")
        code = loading.of_adapter(Path(base) if base else None, base, str(folder))
        return [("in_garage", f'{COMMAND} chat "{folder}" --prompt "Hello!"'), ("in_peft", code)]
    if result.kind == "merged":
        return [("in_transformers", loading.of_model(folder, str(folder))), ("in_vllm", f'vllm serve "{folder}"')]
    file = folder / result.gguf
    return [
        ("in_ollama", f"{ollama_create(result, folder)}\nollama run {ollama_name(result)}"),
        ("in_lmstudio", f'lms import "{file}"'),
        ("in_llamacpp", f'llama-server -m "{file}"'),
        ("in_koboldcpp", f'koboldcpp --model "{file}"'),
        ("in_jan", str(file)),
    ]


def ollama_name(result: ExportResult) -> str:
    """The model's name in Ollama, with an owner prefix so that it never replaces a model of the user's with the same
    name."""
    return f"lora-garage/{(result.ollama_name or 'tuned').rpartition('/')[2]}"


def ollama_create(result: ExportResult, folder: Path) -> str:
    """Return the command that a user types to add the export to Ollama, by the Modelfile in folder; it is not run."""
    return f'ollama create {ollama_name(result)} -f "{folder / "Modelfile"}"'
