"""How to use a finished export: for each program, the commands to type. Used by the page and the command line. No
torch.

Another program: a line here, its sentence `in_` in elsewhere.yaml.
"""

from __future__ import annotations

from pathlib import Path

from core import COMMAND, files
from core.export.records import ExportResult
from core.models import loading


def commands(done: ExportResult, folder: Path) -> list[tuple[str, str]]:
    """For what (a key below `elsewhere.`), and what is typed. The first is what it was most likely made for."""
    if done.kind == "adapter":
        base = str(files.read_object(folder / "adapter_config.json").get("base_model_name_or_path") or "")
        used = loading.of_adapter(Path(base) if base else None, base, str(folder))
        return [("in_garage", f'{COMMAND} chat "{folder}" --prompt "Hello!"'), ("in_peft", used)]
    if done.kind == "merged":
        return [("in_transformers", loading.of_model(folder, str(folder))), ("in_vllm", f'vllm serve "{folder}"')]
    if done.kind == "gguf-lora":
        lora = folder / next((name for name in done.files if name.endswith("-lora.gguf")), "")
        base = next(
            (str(folder / name) for name in done.files if name.endswith(".gguf") and name != lora.name), "BASE.gguf"
        )
        return [
            ("in_llamacpp", f'llama-server -m "{base}" --lora "{lora}"'),
            ("in_koboldcpp", f'koboldcpp --model "{base}" --lora "{lora}"'),
        ]
    file = folder / done.gguf
    seeing = f' --mmproj "{folder / done.mmproj}"' if done.mmproj else ""
    return [
        ("in_ollama", f"{ollama_create(done, folder)}\nollama run {ollama_name(done)}"),
        ("in_lmstudio", f'lms import "{file}"'),
        ("in_llamacpp", f'llama-server -m "{file}"{seeing}'),
        ("in_koboldcpp", f'koboldcpp --model "{file}"{seeing}'),
        ("in_jan", str(file)),
    ]


def ollama_name(done: ExportResult) -> str:
    """Under a maker of its own, so that no model of the person's is replaced by one that happens to be called the
    same."""
    return f"lora-garage/{(done.ollama_name or 'tuned').rpartition('/')[2]}"


def ollama_create(done: ExportResult, folder: Path) -> str:
    return f'ollama create {ollama_name(done)} -f "{folder / "Modelfile"}"'
