"""The memory of the decoder layers: what they keep for the backward, and what the backward of one needs. Section 1.4 of
docs/memory.md; symbols as in core/memory/arithmetic.py. No torch."""

from __future__ import annotations

from core.memory.constants import memory_constants
from core.memory.setup import Setup
from core.models.shapes.matrices import Matrix
from core.models.shapes.shape import HEAD, ModelShape

WIDEST_HEAD = 256  # of torch's kernel for packed rows
Widths = dict[str, float]  # number of values per width of a layer: hidden, query, key_value, mlp


def at_peak(shape: ModelShape, setup: Setup) -> tuple[float, float, float]:
    """Return the bytes that all layers keep at once, that the backward of one needs beyond that, and of dequantized
    weights."""
    pairs = masked_pairs(shape, setup)  # one boolean byte each, and during the backward a number
    stored = layers_stored(shape, setup) + per_layer_inputs("kept", shape, setup) + pairs
    return stored, at_work(shape, setup) + setup.base_bytes * pairs, dequantized(shape, setup)


def layers_stored(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes that all layers keep at once: all saved activations, or with checkpointing each layer's input; 0
    if they are offloaded. Section 1.4."""
    if setup.offloads:
        return 0.0
    if share := _kept_share(shape, setup):
        return share * layers_stored(shape, _without_checkpointing(setup)) + (1 - share) * layers_stored(
            shape, _without_exempt_layers(setup)
        )
    if setup.gradient_checkpointing:
        width = 4 if setup.fp32_stream else setup.base_bytes
        return setup.tokens * shape.num_hidden_layers * width * shape.hidden_size * shape.streams
    wide, others = shape.wide, shape.num_hidden_layers - shape.wide_layers
    kept_by_layers = setup.tokens * others * layer_kept(shape, setup)
    kept_by_layers += setup.tokens * shape.wide_layers * layer_kept(wide, setup) if wide else 0.0
    kept_by_layers += setup.tokens * (
        shape.window_layers * windows(shape, setup) + shape.scan_layers * scans(shape, setup)
    )
    return kept_by_layers + shape.expert_layers * experts_kept(shape, setup)


def at_work(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes that the backward of the most expensive layer needs beyond what all layers keep.

    If the last layers are not checkpointed: of one of those, or of the first checkpointed one, once theirs are freed.
    """
    if not (share := _kept_share(shape, setup)):
        return layer_at_work(shape, setup) + experts_at_work(shape, setup) + per_layer_inputs("moving", shape, setup)
    gone = share * (
        layers_stored(shape, _without_checkpointing(setup)) - layers_stored(shape, _without_exempt_layers(setup))
    )
    return max(
        at_work(shape, _without_checkpointing(setup)),
        at_work(shape, _without_exempt_layers(setup)) - gone if share < 1 else 0.0,
    )


def _kept_share(shape: ModelShape, setup: Setup) -> float:
    """Return the share of the layers that are not checkpointed although the others are, up to 1; 0 without
    checkpointing, or if activations are offloaded."""
    counts = setup.gradient_checkpointing and not setup.offloads
    return min(1.0, setup.kept_layers / shape.num_hidden_layers) if counts else 0.0


def _without_checkpointing(setup: Setup) -> Setup:
    """Return the setup without checkpointing, by which a layer that is exempt from it is computed."""
    return setup.model_copy(update={"gradient_checkpointing": False, "kept_layers": 0})


def _without_exempt_layers(setup: Setup) -> Setup:
    """Return the setup without layers that are exempt from checkpointing."""
    return setup.model_copy(update={"kept_layers": 0})


def dequantized(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes of the largest 4-bit or 8-bit matrix, dequantized for its product, beyond the layer's peak, at
    which nothing is dequantized; 0 on a 16-bit base. Section 1.6."""
    if setup.base_bits == 16 or not shape.four_bit_params:
        return 0.0
    largest = setup.base_bytes * max(matrix.d_in * matrix.d_out for matrix in shape.matrices)
    hidden = setup.tokens * setup.base_bytes * shape.active_width * (2 - readers_of(shape, setup)["down"])
    # Ours: the peak is at the gradient of down_proj's input, for which down_proj is dequantized.
    last = shape.mlp_matrices[-1:] if setup.trainer.counted else ()
    last_bytes = sum(setup.base_bytes * matrix.d_in * matrix.d_out for matrix in last)
    return max(0.0, largest - hidden, last_bytes)


def _targets(shape: ModelShape, setup: Setup) -> list[Matrix]:
    """Return the matrices inside the decoder layers that adapters are put on; the head is left out."""
    return [matrix for matrix in shape.targets(setup.target_modules) if matrix.name != HEAD]


def kept_values(shape: ModelShape, setup: Setup) -> Widths:
    """Return how many values of each width (hidden, query, ...) one layer keeps per token for its backward; section
    1.4."""
    widths, constants = Widths(setup.trainer.kept[shape.mlp]), memory_constants()
    readers, grouped = readers_of(shape, setup), _is_grouped(shape, setup)
    repeats = shape.num_key_value_heads < shape.num_attention_heads and not grouped
    keeps_whole = shape.model_type in constants.kept_whole.families and not repeats
    for more in (
        constants.kept_besides.get(shape.model_type),
        constants.kept_whole.widths if keeps_whole and setup.trainer.by_transformers else None,
        constants.kept_with_per_layer_inputs if shape.per_layer_size and setup.trainer.counted else None,
        setup.trainer.kept_4bit if setup.method == "qlora" else None,
    ):
        for width, times in (more or {}).items():
            widths[width] = widths.get(width, 0) + times
    if grouped:
        widths["query"] -= 2
        widths["key_value"] = widths.get("key_value", 0) + 2
    widths["hidden"] += readers["attention"] + readers["up"]
    # That kernel's result is the output layer's input, unless heads come before tokens in memory.
    widths["query"] += 0 if grouped and shape.model_type not in constants.heads_first else readers["output"]
    widths["mlp"] += readers["down"]
    if shape.num_experts and setup.trainer.counted:
        # For each expert of a token, its weighted output; the input of its last product is not kept.
        widths["routed"] = widths.get("routed", 0) + 1
        widths["expert"] = -readers["down"]
        widths["hidden"] -= 0 if shape.mlp_matrices else readers["up"]
    elif _recomputes_norms_and_gates(shape, setup):
        cpu = memory_constants().cpu
        widths["hidden"] -= max(0, readers["attention"] + readers["up"] - cpu.keeps_norms.get(shape.model_type, 0))
        if shape.model_type not in cpu.keeps_gates:
            widths["mlp"] -= readers["down"] + 1
    return widths


def _is_packed(shape: ModelShape, setup: Setup) -> bool:
    """Return whether rows are packed; not in families whose rows would attend to each other."""
    is_hybrid = any(doubt.key == "shape.hybrid" for doubt in shape.low_confidence)
    return setup.packed and not is_hybrid and shape.model_type not in memory_constants().not_packed


def _is_grouped(shape: ModelShape, setup: Setup) -> bool:
    """Return whether keys and values stay unrepeated, as in the kernel for packed rows; it takes no attention dropout
    and no heads wider than WIDEST_HEAD."""
    takes = shape.head_dim <= WIDEST_HEAD and shape.model_type not in memory_constants().drops_attention
    return setup.grouped and takes and _is_packed(shape, setup)


def masked_pairs(shape: ModelShape, setup: Setup) -> float:
    """Return the number of token pairs in the mask of padded rows, rows times max_length squared, which all layers
    share. 0 with one row, packed rows, on a CPU, or for a trainer whose memory is not `counted`."""
    is_there = (
        setup.per_device_train_batch_size > 1
        and setup.device == "card"
        and setup.trainer.counted
        and not _is_packed(shape, setup)
    )
    return setup.per_device_train_batch_size * setup.max_length**2 if is_there else 0.0


def _recomputes_norms_and_gates(shape: ModelShape, setup: Setup) -> bool:
    """Return whether the outputs of norms and gates, and a gate's activation, are recomputed in the backward instead of
    kept. That is so on a CPU with plain LoRA (neither DoRA nor dropout, no full training) in families with a gated MLP
    and without experts."""
    plain = setup.device == "cpu" and setup.trainer.counted and setup.method != "full" and not _special(setup)
    return plain and shape.mlp == "gated" and not shape.num_experts


def layer_kept(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes per token that one layer keeps for its backward, without `windows` and `scans`; section 1.4."""
    return setup.base_bytes * (
        _values(shape, kept_values(shape, setup)) + _values_kept_by_adapters(shape, setup)
    ) + _scores("kept", shape, setup)


def windows(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes per token of the mask that a sliding-window layer keeps: one value per pair of tokens; 0 if no
    row is longer than the window, or attention needs no such mask."""
    cuts = (
        shape.window_layers
        and setup.max_length > shape.window
        and setup.trainer.counted
        and not _is_grouped(shape, setup)
    )
    return setup.base_bytes * setup.max_length if cuts and not _bends_scores(shape, setup) else 0.0


def scans(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes per token that a layer's Mamba 2 scan keeps, mostly in fp32. Section 1.4."""
    if not (shape.scan_layers and setup.trainer.counted):
        return 0.0
    states = shape.scan_state * shape.scan_head_dim / max(1, shape.scan_chunk)
    sizes = {"chunk": shape.scan_chunk, "state": shape.scan_state, "head": shape.scan_head_dim, "states": states}
    return shape.scan_heads * sum(times * sizes[name] for name, times in memory_constants().scan.items())


def per_layer_inputs(place: str, shape: ModelShape, setup: Setup) -> float:
    """Return the bytes that the per-layer embeddings of a batch's tokens take in all layers; place: "kept" for the
    backward, or "moving" in it. Section 1.4."""
    a_token = shape.num_hidden_layers * shape.per_layer_size * setup.base_bytes
    return memory_constants().per_layer_inputs[place] * setup.tokens * a_token if setup.trainer.counted else 0.0


def experts_kept(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes that one layer keeps if its experts are trained. Section 1.4.

    peft computes W + BA of all experts, whichever a token uses, from A and B in the base's dtype; plus the input of
    each product for its gradient.
    """
    if not setup.trains_experts:
        return 0.0
    factors = setup.r * shape.expert_width / max(1, shape.expert_layers)
    inputs = setup.tokens * shape.experts_per_token * (shape.hidden_size + shape.expert_size)
    return setup.base_bytes * (3 * _expert_matrix(shape) + factors + inputs)


def experts_at_work(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes of one layer's experts in its backward: what is recomputed with checkpointing, or brought back
    from RAM, and the full gradient of down; 0 if the experts are not trained. Section 1.4."""
    if not setup.trains_experts:
        return 0.0
    again = experts_kept(shape, setup) if setup.gradient_checkpointing or setup.offloads else 0.0
    return again + setup.base_bytes * _expert_matrix(shape)


def _expert_matrix(shape: ModelShape) -> int:
    """Return the values in gate, up or down of all experts of a layer."""
    return shape.num_experts * shape.hidden_size * shape.expert_size


def layer_at_work(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes of the largest layer's own backward, and with checkpointing of its recomputed values. Section
    1.4.

    The peak is at the product of gate and up, when what down_proj kept is freed, or at a norm after the MLP, when
    nothing is.
    """
    # With per-layer embeddings, wider heads share keys and values of earlier layers: measured, a layer with its own is
    # the largest (dry run, 4,096 tokens, QLoRA: E2B 2.3 % off and E4B 0.7, with the wider one 5.8 and 3.0).
    if (wide := shape.wide) and not shape.per_layer_size:
        return max(layer_at_work(wide, setup), layer_at_work(shape.model_copy(update={"wide_layers": 0}), setup))
    constants = memory_constants()
    again_made = _recomputes_norms_and_gates(shape, setup) and shape.model_type not in constants.cpu.keeps_gates
    gone = 0 if again_made else readers_of(shape, setup)["down"]
    besides = _values(shape, constants.moving_besides.get(shape.model_type, {})) if setup.trainer.counted else 0.0
    product = _values(shape, setup.trainer.moving) + besides - shape.active_width * gone
    norm = (
        _values(shape, constants.norm_after_mlp.moving)
        if shape.model_type in constants.norm_after_mlp.families
        else 0.0
    )
    whole_rows = windows(shape, setup) + scans(shape, setup)
    again = layer_kept(shape, setup) + whole_rows if setup.gradient_checkpointing else 0.0
    # Per-layer embeddings enter after the MLP: their kept values are freed when the backward reaches it.
    behind = (
        _values(shape, constants.kept_with_per_layer_inputs)
        if again and shape.per_layer_size and setup.trainer.counted
        else 0.0
    )
    at_mlp, scores = again + setup.base_bytes * (max(product, norm) - behind), _scores("moving", shape, setup)
    if not _bends_scores(shape, setup):
        return max(setup.tokens * (at_mlp + scores), setup.tokens * again + _magnitudes(shape, setup))
    done = (
        setup.base_bytes * kept_values(shape, setup)["mlp"] * shape.active_width
    )  # the MLP's, at the softmax's backward
    return setup.tokens * max(at_mlp, again - done + scores)


def readers_of(shape: ModelShape, setup: Setup) -> dict[str, int]:
    """Return how many copies of a layer's inputs are kept for the backward because something trained reads them:
    {"attention": of the input of the query, key and value matrices, "output": of the output projection, "up": of gate
    and up, "down": of the down projection}."""
    if setup.method == "full":
        return {"attention": 1, "output": 1, "up": 1, "down": 1}
    if _special(setup) and setup.base_bits != 8:  # bitsandbytes' 8-bit product keeps its input
        return {"attention": 0, "output": 0, "up": 0, "down": 0}
    targets = {matrix.name for matrix in _targets(shape, setup)}
    attention, mlp = [m.name for m in shape.attention_matrices], [m.name for m in shape.mlp_matrices]
    if not mlp and shape.num_experts and "all-linear" in setup.target_modules:
        mlp, targets = ["gate_up", "down"], targets | {"gate_up", "down"}  # experts: all-linear reaches them

    def saved_inputs(names: list[str]) -> int:
        """Return how many copies of the input that these layers share are kept: one for each that has an adapter, at
        most one if the trainer keeps it once."""
        number = len(targets & set(names))
        return min(1, number) if setup.trainer.inputs == "once" else number

    return {
        "attention": saved_inputs(attention[:-1]),
        "output": saved_inputs(attention[-1:]),
        "up": saved_inputs(mlp[:-1]),
        "down": saved_inputs(mlp[-1:]),
    }


def _values(shape: ModelShape, widths: Widths) -> float:
    """Return how many values per token these widths are. widths: how many times each width of the model's."""
    sizes = {
        "hidden": shape.hidden_size,
        "query": shape.q_width,
        "key_value": shape.kv_width,
        "mlp": shape.active_width,
    }
    sizes |= {"routed": shape.experts_run * shape.hidden_size, "expert": shape.experts_run * shape.expert_size}
    sizes |= {"per_layer": shape.per_layer_size}
    return sum(times * sizes[name] for name, times in widths.items())


def _special(setup: Setup) -> str | None:
    """Return why the adapters are not plain LoRA, "dora" or "dropout", or None; None too for full training."""
    return None if setup.method == "full" else "dora" if setup.use_dora else "dropout" if setup.lora_dropout else None


def _values_kept_by_adapters(shape: ModelShape, setup: Setup) -> float:
    """Return the values per token that the adapters of one layer keep besides `kept_values`: with DoRA or dropout; 0
    for plain LoRA and full training."""
    special = _special(setup)
    if special is None:
        return 0.0
    copies = memory_constants().besides_lora[setup.trainer.inputs][special]
    a_layer = sum(
        matrix.count * (copies["input"] * matrix.d_in + copies["output"] * matrix.d_out)
        for matrix in _targets(shape, setup)
    )
    return a_layer / shape.num_hidden_layers


def _magnitudes(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes in use while DoRA takes the norm of a whole matrix, in fp32, at the largest matrix of a layer's
    forward; 0 without DoRA.

    An identity as wide as its input, A and B multiplied out and transposed, the weight, and their sum. Counted by the
    dry run.
    """
    if not (setup.use_dora and setup.trainer.counted and setup.method != "full"):
        return 0.0
    return max((4 * m.d_in * (m.d_in + 4 * m.d_out) for m in _targets(shape, setup)), default=0)


def _scores(place: str, shape: ModelShape, setup: Setup) -> float:
    """Return the bytes per token of eager attention's scores, one per pair of tokens; 0 with other attention. place:
    "moving" or "kept". Section 1.4."""
    constants = memory_constants()
    if _bends_scores(shape, setup):
        times = constants.eager_families[shape.model_type][place]
    elif setup.attention == "eager":
        times = constants.eager[place]
    else:
        return 0.0
    return setup.base_bytes * times * shape.num_attention_heads * setup.max_length


def _bends_scores(shape: ModelShape, setup: Setup) -> bool:
    """Return whether attention is eager because no other kernel supports this family's."""
    return shape.model_type in memory_constants().eager_families and setup.trainer.by_transformers
