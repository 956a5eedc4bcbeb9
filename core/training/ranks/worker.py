"""Another rank of a run: `python -m core.training.ranks.worker RUN`. It has the base and computes what rank 0 sends; it
has no dataset, no optimizer states, and uses no file of the run folder.

On one PC the ranks meet by a file, on several by lines: {store: [key, value]}, out and in. Orders in lines
(core.system.lines), tensors by the group:
  first {recipe, model_folder, own_code, dtype, pad_token_id, threads, meeting or host, rank, size}, then for each step
  {number, parts: rows of each of its micro-batches, whole, taken, room_for, scaler, seed}
and for some batches of an evaluation
  {number, parts, measures: true, weights: whether rank 0's come first, taken, room_for}
With a sharded base they say here, meet when told to, and load in turn; orders also have passes (most micro-batches of
any rank) and, between steps, gather (a layer).
Out: ready {trainable parameters}, done {number} once its part is computed, with measured [[loss, tokens or pairs]],
told and pairs of an evaluation, and every two seconds use {core.progress.RankUse}, failed {a Message}. It exits as soon
as its stdin closes.
"""

from __future__ import annotations

import os
import queue
import traceback
from pathlib import Path
from typing import Any

from core.recipe import Recipe
from core.runs.ended import Failed
from core.system import cores
from core.system.lines import ToParent
from core.system.processes import keep_freed_memory, leave
from core.training.ranks.meeting import Meeting

Orders = queue.SimpleQueue[dict[str, Any]]


def main() -> int:
    parent, orders = ToParent(), Orders()
    meeting = Meeting(lambda key, value: parent.say(store=[key, value]))
    parent.listen(
        lambda said: meeting.heard(*said["store"]) if "store" in said else orders.put(said), lambda: os._exit(0)
    )
    cores.stand_back()
    keep_freed_memory()
    try:
        _serve(parent, orders, meeting)
    except Exception as error:  # noqa: BLE001 - whatever it was, rank 0 must know it and the log must have it
        traceback.print_exc()
        parent.say(failed=Failed.of(error, Path()).message.model_dump(mode="json"))
    return 1


def _serve(parent: ToParent, orders: Orders, lines: Meeting) -> None:
    from core.engine import device

    device.read_bitsandbytes()
    import torch

    from core.engine import adapter, base_model
    from core.engine.step import Step
    from core.engine.variants import neftune, streaming
    from core.training.ranks.group import RankGroup, mesh
    from core.training.ranks.step import EXTRA, serve
    from core.training.ranks.use import UseOfRank

    first = orders.get()
    recipe, folder = Recipe.model_validate(first["recipe"]), Path(first["model_folder"])
    torch.set_num_threads(first["threads"])
    chosen, compute = recipe.adapter, device.choose(first["dtype"])
    four_bit = chosen.method == "qlora"
    if recipe.train.fsdp:
        parent.say(here=True)
        orders.get()
        among = mesh(Path(first["meeting"]), first["rank"], first["size"], compute.device.type)
        orders.get()
    load = streaming.load if recipe.train.fsdp else base_model.load_finite
    base, compute = load(folder, compute, four_bit, first["own_code"], chosen.load_in_8bit)
    tuned = adapter.add(base, chosen, str(folder), None)
    rank, sharded = (first["rank"], first["size"]), None
    ready = {"ready": sum(parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad)}
    if recipe.train.fsdp:
        from core.engine.variants.fsdp import shard

        sharded = shard(tuned, compute.device, among, lambda work: work.wait())
        parent.say(**ready)
    step = Step.of(tuned, recipe, compute, first["pad_token_id"])
    parent.say(**ready)
    meeting, host = (lines, first["host"]) if "host" in first else (Path(first["meeting"]), "127.0.0.1")
    group = RankGroup(meeting, *rank, step.parameters, EXTRA + rank[1], host)
    step.begin(recipe.train.seed)
    use = UseOfRank.here(compute.on_card, device.card_in_use(compute))

    def say(**said: Any) -> None:
        parent.say(**said, **({"use": found.model_dump()} if (found := use.look()) else {}))

    with neftune.noise(tuned, recipe.train.neftune_noise_alpha):
        while True:
            serve(step, group, orders.get(), rank, say, sharded)


if __name__ == "__main__":
    leave(main())
