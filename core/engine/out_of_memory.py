"""What a run does when the memory is not enough in the middle of it, in this order, until it is: every layer checkpointed where some were
left out, less computed at once, gradient checkpointing, activations in RAM. No torch.

Fewer examples at once make as many micro-batches more, so a step learns of the same rows and, weighted by their learned tokens,
makes the same correction but for rounding: the curve goes on. What was taken is part of a checkpoint's position, so that a later
attempt goes on with it, and computes what this one would have.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.data.row_order import packed
from core.errors import DoesNotFitError
from core.messages import Message, msg
from core.recipe import Recipe

HALVE, CHECKPOINTING, OFFLOAD, EVERY_LAYER = "halve", "gradient_checkpointing", "activation_offload", "every_layer"


class NothingLeftError(DoesNotFitError):
    """The memory is not enough in the middle of a run that saves all it can; the adapter holds the last finished step."""


class Retreat:
    """How a step is computed now. is_packed: whether examples lie end to end in a micro-batch, so that its tokens are what counts.

    whole: of them, or of examples, in a micro-batch of the plan. taken: the ways so far, HALVE as often as that was halved. room_for: the
    last layers that there is room to leave without checkpointing.
    """

    def __init__(self, whole: int, is_packed: bool, on_card: bool, checkpointing: bool = False, offloads: bool = False):
        self._whole, self._packed, self._on_card = whole, is_packed, on_card
        self._checkpointing, self._offloads = checkpointing, offloads
        self.taken: list[str] = []
        self.room_for = 0

    @classmethod
    def of(cls, recipe: Recipe, is_packed: bool, on_card: bool) -> Retreat:
        train, on_card = recipe.train, on_card and not recipe.train.fsdp  # whose weights cannot be told from activations
        whole = train.per_device_train_batch_size * (recipe.row_length if is_packed else 1)
        return cls(whole, is_packed, on_card, bool(train.gradient_checkpointing), train.activation_offload and on_card)

    @property
    def at_once(self) -> int:
        """The most that a micro-batch may hold: tokens where they are packed, else examples."""
        return max(1, self._whole >> self.taken.count(HALVE))

    @property
    def checkpointing(self) -> bool:
        return self._checkpointing or CHECKPOINTING in self.taken

    @property
    def kept_layers(self) -> int:
        """The last ones, which are not checkpointed where the others are."""
        return self.room_for if self.checkpointing and not self.offloads and EVERY_LAYER not in self.taken else 0

    @property
    def offloads(self) -> bool:
        return self._offloads or OFFLOAD in self.taken

    def parts(self, rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """A micro-batch of the plan as those it is computed in now. rows: positions in lengths (tokens of the examples)."""
        return self._parts(rows, lengths, self.at_once) if HALVE in self.taken else [list(rows)]

    def _parts(self, rows: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
        if self._packed:
            return packed(rows, lengths, most)
        return [list(rows[start : start + most]) for start in range(0, len(rows), most)]

    def go_on(self, failed: Sequence[int], lengths: Sequence[int], what: Message, measuring: bool = False) -> Message | None:
        """Take the next way, the first that helps the micro-batch that failed; says which, None where none is left.

        what: where it was not enough. measuring: nothing is kept for a way back then, so only less at once helps.
        """
        if self.kept_layers and not measuring:
            self.taken.append(EVERY_LAYER)
            return msg("retreat.every_layer", what=what)
        if len(failed) > 1:
            before = self.at_once
            while len(self._parts(failed, lengths, self.at_once)) == 1:
                self.taken.append(HALVE)
            key = "retreat.packed" if self._packed else "retreat.batch"
            return msg(key, what=what, before=before, now=self.at_once)
        if measuring:
            return None
        if not self.checkpointing:
            self.taken.append(CHECKPOINTING)
            return msg("retreat.checkpointing", what=what)
        if self._on_card and not self.offloads:
            self.taken.append(OFFLOAD)
            return msg("retreat.offload", what=what)
        return None
