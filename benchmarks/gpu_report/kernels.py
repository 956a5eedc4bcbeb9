"""Checks that each kernel of a run gives the right numbers here, in a second or two each. Imports torch."""

from __future__ import annotations

import torch

from benchmarks.gpu_report.hour import Hour, LeftOut, NotWell
from benchmarks.gpu_report.stand_ins import (
    LLAMA_8B,
    SMALL,
    apart,
    compute_of,
    examples,
    hidden,
    seconds_of,
    step_of,
    tuned_of,
)
from core.engine import optimizer as optimizers
from core.engine.device import Compute
from core.engine.variants import elementwise, varlen

NEAR = 0.02  # of the largest value: 16-bit sums in another order


def widths(compute: Compute) -> tuple[int, int]:
    """Return input and output width of the largest matrix of an 8B; on a processor of a small one."""
    shape = LLAMA_8B if compute.on_card else SMALL
    return shape.hidden_size, shape.intermediate_size


def near(found: float, what: str) -> str:
    if not found <= NEAR:  # NaN is not near either
        raise NotWell(f"{what}: {found:.2g} of the largest value apart, {NEAR} is allowed")
    return f"{found:.1g} apart"


def product(hour: Hour) -> str:
    compute = compute_of(hour)
    size = 4096 if compute.on_card else 256
    a, b = (torch.randn(size, size, device=compute.device).to(compute.dtype) for _ in range(2))
    said = near(apart(a[:64] @ b, a[:64].float() @ b.float()), "a product")
    seconds = seconds_of(lambda: a @ b, compute.device)
    return f"{compute.dtype_name}, {said}, {2 * size**3 / seconds / 1e12:.1f} TFLOPS"


def layers(hour: Hour) -> str:
    """Compare norm, rotary and gate as one function each with transformers' own."""
    compute = compute_of(hour)
    tuned = tuned_of(SMALL.model_copy(update={"four_bit": False}), compute).eval()
    own = hidden(tuned)
    found = elementwise.install(tuned)
    try:
        said = near(apart(hidden(tuned), own), "the layers' output")
    finally:
        found.release()
    if not (found.norms and found.gates and found.rotaries):
        raise NotWell(f"not replaced: {found.norms} norms, {found.gates} gates, {found.rotaries} rotary functions")
    return f"{found.norms} norms, {found.gates} gates, {found.rotaries} rotary; {said}"


def one_attention(hour: Hour) -> str:
    """Check torch's kernel for rows of several examples. Without it each example has an attention of its own, which is
    slower and right."""
    compute = compute_of(hour)
    if not compute.on_card:
        raise LeftOut("needs a GPU")
    query, key = (torch.zeros(1, heads, 16, 128, device=compute.device, dtype=compute.dtype) for heads in (32, 8))
    used = {name: varlen.find(query, key, key, window) for name, window in (("whole", None), ("with a window", 4))}
    said = ", ".join(f"{name}: {'used' if kernel else 'not used'}" for name, kernel in used.items())
    return said if all(used.values()) else f"{said}; {why_no_varlen(query[0], key[0])}"


def why_no_varlen(query: torch.Tensor, key: torch.Tensor) -> str:
    try:
        from torch.nn.attention.varlen import varlen_attn

        ends = torch.tensor([0, 9, 16], dtype=torch.int32, device=query.device)
        key = key.repeat_interleave(len(query) // len(key), 0)
        varlen_attn(*(each.transpose(0, 1) for each in (query, key, key)), ends, ends, 9, 9)
    except Exception as error:  # noqa: BLE001 - what it says is the finding
        return f"torch says: {type(error).__name__}: {error}"[:300]
    return "torch's kernel runs, and did not agree with one attention per example"


def product_4bit(hour: Hour, rows: int) -> str:
    """Compare forward and backward with the unpacked matrix, and check for the same bits twice."""
    from bitsandbytes import functional, matmul_4bit

    compute = compute_of(hour)
    d_in, d_out = widths(compute)
    weight = torch.randn(d_out, d_in, device=compute.device).mul_(0.02).to(compute.dtype)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    plain = functional.dequantize_4bit(packed, state).float()
    x = torch.randn(rows, d_in, device=compute.device, dtype=compute.dtype, requires_grad=True)
    above = torch.randn(rows, d_out, device=compute.device, dtype=compute.dtype)

    def forward() -> torch.Tensor:
        return matmul_4bit(x, packed.t(), quant_state=state)

    y = forward()
    (back,) = torch.autograd.grad(y, x, above)
    said = near(max(apart(y, x.float() @ plain.t()), apart(back, above.float() @ plain)), "the product or its gradient")
    again = "the same bits twice" if torch.equal(y, forward()) else "not the same bits twice"
    return f"{said}, {again}, {1e3 * seconds_of(forward, compute.device):.3f} ms"


def product_8bit(hour: Hour) -> str:
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    compute = compute_of(hour)
    d_in, d_out = widths(compute)
    weight = torch.randn(d_out, d_in).mul_(0.02).to(compute.dtype)
    layer = Linear8bitLt(d_in, d_out, False, has_fp16_weights=False, threshold=6.0, device="meta")
    layer.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    layer = layer.to(compute.device)
    x = torch.randn(64, d_in, device=compute.device, dtype=compute.dtype)
    found = apart(layer(x), x.float() @ weight.to(compute.device).float().t())
    if not found <= 0.1:
        raise NotWell(f"{found:.2g} of the largest value apart, 0.1 is allowed of 8 bit")
    return f"{found:.1g} apart, {1e3 * seconds_of(lambda: layer(x), compute.device):.3f} ms"


def adam(hour: Hour, optim: str) -> str:
    """Compare five steps with AdamW in fp32, from the same gradients."""
    compute = compute_of(hour)
    own, theirs = (torch.zeros(512, 512, device=compute.device, requires_grad=True) for _ in range(2))
    if optim.startswith("paged") and not optimizers.can_page(own):
        raise LeftOut("no paging here: a run takes adamw_8bit instead")
    steppers = [
        optimizers.by_name(name, [{"params": [p]}], lr=1e-2) for name, p in (("adamw_torch", own), (optim, theirs))
    ]
    for number in range(5):
        chance = torch.Generator().manual_seed(number)
        slope = (torch.randn(512, 512, generator=chance) + 1).to(compute.device)
        for parameter, stepper in zip((own, theirs), steppers, strict=True):
            parameter.grad = slope.clone()
            stepper.step()
    cosine = float(torch.nn.functional.cosine_similarity(own.detach().flatten(), theirs.detach().flatten(), 0))
    if not cosine > 0.98:
        raise NotWell(f"cosine {cosine:.4f} to AdamW in fp32")
    return f"cosine {cosine:.5f} to AdamW in fp32"


def pinning(hour: Hour) -> str:
    compute = compute_of(hour)
    if not compute.on_card:
        raise LeftOut("needs a GPU")
    size = 256 << 20
    place = torch.empty(size, dtype=torch.uint8, device=compute.device)
    rates = []
    for pinned in (False, True):
        home = torch.full((size,), 3 + pinned, dtype=torch.uint8)
        home = home.pin_memory() if pinned else home
        rates.append(size / seconds_of(lambda: place.copy_(home, non_blocking=True), compute.device) / 1e9)  # noqa: B023
        if not torch.equal(place, home.to(compute.device)):
            raise NotWell(f"{'pinned' if pinned else 'pageable'} RAM arrived with other bytes")
    return f"from pinned RAM {rates[1]:.1f} GB/s, from pageable RAM {rates[0]:.1f}"


def streams(hour: Hour) -> str:
    """A copy on a stream of its own beside products: the right bytes, and how much of the copy is hidden."""
    compute = compute_of(hour)
    if not compute.on_card:
        raise LeftOut("needs a GPU")
    home = torch.arange(64 << 20, dtype=torch.int32).pin_memory()
    place, side = torch.empty_like(home, device=compute.device), torch.cuda.Stream(compute.device)
    factor = torch.randn(4096, 4096, device=compute.device).to(compute.dtype)

    def computing() -> None:
        for _ in range(20):
            factor @ factor

    def copying() -> None:
        with torch.cuda.stream(side):
            place.copy_(home, non_blocking=True)

    def both() -> None:
        side.wait_stream(torch.cuda.current_stream())
        copying()
        computing()
        torch.cuda.current_stream().wait_stream(side)

    alone = [seconds_of(each, compute.device) for each in (computing, copying)]
    together = seconds_of(both, compute.device)
    if not torch.equal(place.cpu(), home):
        raise NotWell("what was copied beside products has other bytes")
    hidden_share = (sum(alone) - together) / min(alone)
    return (
        f"products {1e3 * alone[0]:.0f} ms, copy {1e3 * alone[1]:.0f} ms, both {1e3 * together:.0f} ms: "
        f"{hidden_share:.0%} hidden"
    )


def whole_step(hour: Hour) -> str:
    """QLoRA, packed and fused, with 8-bit AdamW: three steps of a tiny model, whose loss must fall."""
    compute = compute_of(hour)
    step = step_of(tuned_of(SMALL, compute), SMALL, compute, "adamw_8bit" if compute.on_card else "adamw_torch")
    step.begin(0)
    try:
        rows, found = examples(SMALL.length), []
        for number in range(3):
            found.append(step.compute([rows], 1e-2).loss)
            step.apply(is_good=True, is_first=not number)
        fused = f"{step.fused.count} of {step.fused.total} layers fused" if step.fused else "none fused"
    finally:
        step.release()
    if not found[-1] < found[0]:
        raise NotWell(f"losses {found}")
    return f"{'packed' if step.packed else 'not packed'}, {fused}, loss {found[0]:.3f} -> {found[-1]:.3f}"
