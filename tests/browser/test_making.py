"""Questions from a document in a browser: dropped, written by a model behind a server, reviewed by keyboard, added."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.api.datasets import dataset_store
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.chat_server import ChatServer
from tests.kit.writers import manual, scripted_reply

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


# The rejection of a row reaches the server only once sendReject() is called.
HELD_REJECT = """() => {
    const send = window.fetch, held = new Promise((done) => { window.sendReject = done; });
    window.fetch = async (address, options) => {
        if (String(options?.body).includes('"reject"')) await held;
        return send(address, options);
    };
}"""


@pytest.mark.gate
def test_a_document_becomes_a_dataset_reviewed_by_keyboard(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "manual.md").write_text(manual(6), "utf-8")
    server = ChatServer()
    server.reply = scripted_reply
    page, watch = kit.open_page(chrome, app)
    kit.go_to_tab(page, "Data")
    page.locator("#data-file input[type=file]").set_input_files(tmp_path / "manual.md")
    part = page.locator("#data-questions")
    part.locator("#ep-writer").select_option("server")
    part.locator("#ep-server_url").fill(server.url)
    part.locator("#ep-server_model").fill("big")
    part.locator("#mk-start").click()
    kit.expect(part.locator(".mk-count")).to_contain_text("12 rows kept, 0 reviewed")
    kit.expect(part.locator("#mk-start")).to_have_text("Make others")
    kit.assert_accessible(page, "making")

    page.evaluate(HELD_REJECT)
    part.locator(".mk-text").first.focus()
    with page.expect_response(lambda response: '"mark":null' in (response.request.post_data or "")):  # to be drawn anew
        for key in "ar":
            page.keyboard.press(key)  # at once; seen: the second key decided on the first row again
    page.wait_for_timeout(200)  # until it is drawn; seen: the third key decided on the second row again
    page.keyboard.press("l")
    page.evaluate("sendReject()")
    kit.expect(part.locator(".mk-count")).to_contain_text("11 rows kept, 3 reviewed, 1 rejected")
    page.keyboard.press("e")
    part.locator("[name=answer_0]").fill("Aye, it turns.")
    part.get_by_role("button", name="Save").click()
    kit.expect(part.locator(".mk-count")).to_contain_text("11 rows kept, 4 reviewed, 1 rejected")
    page.set_viewport_size(kit.PHONE)
    assert kit.overflow(page) <= 0
    kit.assert_accessible(page, "making-phone")
    part.locator("#mk-add").click()
    kit.expect(page.get_by_text("has 11 rows")).to_be_in_viewport()  # seen: below all rows
    kit.expect(page.locator("#data-sets")).to_contain_text("Questions from manual")
    store = dataset_store(workspace)
    [info] = [one for one in store.list() if one.made]
    assert "Aye, it turns." in [example.messages[-1].content for _, example in store.rows(info.id)]
    page.set_viewport_size(kit.DESKTOP)
    (tmp_path / "other.md").write_text(manual(2), "utf-8")
    page.locator("#data-file input[type=file]").set_input_files(tmp_path / "other.md")
    kit.expect(page.locator("#data-head h2")).to_have_text("other")
    kit.expect(part.locator("#ep-writer")).to_be_visible()  # seen: folded, and with the choices of the document before
    kit.expect(part.locator("#ep-writer")).not_to_have_value("server")
    head = page.locator("#data-rows .dt-head [role=columnheader]:visible")
    kit.expect(head).to_have_text(["Rows", "Text", "Open in full"])
    page.locator("#data-sets").get_by_label("Pirate answers").click()
    kit.expect(head).to_have_text(["Rows", "Question", "Answer", "Open in full"])
    watch.check()
    page.context.close()
    server.close()
