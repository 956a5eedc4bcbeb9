"""Measures the allocations of a step, in widths of a layer: the source of the "counted" numbers of presets/memory.yaml.

    .venv/bin/python -m benchmarks.memory_counts [--families llama qwen3 gemma3_text olmo2] [--stacks ours hf]
    [--targets all-linear] .venv/bin/python -m benchmarks.memory_counts --published [--families qwen3_5 gemma4_e]

Runs one forward and backward of small models of several widths in bf16 (ours on tensors without data, as the dry run
does, hf on the processor), and follows every allocation and its end. Differences between lengths and numbers of layers
give the values per token that one layer keeps (kept) and that its own backward needs with it (at work, with
checkpointing); both are solved for hidden size, queries, keys and MLP. ours: the app's layers with attention as a card
computes it; hf: PEFT's own layers under autocast, transformers' loss. Minutes, some hundred MB of RAM.

--published: instead, the arithmetic against the dry run for a published model of each family (benchmarks/published.py);
minutes.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

# h, heads, kv heads, I
WIDTHS = ((256, 4, 4, 1024), (256, 4, 2, 1280), (256, 4, 1, 1024), (384, 6, 2, 1536), (512, 8, 4, 1536))
HEAD_DIM, WORDS, RANK = 64, 64, 1
LENGTHS, LAYERS = (128, 256), (2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--families", nargs="+")
    parser.add_argument("--stacks", nargs="+", default=["ours", "hf"])
    parser.add_argument("--targets", default="all-linear")
    chosen = parser.parse_args()
    if chosen.published:
        from benchmarks import published

        published.report(chosen.families or ())
        return
    print("values a token: | family | stack | what | hidden | query | key_value | mlp | residual |", flush=True)
    for family in chosen.families or ("llama", "qwen3", "gemma3_text", "olmo2"):
        for stack in chosen.stacks:
            for what, values, residual in solve(family, stack, chosen.targets):
                print(
                    f"| {family} | {stack} | {what} | "
                    + " | ".join(f"{v:.2f}" for v in values)
                    + f" | {residual:.1%} |",
                    flush=True,
                )


def solve(family: str, stack: str, targets: str) -> Iterator[tuple[str, Sequence[float], float]]:
    """Return the kept values and those at work, as multiples of the four widths, with the largest relative residual."""
    import numpy

    widths: list[tuple[int, int, int, int]] = []
    found: dict[str, list[float]] = {"kept": [], "at work": []}
    for hidden, heads, kv_heads, mlp in WIDTHS:
        sizes = (hidden, heads, kv_heads, mlp)
        widths.append((hidden, heads * HEAD_DIM, kv_heads * HEAD_DIM, mlp))
        for what, checkpointing in (("kept", False), ("at work", True)):
            peak = {
                (n, t): peak_bytes(family, stack, targets, sizes, n, t, checkpointing) for n in LAYERS for t in LENGTHS
            }
            slope = [(peak[n, LENGTHS[1]] - peak[n, LENGTHS[0]]) / (LENGTHS[1] - LENGTHS[0]) / 2 for n in LAYERS]
            a_layer = slope[1] - slope[0]
            found[what].append(a_layer if what == "kept" else slope[0] - LAYERS[0] * a_layer)
    matrix = numpy.array(widths, float)
    for what, values in found.items():
        wanted = numpy.array(values)
        solved = numpy.linalg.lstsq(matrix, wanted, rcond=None)[0]
        yield what, solved.tolist(), float((abs(matrix @ solved - wanted) / wanted).max())


def peak_bytes(
    family: str, stack: str, targets: str, sizes: tuple[int, ...], layers: int, length: int, checkpointing: bool
) -> int:
    """Return the bytes at the peak of one forward and backward, beyond the parameters."""
    import torch

    from core.engine import loss
    from core.engine.batches import Batch
    from core.engine.variants import elementwise, fused_lora
    from core.trial import dry_run

    ours = stack == "ours"
    with dry_run.META if ours else nullcontext():
        tuned = model(family, stack, targets, sizes, layers)
    if checkpointing:
        tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        tuned.enable_input_require_grads()
    ids = torch.zeros(1, length, dtype=torch.int64, device=dry_run.META if ours else "cpu")
    if ours:
        fused_lora.fuse(tuned)
        elementwise.install(tuned)
    with dry_run._as_on_a_card() if ours else nullcontext(), Allocations() as seen:
        if ours:
            batch = Batch(ids, ids[0, :8], ids[0, 1:9], length, position_ids=ids, lengths=(length,))
            loss.summed_loss(tuned, batch).backward()
        else:
            with torch.autocast("cpu", torch.bfloat16):
                answer = tuned(input_ids=ids, labels=ids)
            answer.loss.backward()
    return seen.peak


def model(family: str, stack: str, targets: str, sizes: tuple[int, ...], layers: int) -> Any:
    import torch
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

    from core.engine import adapter
    from core.recipe import Adapter

    hidden, heads, kv_heads, mlp = sizes
    config = AutoConfig.for_model(
        family, hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=HEAD_DIM,
        intermediate_size=mlp, vocab_size=WORDS, num_hidden_layers=layers, tie_word_embeddings=False, use_cache=False,
        pad_token_id=0,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config).to(torch.bfloat16).requires_grad_(False)
    AttentionInterface.register("as_on_a_card", as_on_a_card)
    base.set_attn_implementation("as_on_a_card" if stack == "ours" else "sdpa")
    return adapter.add(base, Adapter(method="lora", r=RANK, target_modules=targets), "counted", None).train()


def as_on_a_card(
    module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float | None = None, **_: Any
) -> tuple[Any, None]:
    """Compute core.engine.attention.packed_sdpa without its special case for processors."""
    import torch
    from torch.nn import functional

    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    return torch.cat([seen], 2).transpose(1, 2).contiguous(), None


class Allocations:
    """Counts the bytes of the tensors that operations make, until each is freed; `peak` of them together."""

    def __init__(self) -> None:
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_leaves

        outer = self
        self.peak = self._now = 0
        self._sizes: dict[int, int] = {}

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = operation(*args, **(kwargs or {}))
                for tensor in tree_leaves(result):
                    if hasattr(tensor, "untyped_storage"):
                        outer._note(tensor.untyped_storage())
                return result

        self._mode = Mode()

    def _note(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if size and key not in self._sizes:
            self._sizes[key] = size
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key)

    def __enter__(self) -> Allocations:
        self._mode.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._mode.__exit__(*problem)


if __name__ == "__main__":
    main()
