"""Each family that people tune, as a tiny random model with an adapter, through llama.cpp's converter, quantiser and runtime: the table of
docs/export.md. Long forms; what a tiny model shows is the plumbing (names, shapes, norms, ropes, windows), not the loss of quantising."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.data.tokenizer import Tokenizer
from core.engine import adapter, base_model
from core.errors import ExportError
from core.export import merge, stored
from core.export.llamacpp import make, proof
from core.export.llamacpp import tools as gguf_tools
from core.export.llamacpp.tools import Tools
from core.export.proof import Method, Work
from core.presets import PROJECT
from core.workspace.folder import Workspace
from tests.kit import families
from tests.kit.durations import cache
from tests.kit.trainer import FP32

QUANTISED = ("q8_0", "q4_k_m")
# A tiny random model says every word with about the same probability, so that the bound for real ones would let much pass. Qwen3.5: 3e-7;
# its q4_k_m 3e-4.
MOST_OF_TINY = 2e-5


@pytest.fixture(scope="session")
def tools() -> Tools:
    try:
        return gguf_tools.obtain(Workspace.open(cache()))
    except ExportError as error:
        pytest.skip(str(error))


def outcome(folder: Path, tools: Tools, work: Path) -> list[str]:
    """Of bf16, q8_0 and q4_k_m: "proven" with the divergence, or why not."""
    base, tokenizer, merged = stored.read_base(folder), Tokenizer(folder), work / "merged"
    adapter.save(
        families.tuned(base_model.load(folder, FP32, four_bit=False)), work / "adapter", folder, "card", tokenizer.template.source
    )
    merge.merge(base, work / "adapter", merged, lambda fraction: None, lambda: None)
    order = make.Order(
        tools=tools, quant="bf16", name=folder.parent.name, base=base, adapter=work / "adapter", merged=merged, target=work / "x.gguf",
        work=work, log=work / "log", rows=[], method=Method(FP32), stage=lambda *_: None, check=lambda: None,
    )  # fmt: skip
    probes = proof.probes_of([], tokenizer, by_layer=False)[0][:3]
    kept = proof.Kept(work / "adapter.logs", 40)
    asked = Work(order.method, tokenizer, probes, False, order.stage, order.check)
    found: list[str] = []
    try:
        sixteen = make.convert(order, tokenizer.template.stop)
        asked, _, compared = proof.expect(base, order.adapter, merged, asked, kept)
        assert compared is None or not compared.off
        asking = proof.Asking(tools, work, order.log, order.check, asked, kept)
        found.append(said(asking.ask(sixteen, "adapter.logs", "sixteen.logs"), "bf16", len(probes)))
        for quant in QUANTISED:
            file, _ = make.quantise(replace(order, quant=quant), sixteen)
            found.append(said(asking.ask(file, "sixteen.logs", None), quant, len(probes)))
    except ExportError as error:
        print(error)
        return [*found, *[f"refused: {error.message.key.removeprefix('gguf.')}"] * (3 - len(found))]
    return found


def said(answer: dict, quant: str, probes: int) -> str:
    most = MOST_OF_TINY if quant == "bf16" else proof.MOST_DIVERGENCE[quant]
    verdict = proof.judge(answer, most, probes + len(proof.AWKWARD), None)
    print(quant, verdict.divergence, [reason.render("en") for reason in verdict.reasons])
    return "proven" if not verdict.reasons else ", ".join(reason.key.removeprefix("gguf.reason_") for reason in verdict.reasons)


@pytest.mark.full
@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_table_of_the_docs_says_how_a_family_leaves(name: str, tools: Tools, starter_folder: Path, tmp_path: Path) -> None:
    folder = families.make(name, tmp_path / name / "base", starter_folder)
    if name == "phi3":  # as Phi-4 is on the hub, which has a byte-level tokenizer too
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"tokenizer_class": "GPT2Tokenizer"}), "utf-8")
    line = f"| {name} | `{families.FAMILIES[name].kind}` | {' | '.join(outcome(folder, tools, tmp_path))} |"
    print(f"LINE {line}")
    table = [row for row in (PROJECT / "docs" / "export.md").read_text("utf-8").splitlines() if row.startswith(f"| {name} |")]
    if not table:
        pytest.skip(f"docs/export.md has no line of this family yet; it would be {line}")
    assert table == [line]
