"""Exports as the page tells them: at work, done, not proven; and the answers to where a run is to be used."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from core import files
from core.errors import ExportError
from core.export import other_programs
from core.export.exports import Exports
from core.export.jobs import JobFolder
from core.export.records import QUANTS, Difference, ExportCheck, ExportRequest, ExportResult, ExportStatus
from core.messages import msg
from core.models import loading
from core.workspace.folder import Workspace
from webui.kit.wording import Wording
from webui.run import exported, way_out

EN = Wording("en")
CHECK = ExportCheck(
    proof="llamacpp", quant="q4_k_m", first_tokens_equal=19, mean_text_loss_adapter=1.0, mean_text_loss_export=1.04,
    prompts_read_alike=20,
    prompts=20, own_prompts=True, passed=True, compute="llama.cpp",
)  # fmt: skip


def done(kind: str = "gguf", quant: str | None = "q4_k_m", **more: object) -> ExportResult:
    files = {"pirates-q4_k_m.gguf": 90_000_000, "Modelfile": 900}
    values = {
        "name": f"pirates-{kind}",
        "run": "pirates",
        "run_name": "Pirates",
        "kind": kind,
        "quant": quant,
        "base": "starter",
    }
    return ExportResult(
        **values | {"dtype": "bfloat16", "files": files, "check": CHECK, "created": time.time(), "seconds": 60.0} | more
    )


@pytest.mark.parametrize("state", ["running", "cancelled"])
def test_an_export_at_work_says_whether_the_pc_may_fall_asleep_under_it(state: str) -> None:
    status = ExportStatus(
        state=state, stage="merging", message=msg("export.cancelled"), awake=msg("awake.battery", percent=12)
    )
    shown = exported.attempt("merged", status, (None, None), EN)
    assert ("may go to sleep meanwhile" in shown and "12 %" in shown) is (state == "running")


def test_an_export_at_work_tells_its_phase_and_the_time_left_of_all_or_else_of_this_part() -> None:
    status = ExportStatus(state="running", stage="quantising", fraction=0.4)
    assert "40 % · about 2 min left" in exported.attempt("gguf:q4_k_m", status, (10.0, 120.0), EN)
    assert "this step: about 10 s left" in exported.attempt("gguf:q4_k_m", status, (10.0, None), EN)
    assert " left" not in exported.attempt("gguf:q4_k_m", status, (None, None), EN), "nothing is guessed"


def test_answers_that_differ_after_an_export_are_shown_and_escaped() -> None:
    differs = Difference(prompt="<b>Who?</b>", adapter="Arr, me!", export="Arr, you!", first_token_equal=True)
    shown = exported.differences(CHECK.model_copy(update={"differences": (differs,)}), EN)
    assert shown and "Arr, me!" in shown and "Arr, you!" in shown and "&lt;b&gt;Who?" in shown and "<b>" not in shown
    assert exported.differences(CHECK, EN) is None


def test_a_result_has_its_proof_its_commands_and_its_buttons_in_both_languages(tmp_path: Path) -> None:
    for words in (EN, Wording("zh")):
        shown = exported.result(
            done(notes=(msg("gguf.larger_types", larger=1, tensors=2, quant="Q4_K_M"),)), tmp_path, {"lmstudio"}, words
        )
        for sentence in (
            "Q4_K_M",
            "19",
            "0.04",
            "llama-server -m",
            "koboldcpp --model",
            "ollama create",
            "90 MB",
            'data-act="lmstudio"',
        ):
            assert sentence in shown, sentence
        assert 'data-act="delete" data-name="pirates-gguf"' in shown and "data-sure=" in shown
        assert 'data-act="ollama"' not in shown, "it is not on this PC"
    both = {"ollama", "lmstudio"}
    assert 'data-act="ollama"' in exported.result(done(), tmp_path, both, EN)
    assert 'data-act="lmstudio"' not in exported.result(done("merged", None), tmp_path, both, EN)


@pytest.mark.parametrize("kind", ["adapter", "merged", "gguf"])
def test_commands_hold_the_folder_as_each_program_reads_it(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "带 spaces and 'quotes'"
    for _, words in other_programs.commands(done(kind, None), folder):
        assert str(folder) in words or repr(str(folder)) in words
    assert "'C:\\\\Users\\\\new'" in loading.of_model(None, "C:\\Users\\new"), "a backslash of Python's"


def test_every_place_and_every_form_has_its_sentences() -> None:
    forms = {form for each in way_out.FORMS.values() for form in each}
    assert {form.partition(":")[2] for form in forms} == {"", *QUANTS}
    keys = [f"way_out.{kind}_{place}" for place in way_out.FORMS for kind in ("where", "after")]
    keys += [f"way_out.{kind}_{form.replace(':', '_')}" for form in forms for kind in ("form", "costs")]
    for words in (EN, Wording("zh")):
        assert [key for key in keys if not words.knows(key)] == []


def test_the_recommended_form_is_the_first() -> None:
    page = way_out.WayOut(SimpleNamespace(), EN, None)
    assert page.forms("ollama")[0] == "gguf:q4_k_m" and sorted(page.forms("ollama")) == sorted(way_out.GGUF)
    assert page.forms("garage") == ("adapter",) and page.forms("hub")[0] == "adapter"
    assert page.forms("nowhere") == page.forms(None) == page.forms(["x"]) == ()


def test_a_family_is_refused_before_the_button(tmp_path: Path) -> None:
    shape = SimpleNamespace(model_type="lfm3")
    page = way_out.WayOut(SimpleNamespace(workspace=Workspace.open(tmp_path / "w")), EN, None)
    refused = page._refusal(shape, "gguf:q4_k_m")
    assert refused is not None and "b11960" in refused.render("en")
    assert page._refusal(shape, "merged") is None and page._refusal(None, "gguf:q4_k_m") is None


class Started(list):
    """In place of Exports: what was asked of it."""

    def start(self, run: object, kind: str, **more: object) -> None:
        self.append((kind, more))


def test_strength_reaches_the_export_or_is_one_sentence(tmp_path: Path) -> None:
    started = Started()
    idle = SimpleNamespace(busy=None)
    services = SimpleNamespace(
        exports=started, runs=SimpleNamespace(get=lambda run: run), snapshots=SimpleNamespace(now=lambda fresh: idle),
        chat=SimpleNamespace(state=lambda: SimpleNamespace(phase="empty")),
    )  # fmt: skip
    page = way_out.WayOut(services, EN, None)
    for form, strength in (("gguf:q4_k_m", 0.8), ("gguf:bf16", 1)):
        assert page.begin("run", "programs", form, strength)["value"] == ""
    assert started == [
        ("gguf", {"quant": "q4_k_m", "strength": 0.8}),
        ("gguf", {"quant": "bf16", "strength": 1.0}),
    ]
    for strength in (None, "any", [1]):
        assert "lg-notice" in page.begin("run", "programs", "gguf:bf16", strength)["value"]
    assert len(started) == 2


def test_an_export_of_another_strength_is_told_while_it_works_and_can_be_cancelled(tmp_path: Path) -> None:
    """Seen: one that was begun with --strength was not on the page."""
    exports = Exports(Workspace.open(tmp_path / "w"))
    for strength, state in (1.0, "done"), (0.8, "failed"), (0.5, "cancelled"):
        request = ExportRequest(workspace=str(tmp_path), run="r-1", kind="gguf", quant="q8_0", strength=strength)
        job = JobFolder(exports.workspace.exports / ".jobs" / request.name)
        job.path.mkdir(parents=True)
        (job.path / "request.json").write_text(request.model_dump_json())
        job.write(ExportStatus(state=state, message=msg("export.cancelled")))
    attempts = exports.attempts("r-1")
    names = [exported.export_name(request, EN) for request, _ in attempts]
    assert names == ["GGUF Q8_0 × 0.5", "GGUF Q8_0 × 0.8"]
    assert exports.attempts("r") == exports.attempts("") == []


def test_an_export_goes_whole_or_stays_whole_where_a_program_has_a_file_of_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows: its record was deleted first, and the gigabytes stayed where nothing showed them."""
    space = Workspace.open(tmp_path)
    made, exports = done(name="pirates-gguf"), Exports(space)
    folder = space.exports / made.name
    folder.mkdir()
    (folder / "pirates-q4_k_m.gguf").write_bytes(b"weights")
    (folder / "export.json").write_text(made.model_dump_json(), "utf-8")
    with monkeypatch.context() as patched:
        patched.setattr(files, "rename", Mock(side_effect=PermissionError(13, "open in another program")))
        with pytest.raises(ExportError, match="open in another program"):
            exports.delete(made)
    assert [one.name for one in exports.list()] == [made.name] and len(list(folder.iterdir())) == 2
    with monkeypatch.context() as patched:
        patched.setattr(files, "remove_tree", lambda folder: False)  # it is cut off there
        exports.delete(made)
    assert exports.list() == [] and len(list(space.exports.iterdir())) == 1
    Exports(space)
    assert not list(space.exports.iterdir())
