"""An export published from the page to a hub of our own, in an app that knows that hub: seen, sent, taken back by what
it says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.export.records import ExportCheck, ExportResult
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.publishing import TakingHub
from tests.kit.runs import trained

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
PROVEN = ExportCheck(proof="bytes", tensors=2, prompts_read_alike=3, prompts=3, own_prompts=True, passed=True)


@pytest.mark.full
@pytest.mark.parametrize(("language", "viewport"), [("en", kit.DESKTOP), ("zh", kit.PHONE)])
def test_an_adapter_is_published_after_its_files_were_seen(
    chrome: Browser, tmp_path: Path, language: str, viewport: dict
) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    run = trained(workspace, "whole")
    folder = workspace.exports / f"{run.id}-adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(300_000))
    record = {
        "name": folder.name,
        "run": run.id,
        "run_name": "whole",
        "kind": "adapter",
        "base": "starter",
        "dtype": "bfloat16",
    }
    made = ExportResult(
        **record, files={"adapter_model.safetensors": 300_000}, check=PROVEN, created=time.time(), seconds=1.0
    )
    (folder / "export.json").write_text(made.model_dump_json(), "utf-8")
    with TakingHub() as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_plantedForThePage",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        app = kit.start_app(workspace.root, **environment, HF_HOME=str(tmp_path / "hf"))
        try:
            page, watch = kit.open_page(chrome, app, "/zh" if language == "zh" else "/?lang=en", viewport=viewport)
            page.locator("#run-way-out").click()
            kit.expect(page.locator("#publish")).to_be_hidden()
            page.locator("#export-where input[value=hub]").click()
            page.locator(f"#publish-which input[value='{folder.name}']").click()
            page.locator("#publish-repo textarea, #publish-repo input").first.fill("anna/pirate")
            page.locator("#publish-look").click()
            kit.expect(page.locator("#publish-files")).to_contain_text("adapter_model.safetensors")
            kit.assert_accessible(page, f"publish-listed-{language}")
            page.locator("#publish-who input[value=public]").click()
            kit.expect(page.locator("#publish-send")).to_be_hidden()  # another choice is shown first
            page.locator("#publish-who input[value=private]").click()
            page.locator("#publish-look").click()
            kit.expect(page.locator("#publish-send")).to_be_visible()
            page.locator("#publish-repo textarea, #publish-repo input").first.fill("anna/other")  # as a paste does
            kit.expect(page.locator("#publish-send")).to_be_hidden()
            page.locator("#publish-repo textarea, #publish-repo input").first.fill("anna/pirate")
            assert hub.requests == [] and kit.overflow(page) <= 0
            page.locator("#publish-look").click()
            page.locator("#publish-send").click()
            status = page.locator("#publish-status")
            kit.expect(status).to_contain_text("hf repos delete anna/pirate")
            assert hub.rows == [{"id": "anna/pirate", "private": True}]
            kit.assert_accessible(page, f"publish-done-{language}")
            watch.check()
            page.context.close()
        finally:
            app.stop()
