"""TRL's SFTTrainer at its best, in TRL's own environment: `PYTHON -m benchmarks.peers.trl_sft JOB.json`.

Packing "bfd" (best fit, no attention between examples), its default loss (no full logits, in chunks, of the assistant's
tokens alone), a bf16 base with its own bf16 mode, sdpa, no checkpointing unless the job says so (its default is on),
fused AdamW, little logging.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from benchmarks.peers.job import Job
from benchmarks.peers.meter import Meter, watch_transformers

# The starter's own template; assistant_only_loss needs the marked answer, which it does not have.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

NF4 = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
)


def main() -> None:
    job = Job.read(sys.argv[1])
    meter = Meter(job.on_card)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    tokenizer.chat_template = TEMPLATE
    settings = SFTConfig(
        output_dir=job.output,
        packing=job.packing,
        packing_strategy="bfd",
        max_length=job.max_length,
        assistant_only_loss=True,
        per_device_train_batch_size=job.batch,
        gradient_accumulation_steps=job.accumulation,
        num_train_epochs=1,
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=job.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=True,
        gradient_checkpointing=job.checkpointing,
        use_cpu=not job.on_card,
        seed=job.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            job.model,
            dtype=torch.bfloat16,
            attn_implementation="sdpa",
            quantization_config=NF4 if job.four_bit else None,
        ),
        args=settings,
        train_dataset=load_dataset("json", data_files=job.rows, split="train"),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=job.r, lora_alpha=job.lora_alpha, lora_dropout=0.0, target_modules="all-linear"
        ),
        callbacks=[watch_transformers(meter)],
    )
    trainer.train()
    meter.report(versions=[f"{name} {version(name)}" for name in ("trl", "transformers", "peft", "torch")])
    trainer.save_model(job.output)


if __name__ == "__main__":
    main()
