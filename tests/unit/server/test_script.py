"""The two searches of gradio's script that are made quick (webui/server/script): found where they are, and the same in
what they find."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

from webui.server import script

TREE = """
let next = 0;
const grown = (depth) => ({id: next++, children: Array.from({length: depth ? 3 : 0}, () => grown(depth - 1)),
                           props: {shared_props: {}}});
const root = grown(4), ids = [...Array(next).keys(), null, -1, next];
const events = Array.from({length: 50}, (_, i) => ({targets: [[i % 7, "click"], [i % 5, i % 3 ? "change" : null], [i % 7, "input"]]}));
const look = () => [ids.map((id) => find(root, id)?.id ?? null), find(root, 5) === root.children[0].children[1]];
const told = [look(), look()];
root.children.reverse(); root.children[0].children = [grown(2)]; ids.push(next - 1);  // moved, gone, new
told.push(look(), ids.slice(0, 9).map((id) => page.find_attached_events({id, props: {shared_props: {}}}, events).props.shared_props));
console.log(JSON.stringify(told));
"""


@pytest.fixture(scope="module")
def gradios() -> str:
    import gradio

    (file,) = Path(gradio.__file__).parent.glob("templates/frontend/assets/core-*.js")
    return file.read_text("utf-8")


def test_both_searches_are_where_gradio_had_them(gradios: str) -> None:
    found = [*script.SEARCH.finditer(gradios)]
    assert len(found) == 1 and len(script.EVENTS.findall(gradios)) == 1, (
        "gradio searches in another way: read script anew"
    )
    name = found[0][1]
    assert gradios.count(f"{name}(this.root,") == 6, "not of one tree alone any more: places are kept for one"
    assert not {"places", "attached"} & {*gradios.replace("=", " ").split()}, "the names are taken"


def test_an_answer_that_was_cancelled_shows_nothing_more() -> None:
    """Seen on a busy PC: a conversation that was opened during an answer was replaced by the answer's next piece
    (tests/browser/test_thinking)."""
    import gradio

    (file,) = Path(gradio.__file__).parent.glob("templates/frontend/assets/Blocks-*.js")
    blocks = file.read_text("utf-8")
    for known in (script.CANCEL, script.PIECES, script.FIRST):
        assert len(known.findall(blocks)) == 1, "gradio cancels in another way: read script anew"
    cancel = re.compile(r"async cancel\(\w+\)\{.*?\}(?=dispatch_load_events\()").search(
        script.with_fast_searches(blocks)
    )[0]
    code = f"""
        const page = {{submissions: new Map([[7, {{cancel: async () => {{ over.push(page.submissions.get(7).isOver); }}}}]]), submission_trigger_ids: new Map(),
                      dependencies_by_fn: new Map(), update_loading_status() {{}}, update_loading_stati_state() {{}}, clear_submission(id, one) {{ over.push(id, one === first); }}, {cancel}}};
        const over = [], first = page.submissions.get(7);
        page.cancel([7]).then(() => console.log(JSON.stringify(over)));"""
    done = subprocess.run([compute_driver_executable()[0], "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout) == [True, 7, True], done.stderr[-2000:]


def test_what_is_found_is_the_same(gradios: str) -> None:
    """Moved, replaced, new, of no id: the places that were noted are looked at, never believed."""

    method = re.compile(r"find_attached_events\(\w+,\w+\)\{.*?\}(?=traverse\()")
    name = script.SEARCH.search(gradios)[1]
    search = script.SEARCH.search(gradios)[0]

    def told(text: str, search: str) -> object:
        """By both functions alone, out of gradio's module."""
        code = f"{search};const find={name};const page={{{method.search(text)[0]}}};{TREE}"
        done = subprocess.run([compute_driver_executable()[0], "-e", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    assert told(script.with_fast_searches(gradios), script.with_fast_searches(search)) == told(gradios, search)


def test_the_page_is_served_it(gradios: str) -> None:
    from gradio import route_utils, routes
    from gradio.routes import BUILD_PATH_LIB

    before = routes.file_response
    try:
        script.serve_fast_script()
        (file,) = [f.name for f in Path(BUILD_PATH_LIB).glob("core-*.js")]
        assert routes.file_response(BUILD_PATH_LIB, file).body.decode() == script.with_fast_searches(gradios) != gradios
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
        found = re.search(
            r"async function \w+\(\)(\{let\{event_callbacks:.*?\})(?=function \w+\(\w+,\w+\)\{\w+&&\(\w+\.open=!1)",
            text,
            re.DOTALL,
        )
        code = STREAM.replace(
            "CODE", "async function()" + found[1].replace("\\", "\\\\").replace("`", "\\`").replace("${", "\\${")
        )
        done = subprocess.run([compute_driver_executable()[0], "-e", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    assert streams(client) == [1, 2, 2], "gradio opens the next one itself: CLOSED may go"
    assert streams(script.with_fast_searches(client)) == [1, 3, 3]
