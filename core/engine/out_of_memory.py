"""The ways in which a run saves memory when it runs out, in this order, until it fits: checkpoint layers that were
exempt, smaller micro-batches, gradient checkpointing, activation offloading. No torch.

Smaller micro-batches are more micro-batches, weighted by their trained tokens, so a step has the same rows and the same
update except for rounding: the curve continues. The choice is part of a checkpoint's position, so that a resumed run
keeps it and computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.data.row_order import packed
from core.errors import DoesNotFitError
from core.messages import Message, msg
from core.recipe import Recipe

HALVE, CHECKPOINTING, OFFLOAD, EVERY_LAYER = "halve", "gradient_checkpointing", "activation_offload", "every_layer"


class NothingLeftError(DoesNotFitError):
    """Memory ran out and every way to save it is taken; the adapter is that of the last finished step."""


class Retreat:
    """The memory settings that a step is computed with now, and those taken since the recipe's.

    packed: examples are packed, so a micro-batch is measured in tokens. planned: tokens, or examples, in a planned
    micro-batch. reductions: the ways taken so far, HALVE once per halving. uncheckpointed_layers: how many of the last
    layers fit without checkpointing.
    """

    def __init__(
        self, planned: int, is_packed: bool, on_card: bool, checkpointing: bool = False, offloads: bool = False
    ):
        """Begin without reductions. planned: examples of a micro-batch, or its tokens if is_packed. on_card: whether
        activations may be offloaded when memory runs out. checkpointing, offloads: the recipe's settings."""
        self._planned, self.packed, self._on_card = planned, is_packed, on_card
        self._checkpointing, self._offloads = checkpointing, offloads
        self.reductions: list[str] = []
        self.uncheckpointed_layers = 0

    @classmethod
    def from_recipe(cls, recipe: Recipe, is_packed: bool, on_card: bool) -> Retreat:
        """Create the Retreat of a recipe, from its batch size (times row length if packed), checkpointing and
        offloading. On a CPU and with FSDP activations are not offloaded, by the recipe or later."""
        # A sharded base's weights cannot be told from activations, so offloading would move them too.
        train, on_card = recipe.train, on_card and not recipe.train.fsdp
        planned = train.per_device_train_batch_size * (recipe.row_length if is_packed else 1)
        return cls(
            planned, is_packed, on_card, bool(train.gradient_checkpointing), train.activation_offload and on_card
        )

    @property
    def at_once(self) -> int:
        """The size limit of a micro-batch: tokens if packed, otherwise examples."""
        return max(1, self._planned >> self.reductions.count(HALVE))

    @property
    def checkpointing(self) -> bool:
        """True if the step uses gradient checkpointing, by the recipe or by a reduction."""
        return self._checkpointing or CHECKPOINTING in self.reductions

    @property
    def kept_layers(self) -> int:
        """The number of last layers that are not checkpointed although the others are; 0 without checkpointing, with
        offloading, or once all layers are."""
        is_exempt = self.checkpointing and not self.offloads and EVERY_LAYER not in self.reductions
        return self.uncheckpointed_layers if is_exempt else 0

    @property
    def offloads(self) -> bool:
        """True if activations are offloaded, by the recipe or by a reduction."""
        return self._offloads or OFFLOAD in self.reductions

    def parts(self, rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """Split a planned micro-batch into those computed now: itself unless memory ran out before (HALVE). rows:
        positions in lengths (tokens of the examples)."""
        return self._micro_batches(rows, lengths, self.at_once) if HALVE in self.reductions else [list(rows)]

    def planned_parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Split all rows, given by their lengths in tokens, into micro-batches of at most `at_once` tokens if packed,
        otherwise examples; return their positions."""
        return self._micro_batches(range(len(lengths)), lengths, self.at_once)

    def _micro_batches(self, rows: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
        """Split rows (positions in lengths) into micro-batches of at most `most` tokens if examples are packed,
        otherwise of `most` examples."""
        if self.packed:
            return packed(rows, lengths, most)
        return [list(rows[start : start + most]) for start in range(0, len(rows), most)]

    def take_next(
        self, failed: Sequence[int], lengths: Sequence[int], what: Message, measuring: bool = False
    ) -> Message | None:
        """Record the first way that helps the failed micro-batch in `reductions` (checkpoint every layer, halve until
        it falls apart, checkpointing, offloading); return its message, or None if no way is left. failed: positions in
        lengths.

        what: where memory ran out. measuring: an evaluation saves nothing for a backward, so only smaller batches help.
        """
        # The exemption of layers only saves time, so it is given up before anything else.
        if self.kept_layers and not measuring:
            self.reductions.append(EVERY_LAYER)
            return msg("retreat.every_layer", what=what)
        # Smaller micro-batches first: they cost the least time, and the update stays the same.
        if len(failed) > 1:
            before = self.at_once
            # A batch of short rows may need several halvings until it falls apart at all.
            while len(self._micro_batches(failed, lengths, self.at_once)) == 1:
                self.reductions.append(HALVE)
            key = "retreat.packed" if self.packed else "retreat.batch"
            return msg(key, what=what, before=before, now=self.at_once)
        if measuring:
            return None
        if not self.checkpointing:
            self.reductions.append(CHECKPOINTING)
            return msg("retreat.checkpointing", what=what)
        if self._on_card and not self.offloads:
            self.reductions.append(OFFLOAD)
            return msg("retreat.offload", what=what)
        return None
