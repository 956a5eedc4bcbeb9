"""Everything that a hub may do to a person who wants a model, on the page: one sentence each, and a way on.

The sentences are looked up by their keys, by what stands in them around their values.
"""

from __future__ import annotations

import re
import shutil
import string
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from core.messages import CORE_LOCALES, Catalogue
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import Status
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.fetching import incomplete
from tests.kit.hub import NO_TENSORS, FakeHub, tiny_model
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.full]
GOOD, GGUF, ADAPTER, PICTURES, BIG = (
    "owner/tiny-chat",
    "owner/tiny-chat-GGUF",
    "owner/tiny-lora",
    "owner/tiny-pictures",
    "owner/tiny-big",
)
TYPO = "Qwen/Qwen3-4BB"
MODEL = tiny_model() | {"config.json": b'{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, '
    b'"num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 256}'}  # fmt: skip
REPOS = {
    GOOD: MODEL,
    GGUF: {"tiny-Q4_K_M.gguf": b"GGUF"},
    ADAPTER: {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a"},
    PICTURES: {"model_index.json": b"{}", "unet/diffusion_pytorch_model.safetensors": b"u"},
    BIG: MODEL | {"model.safetensors": NO_TENSORS + bytes(16 << 20)},
}
ROWS = [
    {"id": GGUF, "tags": ["gguf", f"base_model:quantized:{GOOD}"]},
    {"id": ADAPTER, "tags": ["peft", f"base_model:adapter:{GOOD}"]},
    {"id": PICTURES, "tags": [], "library_name": "diffusers", "pipeline_tag": "text-to-image"},
    {"id": GOOD, "tags": [], "safetensors": {"parameters": {"F32": 1_590_000}, "total": 1_590_000}},
]


def said(key: str, language: str) -> str:
    """The longest part of a sentence without its values, as a page shows it."""
    parts = [text for text, *_ in string.Formatter().parse(Catalogue(CORE_LOCALES).raw(key, language))]
    return max(parts, key=len).strip()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(REPOS) as server:
        server.rows = ROWS
        yield server


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 20 MB of its own for the hub's cache."""
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("a small disk can be made as root on Linux only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Wanting:
    """A person on the page, who names a model and wants it here."""

    def __init__(self, page: Page, language: str):
        self.page, self.language = page, language
        page.on("dialog", lambda dialog: dialog.accept())

    def name(self, repo: str) -> None:
        box = self.page.locator("#model input")
        box.fill(repo)
        box.press("Enter")

    def row(self, repo: str) -> Locator:
        return self.page.locator("#downloads-list li").filter(
            has=self.page.locator("strong", has_text=re.compile(f"^{repo}$"))
        )

    def want(self, repo: str) -> None:
        self.name(repo)
        button = self.page.locator("#download-model")
        kit.expect(button).to_be_visible()
        button.click()

    def is_told(self, repo: str, key: str, *also: str) -> None:
        told = self.row(repo).locator(".lg-notice")
        kit.expect(told).to_contain_text(said(key, self.language), timeout=60_000)
        for part in also:
            kit.expect(told).to_contain_text(part)

    def takes_it_off(self, repo: str) -> None:
        self.row(repo).locator("button[data-act=cancel], button[data-act=remove]").click()
        kit.expect(self.row(repo)).to_have_count(0)

    def fails(self, repo: str, key: str, *also: str) -> None:
        self.want(repo)
        self.is_told(repo, key, *also)
        self.takes_it_off(repo)


@pytest.mark.parametrize(("language", "viewport"), [("en", kit.DESKTOP), ("zh", kit.PHONE)])
def test_each_way_in_which_a_hub_fails_is_a_sentence_and_a_way_on(
    chrome: Browser, hub: FakeHub, tmp_path: Path, language: str, viewport: dict[str, Any]
) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    with small_disk(tmp_path / "hub") as disk:
        app = kit.start_app(workspace.root, HF_ENDPOINT=hub.url, HF_HOME=str(disk), HF_TOKEN="")
        try:
            page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
            kit.unfold(page, "#step-model")
            person = Wanting(page, language)
            a_search_that_is_not_answered(page, hub, language)
            what_can_be_no_base(person)
            kit.nothing_found(page, f"hub-fails-{language}")
            what_is_not_given(person, hub)
            another_file_than_was_named(person, hub)
            a_disk_that_fills(person, hub, disk)
            two_pages_want_one_model(chrome, app, person, hub)
            a_run_keeps_its_model(workspace, person)
            watch.check()
            page.context.close()
        finally:
            app.stop()


def a_search_that_is_not_answered(page: Page, hub: FakeHub, language: str) -> None:
    page.locator("#shelf-words input").fill("tiny")
    hub.silent = True
    page.locator("#ask-hub").click()
    kit.expect(page.locator("#hub-found .lg-notice")).to_contain_text(said("hub_search.slow", language), timeout=60_000)
    hub.silent = False
    hub.release.set()
    for status, body, key in ((429, None, "rate_limit"), (500, None, "server_trouble"), (None, b"<html>", "not_a_hub")):
        hub.status, hub.body = status, body
        page.locator("#ask-hub").click()
        kit.expect(page.locator("#hub-found .lg-notice")).to_contain_text(said(f"hub_search.{key}", language))
    hub.status = hub.body = None
    page.locator("#ask-hub").click()
    kit.expect(page.locator("#hub-found li")).to_have_count(len(ROWS))
    page.locator("#shelf-words input").fill("tiny ch")  # other words
    kit.expect(page.locator("#hub-found")).to_be_hidden()
    page.locator("#shelf-words input").fill("tiny")
    page.locator("#ask-hub").click()
    gguf = page.locator("#hub-found li").filter(has=page.locator("strong", has_text=GGUF))
    gguf.locator(f"button[data-model='{GOOD}']").click()
    kit.expect(page.locator("#model input")).to_have_value(GOOD)


def what_can_be_no_base(person: Wanting) -> None:
    for repo, key in ((GGUF, "hub.only_gguf_of"), (ADAPTER, "hub.adapter_of")):
        person.name(repo)
        about = person.page.locator("#model-about .lg-notice")
        kit.expect(about).to_contain_text(said(key, person.language))  # before anything is begun
        kit.expect(about).to_contain_text(GOOD)
        person.fails(repo, key, GOOD)
    person.fails(PICTURES, "hub.diffusion")
    person.name(TYPO)
    kit.expect(person.page.locator("#model-about .lg-notice")).to_contain_text(
        said("downloads.missing_near", person.language)
    )
    person.fails(TYPO, "downloads.missing_near", "Qwen/Qwen3-4B")


def what_is_not_given(person: Wanting, hub: FakeHub) -> None:
    hub.gated = True
    person.want(GOOD)
    person.is_told(GOOD, "hub.gated")
    person.page.locator("a[data-page=settings]").click()
    person.page.locator("#hub-token input").fill("hf_without_the_right")
    person.page.locator("#hub-token-give").click()
    kit.expect(person.page.locator("#hub-token-forget")).to_be_visible()
    person.page.locator("a[data-page=train]").click()
    person.row(GOOD).locator("button[data-act=retry]").click()
    person.is_told(GOOD, "hub.gated_token")
    hub.gated = False
    person.takes_it_off(GOOD)
    for status, key in ((429, "hub.rate_limit"), (500, "hub.server_trouble")):
        hub.file_status = status
        person.fails(GOOD, key)
    hub.file_status = None


def another_file_than_was_named(person: Wanting, hub: FakeHub) -> None:
    hub.instead = b"<html>another file</html>"
    person.fails(GOOD, "hub.other_file", "model.safetensors")
    hub.instead, hub.corrupt = None, True
    person.want(GOOD)
    person.is_told(GOOD, "hub.damaged", "model.safetensors")
    hub.corrupt = False
    person.row(GOOD).locator("button[data-act=retry]").click()
    kit.expect(person.row(GOOD).locator("button[data-act=remove]")).to_be_visible(timeout=60_000)
    person.takes_it_off(GOOD)


def a_disk_that_fills(person: Wanting, hub: FakeHub, disk: Path) -> None:
    """Somebody else fills it when nine tenths have come; with room again it goes on there."""
    hub.stalled.clear()
    hub.release.clear()
    hub.stall_after = 15 << 20  # of 16
    person.want(BIG)
    wait_until(lambda: hub.stalled.is_set() and incomplete(disk) > 14 << 20, 60)
    ballast = disk / "ballast"
    with open(ballast, "wb") as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    asked = len(hub.requests)
    hub.release.set()
    person.is_told(BIG, "hub.disk_full_midway", "MB")
    ballast.unlink()
    hub.stall_after = None
    person.row(BIG).locator("button[data-act=retry]").click()
    kit.expect(person.row(BIG).locator("button[data-act=remove]")).to_be_visible(timeout=60_000)
    begun = [line for line in hub.requests[asked:] if ".safetensors bytes=" in line]
    assert begun and int(begun[-1].split("bytes=")[1].rstrip("-")) > 14 << 20, "gone on with where it was"
    person.takes_it_off(BIG)
    shutil.rmtree(disk / "hub" / "models--owner--tiny-big")


def two_pages_want_one_model(chrome: Browser, app: kit.App, person: Wanting, hub: FakeHub) -> None:
    shutil.rmtree(Path(app.workspace).parent / "hub" / "hub" / "models--owner--tiny-chat")
    other, _ = kit.open_page(chrome, app, f"/?lang={person.language}")
    kit.unfold(other, "#step-model")
    second = Wanting(other, person.language)
    hub.stalled.clear()
    hub.release.clear()
    hub.stall_after = 64 << 10
    for each in (person, second):
        each.name(GOOD)
        kit.expect(each.page.locator("#download-model")).to_be_visible()
    asked = len(hub.requests)
    for each in (person, second):
        each.page.locator("#download-model").click()
    for each in (person, second):
        kit.expect(each.row(GOOD)).to_have_count(1)
    hub.release.set()
    kit.expect(person.row(GOOD).locator("button[data-act=remove]")).to_be_visible(timeout=60_000)
    assert (
        len(
            [
                line
                for line in hub.requests[asked:]
                if line.startswith("GET") and line.split()[1].endswith(".safetensors")
            ]
        )
        == 1
    )
    other.context.close()


def a_run_keeps_its_model(workspace: Workspace, person: Wanting) -> None:
    recipe = {"name": "keeps it", "model": {"id": GOOD}, "data": {"source": "sample:pirate_answers"}}
    run = Runs(workspace).create(Recipe.parse(recipe), "test")
    run.write_status(Status(state=State.PAUSED, since=time.time()))
    person.page.locator("a[data-page=models]").click()
    row = person.page.locator("#disk-list li", has_text=GOOD)
    kit.expect(row).to_contain_text("keeps it")
    kit.expect(row.locator("button")).to_have_count(0)
