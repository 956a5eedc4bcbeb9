"""LLaMA-Factory as `llamafactory-cli train` runs it, in its own environment: `PYTHON -m benchmarks.peers.llama_factory
JOB.json`.

The command's own function is called with what would stand in its YAML file, so that a callback can watch it. Everything
that is not named below is as shipped (checkpointing on, bf16 by autocast, plain AdamW); with packing also neat_packing,
its packing without attention between examples.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from llamafactory.train.tuner import run_exp

from benchmarks.peers.job import Job
from benchmarks.peers.meter import Meter, watch_transformers

# Its template "smollm2" has a full stop here that the model's own has not.
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
ROWS = {
    "file_name": "",
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}


def main() -> None:
    job = Job.read(sys.argv[1])
    meter = Meter(job.on_card)
    rows = Path(job.rows)
    (rows.parent / "dataset_info.json").write_text(json.dumps({"rows": ROWS | {"file_name": rows.name}}), "utf-8")
    settings = {
        "model_name_or_path": job.model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": job.r,
        "lora_alpha": job.lora_alpha,
        "dataset": "rows",
        "dataset_dir": str(rows.parent),
        "template": "smollm2",
        "default_system": SYSTEM,
        "cutoff_len": job.max_length,
        "overwrite_cache": True,
        "output_dir": job.output,
        "save_strategy": "no",
        "report_to": "none",
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": job.accumulation,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": job.max_grad_norm,
        "num_train_epochs": 1,
        "bf16": True,
        "use_cpu": not job.on_card,
        "seed": job.seed,
    }
    if job.four_bit:
        settings |= {"quantization_bit": 4}
    if job.packing:
        settings |= {"packing": True, "neat_packing": True}
    run_exp(settings, callbacks=[watch_transformers(meter)])
    meter.report(versions=[f"{name} {version(name)}" for name in ("llamafactory", "transformers", "peft", "torch")])


if __name__ == "__main__":
    main()
