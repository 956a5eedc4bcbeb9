"""The Python code that loads a model or an adapter outside this app, with transformers' class for the unmodified base.
No torch."""

from __future__ import annotations

from pathlib import Path

from core.models import families


def of_model(folder: Path | None, at: str) -> str:
    """Return the code that loads a model. folder: with its config.json; at: the name or path in the code."""
    kind = families.auto_class(folder)
    return f"from transformers import {kind}\nmodel = {kind}.from_pretrained({at!r})"


def of_adapter(base_folder: Path | None, base: str, at: str) -> str:
    """Return the Python code that loads an adapter on its base, by the base's class. at: folder or repository of the
    adapter; base: the base's name in the code; peft finds a causal language model by itself."""
    kind = families.auto_class(base_folder)
    if kind == families.USUAL:
        return f"from peft import AutoPeftModelForCausalLM\nmodel = AutoPeftModelForCausalLM.from_pretrained({at!r})"
    return (
        f"from peft import PeftModel\n{of_model(base_folder, base)}\nmodel = PeftModel.from_pretrained(model, {at!r})"
    )
