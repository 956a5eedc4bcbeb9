"""The places of gradio's script that are fixed (webui/server/script), and what the fixes change."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from playwright._impl._driver import compute_driver_executable

from webui.server import script


def test_an_answer_that_was_cancelled_shows_nothing_more() -> None:
    """Seen on a busy PC: a conversation that was opened during an answer was replaced by the answer's next piece
    (tests/browser/test_thinking)."""
    import gradio

    (file,) = Path(gradio.__file__).parent.glob("templates/frontend/assets/Blocks-*.js")
    blocks = file.read_text("utf-8")
    for known in (script.CANCEL, script.PIECES, script.FIRST):
        assert len(known.findall(blocks)) == 1, "gradio cancels in another way: read script anew"
    cancel = re.compile(r"async cancel\(\w+\)\{.*?\}(?=dispatch_load_events\()").search(script.with_fixes(blocks))[0]
    code = f"""
        const page = {{submissions: new Map([[7, {{cancel: async () => {{ over.push(page.submissions.get(7).isOver); }}}}]]), submission_trigger_ids: new Map(),
                      dependencies_by_fn: new Map(), update_loading_status() {{}}, update_loading_stati_state() {{}}, clear_submission(id, one) {{ over.push(id, one === first); }}, {cancel}}};
        const over = [], first = page.submissions.get(7);
        page.cancel([7]).then(() => console.log(JSON.stringify(over)));"""
    done = subprocess.run([compute_driver_executable()[0], "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout) == [True, 7, True], done.stderr[-2000:]


def test_an_app_that_was_closed_is_said_in_the_page_s_language() -> None:
    """Seen on the German page: "Connection to the server was lost", in English."""
    import gradio

    (file,) = Path(gradio.__file__).parent.glob("templates/frontend/assets/Blocks-*.js")
    blocks = file.read_text("utf-8")
    assert blocks.count(script.LOST) == 1, "gradio says it in another way: read script anew"
    fixed = script.with_fixes(blocks)
    (said,) = re.findall(r"let (\w+)=window\.loraGarageLost\b", fixed)
    assert f"title:`Connection Lost`,message:{said}," in fixed


def test_the_page_is_served_it() -> None:
    from gradio import route_utils, routes
    from gradio.routes import BUILD_PATH_LIB

    before = routes.file_response
    try:
        script.serve_fixed_script()
        (file,) = [f.name for f in Path(BUILD_PATH_LIB).glob("Blocks-*.js")]
        gradios = (Path(BUILD_PATH_LIB) / file).read_text("utf-8")
        assert routes.file_response(BUILD_PATH_LIB, file).body.decode() == script.with_fixes(gradios) != gradios
        other = routes.file_response(BUILD_PATH_LIB, next(Path(BUILD_PATH_LIB).glob("*.css")).name)
        assert type(other) is type(route_utils.file_response(BUILD_PATH_LIB, file))
    finally:
        routes.file_response = before


STREAM = """
const page = {event_callbacks: {}, unclosed_events: new Set(), pending_stream_messages: {}, stream_status: {open: false}, config: {root: "http://here"},
              abort_controller: null, api_prefix: "", session_hash: "s"};
let opened = [];
page.stream = () => { const one = {}; opened.push(one); return one; };
const names = new Proxy({}, {has: (_, name) => !(name in globalThis) && name !== "open", get: (_, name) => typeof name === "string" ? (status) => { if (status) status.open = false; } : undefined});
page.open_stream = new Function("names", `with (names) { return CODE }`)(names);
const end = () => opened.at(-1).onmessage({data: JSON.stringify({msg: "close_stream"})});
(async () => {
  await page.open_stream();
  await end();
  const alone = opened.length;
  await page.open_stream();
  page.unclosed_events.add("one that was told to be waiting before the end was read");
  await end();
  const once = opened.length;
  await end();
  console.log(JSON.stringify([alone, once, opened.length]));
})();
"""


def test_an_event_that_waits_when_the_stream_of_answers_ends_is_heard_of_in_the_next() -> None:
    """Seen in a gate beside another: what was found in a data set never came, until something else was pressed."""
    import gradio

    files = {
        file.name: file.read_text("utf-8")
        for file in Path(gradio.__file__).parent.glob("templates/frontend/assets/*.js")
    }
    [client] = [text for text in files.values() if script.CLOSED.search(text)]
    assert [name for name in files if script.NAME.fullmatch(name) and files[name] == client], "it is served as it is"
    assert len(script.CLOSED.findall(client)) == 1, "gradio ends its stream in another way: read script anew"

    def streams(text: str) -> object:
        """How many were opened after an end with nothing waiting, after one with something, and after the next."""
        match = re.search(
            r"async function \w+\(\)(\{let\{event_callbacks:.*?\})(?=function \w+\(\w+,\w+\)\{\w+&&\(\w+\.open=!1)",
            text,
            re.DOTALL,
        )
        code = STREAM.replace(
            "CODE", "async function()" + match[1].replace("\\", "\\\\").replace("`", "\\`").replace("${", "\\${")
        )
        done = subprocess.run([compute_driver_executable()[0], "-e", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    assert streams(client) == [1, 2, 2], "gradio opens the next one itself: CLOSED may go"
    assert streams(script.with_fixes(client)) == [1, 3, 3]
