"""The loss on what should be learned, with the head applied only there.

The full (B, T, V) logits of a padded batch are never made: hidden states are picked by an integer index first
(a boolean mask has no fixed shape), then multiplied with the head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from core.batches import Batch

# Families that bend their logits after the head; their own forward is used until the engine knows each of them.
_BENT_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier_scale")


def head_applies_alone(model: Any) -> bool:
    """Whether logits are simply head(hidden), so that the head may be applied to a few positions only."""
    config = model.config
    return all(getattr(config, name, None) in (None, 1, 1.0) for name in _BENT_LOGITS)


def summed_loss(tuned: Any, batch: Batch) -> torch.Tensor:
    """Cross-entropy summed over the learned tokens of batch, float32 scalar; divide by batch.targets.numel().

    tuned: a causal LM, with or without a peft wrapper.
    """
    model = tuned.get_base_model() if hasattr(tuned, "get_base_model") else tuned
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
    if head_applies_alone(model):
        hidden = model.get_decoder()(**inputs).last_hidden_state
        picked = hidden.flatten(0, 1).index_select(0, batch.index)
        logits = model.get_output_embeddings()(picked)
    else:
        logits = model(**inputs).logits.flatten(0, 1).index_select(0, batch.index)
    return functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
