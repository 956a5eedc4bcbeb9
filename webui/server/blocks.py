"""The app's Blocks: errors of handlers in the log, less work for what stays as it is, and less polling."""

from __future__ import annotations

import copy
import logging
from typing import Any

import gradio as gr
from gradio.blocks import convert_component_dict_to_list
from gradio.utils import deep_hash


class GarageBlocks(gr.Blocks):
    """The app's gradio Blocks: exceptions of handlers go to the log, outputs that a handler leaves unchanged cost less,
    and the queue polls less often."""

    async def process_api(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return a handler's result as gradio does; log its exception (none that is meant for the page), raise it as
        gr.Error, and keep gradio from printing it to a terminal that may be closed (6.31)."""
        try:
            return await super().process_api(*arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            logging.getLogger("gradio").error("a handler failed", exc_info=True)
            raise gr.Error(str(error), print_exception=False) from error

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        """Return the updates of a handler's outputs as gradio does, but without building those components anew that it
        leaves unchanged (6.31). A page's update of sixty outputs, none of them changed, took 0.08 of a core (2
        cores)."""
        outputs, skip = block_fn.outputs, gr.skip()
        if len(outputs) > 1 and isinstance(predictions, dict):
            predictions = convert_component_dict_to_list(outputs, {} if predictions == skip else predictions)
        is_listed = isinstance(predictions, list | tuple) and len(predictions) == len(outputs)
        if len(outputs) < 2 or block_fn.batch or not is_listed:
            return await super().postprocess_data(block_fn, predictions, state)
        changed = [place for place, one in enumerate(predictions) if not (isinstance(one, dict) and one == skip)]
        results = [None if block.stateful else skip for block in outputs]
        if changed:
            these = copy.copy(block_fn)
            these.outputs = [outputs[place] for place in changed]
            values = [predictions[place] for place in changed]
            values = await super().postprocess_data(these, values if values[1:] else values[0], state)
            for place, value in zip(changed, values, strict=True):
                results[place] = value
        return results

    def get_state_ids_to_track(self, block_fn: Any, state: Any) -> tuple[list[int], list[Any]]:
        """Return the States among a handler's outputs whose change is listened to, and their hashes, as gradio does,
        but from a copy of the listeners: a tab that is drawn meanwhile adds some, and gradio's loop over them then
        failed (6.31), and with it the event that opens another tab."""
        if state is None:
            return [], []
        targets = {target for fn in list(state.blocks_config.fns.values()) for target in fn.targets}
        tracked = [block._id for block in block_fn.outputs if block.stateful and (block._id, "change") in targets]
        return tracked, [deep_hash(state[id]) for id in tracked]

    def queue(self, **options: Any) -> GarageBlocks:
        """Set up gradio's queue with less polling, and return self: at most 100 times a second for events, and 10 times
        for progress.

        Gradio polls 1000 and 100 times, on Windows 20 and 10 times, which stays so. An idle app took 6 % of a core, and
        now takes 1.8 %. An event waits 5 ms longer.
        """
        super().queue(**options)
        self._queue.sleep_when_free = max(self._queue.sleep_when_free, 0.01)
        self._queue.progress_update_sleep_when_free = 0.1
        return self
