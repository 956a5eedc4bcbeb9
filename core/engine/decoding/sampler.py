"""Groups of answers drawn from the model as it is now, for training by rewards. Workers only (torch).

A token is chosen by one uniform number from the cumulated probabilities of the vocabulary. The numbers are a table
drawn beforehand, so which rows are decoded together, and when one ends, changes no other row's numbers: a resumed run
and one that decodes fewer rows at a time draw the same answers (but for rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from core.engine.decoding.decoder import DecodedRows, Decoder, for_decoding

BLOCK = 128  # tokens of the vocabulary whose probabilities are added in fp32


@dataclass
class DrawnAnswer:
    """One answer. ids: with the stop token, which is trained too; logps: of each token, at the temperature it was drawn
    with; has_ended: False if it was cut off at the length."""

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    has_ended: bool = False


def chances(rows: int, tokens: int, seed: int) -> torch.Tensor:
    """Return the table of uniform numbers for so many answers: (rows, tokens) float64."""
    return torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Sampler:
    """Draws answers of a causal LM without a peft wrapper, its adapter as it is active. temperature 0: the likeliest
    token."""

    def __init__(
        self, model: torch.nn.Module, pad_token_id: int, stop_ids: frozenset[int], length: int, temperature: float = 1.0
    ):
        """Prepare to draw answers. stop_ids: tokens that end an answer, and are its last one. length: most tokens of an
        answer."""
        self._model, self._decoder = model, Decoder(model, pad_token_id)
        self._stop_ids, self._length, self._temperature = stop_ids, length, temperature

    def draw(
        self, prompts: Sequence[list[int]], copies: int, table: torch.Tensor, check: Callable[[], None] = lambda: None
    ) -> list[DrawnAnswer]:
        """Return `copies` answers of each prompt with the log-probabilities of their tokens, one prompt after the
        other, decoded as one batch. table: a row of `chances` for each. check is called before each token and may
        raise. The cache is freed on return."""
        answers = [DrawnAnswer(list(prompt)) for prompt in prompts for _ in range(copies)]
        with torch.no_grad(), for_decoding(self._model):
            decoding, alive = DecodedRows(self._decoder, prompts, copies), list(range(len(answers)))
            for place in range(self._length):
                check()
                chosen, logps = self._choose(decoding.next_logits(), table[alive, place])
                going = []
                # A row is one of those still alive.
                for row, (number, token, logp) in enumerate(zip(alive, chosen.tolist(), logps.tolist(), strict=True)):
                    answer = answers[number]
                    answer.ids.append(token)
                    answer.logps.append(logp)
                    answer.has_ended = token in self._stop_ids
                    going += [] if answer.has_ended else [row]
                if not going:
                    break
                decoding.append(chosen)
                # What has ended leaves the batch, with its cache.
                decoding.keep(going)
                alive = [alive[row] for row in going]
        return answers

    def rehearse(self, prompts: Sequence[list[int]], copies: int) -> None:
        """Compute once, for the memory probe, what `draw` needs at most. prompts: each as long as a prompt with its
        full answer. They are read once for all copies, and then two tokens are chosen for each."""
        with torch.no_grad(), for_decoding(self._model):
            rows = DecodedRows(self._decoder, prompts, copies)
            for _ in range(2):
                logits = rows.next_logits()
                rows.append(self._choose(logits, torch.zeros(len(logits), dtype=torch.float64))[0])

    def _choose(self, logits: torch.Tensor, chance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each row's next token and its log-probability, (B,) each.

        The token is drawn at the temperature, at the point `chance` (B,) from 0 to 1 of the cumulated probabilities.
        Temperature 0 takes the likeliest token, with its log-probability at temperature 1. logits (B, V) are
        overwritten.
        """
        if self._temperature not in (0.0, 1.0):
            logits /= self._temperature
        best, chosen = logits.max(-1, keepdim=True)
        # In place, as memory of this size costs more than the arithmetic; each token's probability but for the sum.
        weights = logits.sub_(best).exp_()
        # First the block of the vocabulary is found, then the token in it, so that few numbers need fp64: fp32 sums
        # over 150,000 tokens would give the last ones no room.
        blocks = functional.pad(weights, (0, -weights.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
        sums = blocks.sum(-1).double()
        edges = sums.cumsum(-1)
        if self._temperature:
            point = chance.to(edges.device)[:, None] * edges[:, -1:]
            block = torch.searchsorted(edges, point, right=True).clamp(max=edges.shape[-1] - 1)
            share = (point - edges.gather(1, block)) / sums.gather(1, block) + 1
            inner = blocks.take_along_dim(block[..., None], 1)[:, 0].double().cumsum(-1)
            place = torch.searchsorted(inner, share * inner[:, -1:], right=True).clamp(max=BLOCK - 1)
            chosen = block * BLOCK + place
        return chosen[:, 0], (weights.gather(1, chosen) / edges[:, -1:]).log().float()[:, 0]
