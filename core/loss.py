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
_BENT_LOGITS = (
    "final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "logit_scale", "logits_scaling", "lm_head_multiplier",
    "output_multiplier_scale",
)  # fmt: skip


def head_applies_alone(model: Any) -> bool:
    """Whether the configuration names nothing that bends the logits, so that the head may be applied to a few positions."""
    configs = (model.config, model.config.get_text_config())
    return all(getattr(config, name, None) in (None, 1, 1.0) for config in configs for name in _BENT_LOGITS)


@torch.no_grad()
def head_agrees(model: Any, device: torch.device) -> bool:
    """Whether head(hidden) is what the model itself answers, tried on 8 tokens: the proof for families nobody listed."""
    ids = torch.arange(5, 13, device=device)[None] % model.config.get_text_config().vocab_size
    was_training = model.training
    model.eval()
    try:
        own = model(input_ids=ids, use_cache=False).logits.float()
        ours = model.get_output_embeddings()(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state).float()
        return own.shape == ours.shape and bool((own - ours).abs().max() <= 0.01 * own.abs().max())
    except (AttributeError, TypeError, RuntimeError):
        return False  # a family that is put together otherwise: its own forward is always right
    finally:
        model.train(was_training)


def summed_loss(tuned: Any, batch: Batch, head_alone: bool | None = None) -> torch.Tensor:
    """Cross-entropy summed over the learned tokens of batch, float32 scalar; divide by batch.targets.numel().

    tuned: a causal LM, with or without a peft wrapper. head_alone: None asks the configuration.
    """
    model = tuned.get_base_model() if hasattr(tuned, "get_base_model") else tuned
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
    if head_applies_alone(model) if head_alone is None else head_alone:
        hidden = model.get_decoder()(**inputs).last_hidden_state
        picked = hidden.flatten(0, 1).index_select(0, batch.index)
        logits = model.get_output_embeddings()(picked)
    else:
        logits = model(**inputs).logits.flatten(0, 1).index_select(0, batch.index)
    return functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
