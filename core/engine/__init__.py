"""The mathematics of one training step: base model, adapter, batches, loss, attention, optimizer.

Torch may be imported here, in core/training and in the few files of other rooms that tests/unit/test_architecture.py names; all of
them run in processes of their own.

Imports: data, memory, models and the ground; never runs, so that nothing here knows of a run folder.
Add a variant of LoRA: `adapter`, with its field in core/recipe. Add a family that bends its logits by a new name: `loss`. What a
family does in its attention: `attention`.
"""
