"""TRL's DPOTrainer at its best, in TRL's own environment: `PYTHON -m benchmarks.peers.trl_dpo JOB.json`.

Log-probabilities of the reference beforehand (steps then cost no forward of it), a bf16 base with its own bf16 mode,
sdpa, its head fused with the loss (no logits are kept), fused AdamW.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from benchmarks.peers.job import Job
from benchmarks.peers.meter import Meter, watch_transformers


class Timed(DPOTrainer):
    reference_s = 0.0

    def _precompute_ref_logps(self, *args: Any, **more: Any) -> Any:
        started = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **more)
        self.reference_s += time.perf_counter() - started
        return found


def conversation(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    answers = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {"prompt": [{"role": "user", "content": row["prompt"]}], **answers}


def main() -> None:
    job = Job.read(sys.argv[1])
    meter = Meter(job.on_card)
    settings = DPOConfig(
        output_dir=job.output, beta=0.1, precompute_ref_log_probs=True, max_length=job.max_length,
        per_device_train_batch_size=job.batch, gradient_accumulation_steps=job.accumulation, num_train_epochs=1,
        learning_rate=job.learning_rate, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0,
        max_grad_norm=job.max_grad_norm,
        optim="adamw_torch_fused", bf16=True, gradient_checkpointing=job.checkpointing, use_cpu=not job.on_card,
        seed=job.seed,
        save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.bfloat16, attn_implementation="sdpa"),
        args=settings,
        train_dataset=load_dataset("json", data_files=job.rows, split="train").map(conversation),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=job.r, lora_alpha=job.lora_alpha, target_modules="all-linear"),
        callbacks=[
            watch_transformers(meter, lambda inputs: (len(inputs["input_ids"]) // 2, inputs["input_ids"].numel()))
        ],
    )
    trainer.train()
    versions = [f"{name} {version(name)}" for name in ("trl", "transformers", "peft", "torch")]
    meter.report(versions=versions, reference_s=trainer.reference_s)
    trainer.save_model(job.output)


if __name__ == "__main__":
    main()
