"""The mathematics of one training step: base model, adapter, batches, loss, attention, optimizer.

Torch may be imported here, in core/training and in the few files of other rooms that tests/unit/test_architecture.py
names; all of them run in processes of their own.

Imports: data, memory, models and the ground; never runs, so that nothing here knows of a run folder.
Add a variant of LoRA: `adapter`, with its field in core/recipe. A family with a new name for scaling or capping its
logits: `loss`. A family's attention: `attention`.
"""
