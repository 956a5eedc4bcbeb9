"""NEFTune: uniform noise on the embeddings during training, against overfitting to exact wording. Workers only.

Each embedding value of an example of L tokens and width d gets noise of at most alpha / sqrt(L d), as in the paper's
own code (Jain et al., 2310.05914): L is the example's own length, without padding, also when packed. The noise comes
from PyTorch's RNG, whose state a checkpoint saves: a resumed run gets the same noise. None in eval mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from peft import PeftModel


@contextmanager
def noise(tuned: PeftModel, alpha: float | None) -> Iterator[None]:
    """Context manager: add uniform noise of up to alpha / sqrt(length * width) to the embeddings of tuned (a peft
    model) in train mode; alpha None: no noise."""
    if alpha is None:
        yield
        return
    model = tuned.get_base_model()
    inputs: dict[str, torch.Tensor | None] = {}

    def note_lengths(module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
        """Keep `ends` and the attention mask of the decoder's call, from which `with_noise` computes the lengths of the
        examples."""
        inputs.update(ends=kwargs.get("ends"), mask=kwargs.get("attention_mask"))

    def with_noise(module: torch.nn.Module, args: tuple[object, ...], embedded: torch.Tensor) -> torch.Tensor:
        """Return the embeddings with noise in train mode, which depends on the length of each token's example; in eval
        mode as they are. It is a forward hook."""
        if not tuned.training:
            return embedded
        lengths = lengths_of(embedded, inputs.get("ends"), inputs.get("mask"))
        most = alpha / (lengths * embedded.shape[-1]).sqrt()
        # Drawn in the embeddings' dtype: in fp32 it would be the largest tensor of a small step.
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * most[..., None].to(embedded.dtype)

    decoder, embeddings = model.get_decoder(), model.get_input_embeddings()
    with (
        decoder.register_forward_pre_hook(note_lengths, with_kwargs=True),
        embeddings.register_forward_hook(with_noise),
    ):
        yield


def lengths_of(embedded: torch.Tensor, ends: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor:
    """Return (B, T): for each token, the length of its example. ends: of a packed batch, where each example begins and
    the last one ends. mask: of a padded one; the padding gets the length of its row too. Without either it is T
    everywhere."""
    rows, width, _ = embedded.shape
    if ends is not None:
        counts = ends.diff().long()
        # without a size it would read the sum from the GPU
        return counts.repeat_interleave(counts, output_size=width)[None]
    if mask is not None and mask.dim() == 2:
        return mask.sum(1, keepdim=True).expand(rows, width)
    return torch.full((rows, width), width, device=embedded.device)
