"""Where a run is to be used: chosen, said before, made, cancelled, used, deleted. The exports are scripted: their
worker is this test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core import files
from core.export.jobs import JobFolder
from core.export.records import ExportCheck, ExportRequest, ExportResult, ExportStatus
from core.messages import msg
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import trained
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
CHECK = ExportCheck(
    proof="llamacpp", quant="q4_k_m", first_tokens_equal=19, mean_text_loss_adapter=1.0, mean_text_loss_export=1.04,
    prompts_read_alike=20,
    prompts=20, own_prompts=True, passed=True, compute="llama.cpp b11739",
)  # fmt: skip


def finished(workspace: Workspace, run: str) -> Path:
    """A GGUF export as its worker leaves it."""
    name = f"{run}-gguf-q4_k_m"
    folder = workspace.exports / name
    folder.mkdir()
    (folder / "whole-q4_k_m.gguf").write_bytes(bytes(1000))
    result = ExportResult(
        name=name, run=run, run_name="whole", kind="gguf", quant="q4_k_m", base="starter", dtype="bfloat16",
        files={"whole-q4_k_m.gguf": 105_000_000, "Modelfile": 900}, check=CHECK, ollama_name="whole",
        created=time.time(), seconds=60.0,
        phases=(("starting", 1.0), ("merging", 9.0), ("converting_gguf", 50.0)),
    )  # fmt: skip
    files.replace(folder / "export.json", result.model_dump_json())
    return folder


@pytest.mark.parametrize(
    ("language", "viewport"),
    [("en", kit.DESKTOP), pytest.param("zh", kit.PHONE, marks=pytest.mark.full)],
    ids=["en-desktop", "zh-phone"],
)
def test_a_run_is_taken_elsewhere(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str, viewport: dict
) -> None:
    run = trained(workspace, "whole").id
    folder = finished(workspace, run)
    path = "/zh" if language == "zh" else "/?lang=en"
    page, watch = kit.open_page(chrome, app, path, viewport=viewport, permissions=["clipboard-read", "clipboard-write"])
    kit.only_filled(page, "run-open-chat")
    page.locator("#run-way-out").click()
    kit.expect(page.locator("#export-where")).to_be_in_viewport()
    # A chart above it that is drawn late pushed it out of sight, now and then.
    page.evaluate("document.querySelector('#runs-side').style.cssText = 'overflow-anchor: none; padding-top: 1500px'")
    kit.expect(page.locator("#export-where")).to_be_in_viewport()
    page.evaluate("document.querySelector('#runs-side').style.cssText = ''")
    kit.expect(page.locator("#export-start")).to_be_hidden()
    page.locator("#export-where input[value=ollama]").click()
    about = page.locator("#export-about")
    kit.expect(about).to_contain_text("105 MB")  # the earlier one's size and time
    kit.expect(about).to_contain_text("1 min" if language == "en" else "1 分钟")
    kit.only_filled(page, "export-start")
    kit.unfold(page, "#export-forms-fold")
    page.locator("#export-form input[value='gguf:q8_0']").click()
    kit.expect(about).to_contain_text("Q8_0")

    at_work_and_cancelled(page, workspace, run)
    if language == "en":
        page.set_viewport_size(kit.PHONE)
        assert kit.violations(page) == [] and kit.overflow(page) <= 0
        page.set_viewport_size(kit.DESKTOP)
    kit.assert_accessible(page, f"way-out-{language}")

    made = page.locator("#export-status .lg-export")
    kit.expect(made).to_contain_text("19")
    copy = made.locator("button[data-act=copy]").first
    copy.click()
    kit.expect(copy).to_have_text("Copied" if language == "en" else "已复制")
    assert f'-f "{folder / "Modelfile"}"' in page.evaluate("navigator.clipboard.readText()")
    page.once("dialog", lambda asked: asked.accept())
    made.locator("button[data-act=delete]").click()
    kit.expect(made).to_have_count(0)
    assert not folder.exists()
    watch.check()
    page.context.close()


def at_work_and_cancelled(page: Page, workspace: Workspace, run: str) -> None:
    """Its phase and the time left of it and of what follows, by the earlier export's phases; then Cancel, to which the
    worker agrees."""
    request = ExportRequest(workspace=str(workspace.root), run=run, kind="gguf", quant="q8_0")
    job = JobFolder(workspace.exports / ".jobs" / request.name)
    job.path.mkdir(parents=True)
    files.replace(job.path / "request.json", request.model_dump_json())
    with job.lock():
        status = ExportStatus(
            state="running", stage="merging", fraction=0.5, phase=1, phase_since=time.time() - 5, since=time.time() - 6
        )
        job.write(status)
        shown = page.locator("#export-progress")
        kit.expect(shown.locator("[role=progressbar]")).to_have_attribute("aria-valuenow", "50")
        kit.expect(shown).to_contain_text("GGUF Q8_0")
        kit.expect(shown.locator(".lg-numbers")).to_contain_text("1")  # 5 s and 50 s
        page.locator("#export-cancel").click()
        wait_until(job.cancel_requested)
        job.write(status.model_copy(update={"state": "cancelled", "message": msg("export.cancelled")}))
    kit.expect(page.locator("#export-cancel")).to_be_hidden()
    kit.expect(shown.locator(".lg-notice")).to_be_visible()
