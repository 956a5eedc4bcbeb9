"""Load a frozen base: 16-bit (or fp32 if that is faster), LLM.int8, or NF4 with double quantization. Workers only.

No `prepare_model_for_kbit_training`: its fp32 copies of embeddings and head cost 0.5 GiB at 7B (docs/design.md).
Never trains, never adds adapters.
"""

from __future__ import annotations

import gc
import logging
from pathlib import Path

import torch
from transformers import AutoConfig, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from core.engine import device
from core.engine.device import Compute
from core.engine.families import mended, parts
from core.errors import ModelError, first_line
from core.files import is_out_of_memory
from core.models.shapes.shape import UNPACKED


def load(
    folder: Path,
    compute: Compute,
    four_bit: bool,
    eight_bit: bool = False,
    keep_towers: bool = False,
) -> PreTrainedModel:
    """Load the base of folder on compute.device in eval mode, all parameters frozen, quantized to 4 or 8 bits unless
    its files are quantized already. Raises ModelError with the reason; out-of-memory errors as they are.

    keep_towers: keep the weights of its towers (core/engine/families/parts), which nothing here uses.
    """
    try:
        config = mended.config(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
        kind = parts.auto_class(config)
        is_stored_quantized = False  # and stays quantized, whatever the recipe's method
        # A multimodal repository has these settings beside its text_config or inside it.
        for settings in filter(
            None, (getattr(each, "quantization_config", None) for each in (config, config.get_text_config()))
        ):
            is_stored_quantized = True
            if settings.get("quant_method") in UNPACKED:
                settings["dequantize"] = True  # on every device: their kernels have no gradients
        quantization = (
            None if is_stored_quantized else nf4(compute.dtype) if four_bit else _int8() if eight_bit else None
        )
        if quantization:
            quantization.llm_int8_skip_modules = parts.skip_modules(kind, config)
        places = parts.places(kind, config, compute.device)
        model = mended.model(_load(kind, folder, config, compute, quantization, places))
        if "" not in places:
            parts.look_up_in_ram(model)
        if not keep_towers:
            parts.set_aside(model)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if is_out_of_memory(error):
            raise
        reason = first_line(error) or type(error).__name__
        raise ModelError("model.cannot_load", folder=folder.name, reason=reason[:300]) from error
    model.requires_grad_(False)
    # Training never continues a text, and transformers warns of a cache beside gradient checkpointing.
    model.config.use_cache = False
    if getattr(model, "is_loaded_in_4bit", False):
        close_cpu_gradient_trap(model)
        compute_4_bit_in(model, compute.dtype)
    return model.eval()


def bits(base: torch.nn.Module) -> int:
    """Return the bits of the base's layers: 4 or 8 if bitsandbytes quantized them, else 16 (which also stands for
    32)."""
    return 4 if getattr(base, "is_loaded_in_4bit", False) else 8 if getattr(base, "is_loaded_in_8bit", False) else 16


def load_finite(folder: Path, compute: Compute, *how: bool) -> tuple[PreTrainedModel, Compute]:
    """Load the base; return it and the compute used, which has another dtype if the base overflows float16, as Gemma 3
    does (transformers issue 39972). A forward of 16 tokens detects that. The base is then loaded again, because
    rounding to float16 has lost values. how: four_bit, eight_bit and keep_towers of `load`."""
    base = load(folder, compute, *how)
    if compute.dtype != torch.float16 or is_finite(base):
        return base, compute
    # Freed before the second load, so that memory need not hold both.
    del base
    gc.collect()
    if compute.on_card:
        torch.cuda.empty_cache()
    wider = device.beyond_float16(compute)
    return load(folder, wider, *how), wider


@torch.no_grad()
def is_finite(model: PreTrainedModel) -> bool:
    """Return whether the logits of 16 random tokens (fixed seed, a BOS token first if there is one) are all finite."""
    config = model.config.get_text_config()
    ids = torch.randint(config.vocab_size, (1, 16), generator=torch.Generator().manual_seed(0))
    if isinstance(config.bos_token_id, int):
        ids[0, 0] = config.bos_token_id  # where the largest activations occur
    return bool(model(input_ids=ids.to(model.device), use_cache=False).logits.isfinite().all())


def _load(
    kind: type[_BaseAutoModelClass], folder: Path, config: PreTrainedConfig, compute: Compute,
    quantization: BitsAndBytesConfig | None, places: dict[str, torch.device],
) -> PreTrainedModel:  # fmt: skip
    """Load the weights with sdpa, or with eager attention where a family lacks it. Raises ModelError if weights outside
    its towers are missing or of another shape."""

    def load_with(attention: str) -> PreTrainedModel:
        """Load the model with this attention. Raises ModelError if the files lack weights of the text part."""
        model, info = kind.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            config=config,
            dtype=compute.dtype,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            quantization_config=quantization,
            device_map=places,
        )
        # transformers fills these at random
        untrained = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
        towers = tuple(f"{part}." for part in parts.beside(model))
        if lacking := sorted(name for name in untrained if not name.startswith(towers)):
            raise ModelError("model.lacks_weights", folder=folder.name, count=len(lacking), first=lacking[0])
        return model

    try:
        return load_with("sdpa")
    except ValueError as error:
        if "attn_implementation" not in str(error):
            raise
        return load_with("eager")  # families such as Gemma 2, whose soft-capped scores sdpa does not support


def nf4(dtype: torch.dtype, double_quant: bool = True) -> BitsAndBytesConfig:
    """Return the NF4 quantization of QLoRA's base; products are computed in dtype. double_quant: quantize the scales
    too."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def compute_4_bit_in(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Set the dtype that all 4-bit layers dequantize to and compute their products in. A 4-bit repository brings its
    own, mostly bfloat16, which RTX 20 GPUs only emulate."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = module.weight.quant_state.dtype = dtype


def _int8() -> BitsAndBytesConfig:
    """Return the quantization of LLM.int8, and silence a warning of bitsandbytes in this process."""
    # It warns at every product not in float16: ten thousand lines in a run's log about what LLM.int8 always does.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return BitsAndBytesConfig(load_in_8bit=True)


def close_cpu_gradient_trap(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs with AVX512_BF16.

    There, the first forward in eval mode repacks each weight for a kernel without gradients, and it stays repacked:
    every later training step is silently wrong (gradient cosine 0.15 against the truth), and merging gives garbage.
    Costs a third of the 4-bit generation speed on such CPUs. Seen in bitsandbytes 0.50.2.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
