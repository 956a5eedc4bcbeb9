"""The parts in their order: first those whose failure ends everything else, then the most common uses. Data alone; no
torch.

The seconds of all parts are 30 minutes, those of --quick five (tests/process/test_gpu_report), beside those of --model.
"""

from __future__ import annotations

from typing import Any

from benchmarks.gpu_report.hour import Check, Part

SECONDS, QUICK_SECONDS, OWN_MODEL_S = 1800, 300, 900
ROWS = (1, 7, 16, 600, 2048)  # of a product with a 4-bit matrix: bitsandbytes has other kernels for few and for many


def check(place: str, **settings: Any) -> Check:
    """Return a check. place: a module of this folder and its function, with a dot between."""
    module, function = place.split(".")
    return Check(f"benchmarks.gpu_report.{module}", function, settings)


PARTS = (
    Part(
        "Kernels",
        120,
        {
            "16-bit product": check("kernels.product"),
            "norm, rotary, gate": check("kernels.layers"),
            "one attention for a packed row": check("kernels.one_attention"),
            **{f"4-bit product of {rows} rows": check("kernels.product_4bit", rows=rows) for rows in ROWS},
            "8-bit product": check("kernels.product_8bit"),
            "AdamW in 8 bit": check("kernels.adam", optim="adamw_8bit"),
            "AdamW in 8 bit, paged": check("kernels.adam", optim="paged_adamw_8bit"),
            "pinned RAM": check("kernels.pinning"),
            "a copy beside products": check("kernels.streams"),
            "three steps of QLoRA": check("kernels.whole_step"),
        },
        quick_seconds=120,
    ),
    Part(
        "What only a GPU decides",
        120,
        {
            "P10 importing the libraries": check("experiments.imports"),
            "P1 neighbours registered": check("experiments.neighbours"),
            "P3 flash attention": check("experiments.flash"),
            "P4 packing in NF4, 20 times": check("experiments.enabled_again"),
            "P6 bf16 where it is emulated": check("experiments.emulated_bf16"),
            "P7 context after a step": check("experiments.context"),
            "P2 pinning beside a full GPU": check("experiments.pinning_beside_a_full_card"),
            "P11 large layers in RAM": check("experiments.streamed"),
            "P9 sharded over two GPUs": check("experiments.sharded"),
        },
        quick_seconds=60,
    ),
    Part(
        "Tests marked gpu",
        360,
        {
            "layers in RAM": check("journey.marked_tests", file="tests/model/test_streaming.py"),
            "kernels, memory, runs": check("journey.marked_tests", file="tests/model/test_on_a_card.py"),
        },
    ),
    Part("A first run in an empty workspace", 150, {"the starter": check("journey.first_run")}, quick_seconds=90),
    Part(
        "A step of an 8B",
        180,
        {"checkpointed": check("speed.eight_b"), "not checkpointed": check("speed.eight_b", kept=True)},
    ),
    Part(
        "Out of memory",
        180,
        {
            "in the middle of a run": check("journey.memory_that_goes"),
            "less than the plan needs": check("journey.too_little_memory"),
        },
    ),
    Part("Chat", 60, {"base and fine-tuned": check("journey.chat")}),
    Part("Exports", 150, {kind: check("journey.export", kind=kind) for kind in ("adapter", "merged", "gguf")}),
    Part("Paused and gone on with", 120, {"QLoRA, AdamW in 8 bit": check("journey.paused_and_resumed")}),
    Part("Pairs", 120, {"DPO": check("journey.pairs")}),
    Part("The doctor", 60, {"findings": check("journey.doctor")}, quick_seconds=30),
    Part("The cards", 60, {"by NVML": check("journey.cards")}),
    Part("The console closed over a training", 120, {"Windows": check("journey.closed_console")}),
    Part("A model of one's own", OWN_MODEL_S, {"QLoRA and exports": check("journey.own_model")}),
)
