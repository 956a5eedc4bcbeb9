"""Every patch of gradio's inside (webui/server/gradio), each with why it is there and what a newer gradio has to be
read for.

pyproject pins gradio to the minor version that these were written against. One that fails after an update says which
patch to look at; the pin moves once all of them hold.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import orjson
import pytest
from packaging.requirements import Requirement
from starlette.middleware import Middleware

from core.presets import PROJECT
from core.system.checkup import missing_requirements
from webui.kit.following import FollowingDropdown
from webui.server import gradio as patches
from webui.server.blocks import GarageBlocks
from webui.server.guard import Guard


@pytest.fixture(scope="module")
def gradio():
    import gradio

    return gradio


@pytest.fixture
def as_before(gradio) -> Iterator[None]:
    """What a patch replaces for good is put back."""
    from gradio import processing_utils, routes
    from gradio.components import json_component

    places = [(processing_utils, name) for name in ("async_ssrf_protected_get", "async_ssrf_protected_download")]
    places += [(routes, "orjson"), (json_component, "orjson"), (routes, "JSONResponse")]
    before = [(place, name, getattr(place, name)) for place, name in places]
    yield
    for place, name, value in before:
        setattr(place, name, value)


def test_gradio_is_pinned_to_the_minor_version_whose_inside_is_patched() -> None:
    import tomllib

    needs = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    pin = next(need for need in map(Requirement, needs) if need.name == "gradio")
    assert str(pin.specifier) == "<6.32,>=6.31" and pin.specifier.contains(version("gradio"))
    assert not [need for need in missing_requirements() if need.startswith("gradio")]


def test_blocks_are_built_without_an_app_each(gradio) -> None:
    """without_intermediate_apps: gradio made a FastAPI app after each step of building, 0.25 s of the start."""
    made: list[object] = []
    from gradio.routes import App

    real = App.__dict__["create_app"]
    assert isinstance(real, staticmethod), "App.create_app is no static method any more: read the two patches anew"
    with patches.without_intermediate_apps(), gradio.Blocks(analytics_enabled=False) as demo:
        gradio.HTML("one")
    assert getattr(demo, "app", made) is None, "Blocks no longer call App.create_app on leaving: the patch may go"
    assert App.__dict__["create_app"] is real, "it is put back"


def test_our_layers_stand_around_gradios_own(gradio) -> None:
    """behind: launch(app_kwargs) would put the guard inside gradio's CORS layer, which answers preflights by itself."""
    with gradio.Blocks(analytics_enabled=False) as demo:
        gradio.HTML("one")
    from gradio.routes import App

    with patches.with_middleware([Middleware(Guard, hosts=("outermost",)), Middleware(Guard, hosts=("inner",))]):
        app = App.create_app(demo)
    hosts = [layer.kwargs.get("hosts") for layer in app.user_middleware[:2]]
    assert hosts == [("outermost",), ("inner",)], "create_app no longer returns an app that takes layers in this order"


def test_a_page_that_is_slow_to_answer_does_not_end_the_start(gradio, monkeypatch: pytest.MonkeyPatch) -> None:
    """launch(_frontend=False): gradio asks its own page and gives up after three seconds, which a busy PC takes. The
    server has answered by then: launch waits for its /startup-events without a limit."""
    from gradio import networking

    monkeypatch.setattr(networking, "url_ok", lambda url: False)
    with gradio.Blocks(analytics_enabled=False) as demo:
        gradio.HTML("one")
    try:
        with pytest.raises(ValueError, match="localhost"):  # once this passes, _frontend may go
            demo.launch(prevent_thread_lock=True, quiet=True)
        demo.close()
        demo.launch(prevent_thread_lock=True, quiet=True, _frontend=False)
    finally:
        demo.close()


def test_nothing_that_a_page_sends_makes_the_server_fetch_an_address(gradio, as_before) -> None:
    """forbid_fetching: an address where a file should stand was fetched by the server, for whoever reaches the page."""
    from gradio import processing_utils

    fetching = [
        name for name, value in vars(processing_utils).items() if "ssrf" in name and inspect.iscoroutinefunction(value)
    ]
    known = {"async_ssrf_protected_get", "async_ssrf_protected_download"}
    assert set(fetching) == known, (
        "gradio fetches by other functions too, or by others: forbid_fetching has to refuse each"
    )
    patches.forbid_fetching()
    for fetch in (processing_utils.async_ssrf_protected_get, processing_utils.async_ssrf_protected_download):
        with pytest.raises(gradio.Error, match="an address stands where a file should"):
            asyncio.run(fetch("http://127.0.0.1:9/", "anywhere"))


def test_half_a_character_reaches_the_page_as_the_sign_for_one(gradio, as_before) -> None:
    """replace_surrogates: JSON rows and a model's pieces hold lone surrogates, on which gradio's writer ends the page's
    stream."""
    from gradio import routes
    from gradio.components import json_component

    value = {"\ud83d": ["a\udc00", ("b", 1)]}
    with pytest.raises(TypeError):
        orjson.dumps(value)  # once this passes, replace_surrogates may go
    assert routes.orjson is orjson and json_component.orjson is orjson, (
        "the writer is named elsewhere: replace_surrogates is blind"
    )
    patches.replace_surrogates()
    for module in (routes, json_component):
        assert json.loads(module.orjson.dumps(value)) == {"�": ["a�", ["b", 1]]}
        assert module.orjson.dumps({"whole": "😀"}) == '{"whole":"😀"}'.encode() and module.orjson.OPT_SERIALIZE_NUMPY
    # ended in a traceback
    refused = routes.JSONResponse(content={"error": "Value: \ud800 is not in the list"}, status_code=500)
    assert json.loads(refused.body) == {"error": "Value: � is not in the list"}


def test_a_choice_that_has_gone_reaches_the_handler(gradio) -> None:
    """A run chosen in Chat and deleted since. Gradio said "is not in the list of choices", whatever was pressed."""
    with pytest.raises(gradio.Error):
        gradio.Dropdown(["here"]).preprocess("gone")  # once this passes, FollowingDropdown may go
    ours = FollowingDropdown(["here"])
    given = ("gone", "here", None, ["gone"], {"gone": 1}, 1)
    assert [ours.preprocess(one) for one in given] == ["gone", "here", None, None, None, None]
    assert ours.get_block_name() == "dropdown", "the browser draws gradio's own"


def test_an_event_is_answered_while_a_tab_adds_its_listeners(gradio) -> None:
    """Seen on a busy PC: "dictionary changed size during iteration", and the tab that was opened stayed empty."""
    from gradio.state_holder import SessionState

    with GarageBlocks(analytics_enabled=False) as demo:
        opened = gradio.State(False)
        demo.load(lambda: True, None, [opened])
        opened.change(lambda: None, None, None)
    (loads, _), state = demo.fns.values(), SessionState(demo)

    class Drawn:
        @property
        def targets(self) -> list[tuple[int, str]]:
            fns[len(fns) + 100] = loads  # as the other thread does that draws a tab
            return []

    fns = state.blocks_config.fns = {-1: Drawn(), **state.blocks_config.fns}
    with pytest.raises(RuntimeError, match="changed size"):  # else gradio copies its listeners: the patch may go
        gradio.Blocks.get_state_ids_to_track(demo, loads, state)
    ids, hashes = demo.get_state_ids_to_track(loads, state)
    assert ids == [opened._id] and len(hashes) == 1
    assert demo.get_state_ids_to_track(loads, None) == ([], [])


def test_an_output_that_is_left_as_it_is_is_not_built_anew(gradio, monkeypatch) -> None:
    """GarageBlocks: gradio built the component of each gr.skip() anew, sixty a second for a page's beat. The
    result is the same."""
    from gradio.state_holder import SessionState

    with GarageBlocks(analytics_enabled=False) as demo:
        texts, kept, button = (
            [gradio.Textbox(f"text {i}") for i in range(3)],
            gradio.State("before"),
            gradio.Button("go"),
        )
        button.click(lambda: None, None, [texts[0], kept, texts[1], texts[2]])
        button.click(lambda: None, None, [texts[0], kept])
    many, few = demo.fns.values()
    skip = gradio.skip()
    given = [
        (many, (skip, skip, skip, skip)),
        (many, (skip, "now", "new", skip)),
        (many, (gradio.update(label="other"), skip, skip, skip)),
        (many, skip),
        (many, {texts[2]: "by name"}),
        (few, (skip, "alone")),
        (few, ({"a": 1}, skip)),
    ]

    def told(kind: type) -> list[object]:
        state = SessionState(demo)
        return [[asyncio.run(kind.postprocess_data(demo, fn, each, state)), state[kept._id]] for fn, each in given]

    before, built = told(gradio.Blocks), []
    real = gradio.Textbox.__init__
    monkeypatch.setattr(
        gradio.Textbox, "__init__", lambda *arguments, **options: (built.append(1), real(*arguments, **options))[1]
    )
    assert told(gradio.Blocks) == before and len(built) > 5, "gradio builds none anew any more: this may go"
    built.clear()
    assert told(GarageBlocks) == before and len(built) == 1, "the one whose label changed"


def test_gradio_loads_without_writing_stubs_into_its_own_folder() -> None:
    """_NoStubs: half of gradio's import time was .pyi files for 76 classes, written into site-packages at each
    start."""
    script = (
        "import webui, sys\n"
        "from webui.server.gradio import _NoStubs\n"
        "assert any(isinstance(f, _NoStubs) for f in sys.meta_path), 'prepare() did not run before gradio'\n"
        "import gradio.component_meta as meta\n"
        "print(meta.create_or_modify_pyi.__name__, any(isinstance(f, _NoStubs) for f in sys.meta_path))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["<lambda>", "False"], (
        f"the function has another name or place: see _NoStubs\n{done.stderr[-2000:]}"
    )


def test_the_queue_is_not_looked_at_a_thousand_times_a_second() -> None:
    """GarageBlocks: an app that nobody used took 6 % of a core."""
    demo = GarageBlocks().queue()
    assert (demo._queue.sleep_when_free >= 0.01, demo._queue.progress_update_sleep_when_free) == (True, 0.1)


@pytest.mark.parametrize(
    "proxy",
    [{"ALL_PROXY": "socks://127.0.0.1:9"}, {"ALL_PROXY": "socks5://127.0.0.1:9"}, {"HTTP_PROXY": "http://127.0.0.1:9"}],
)
def test_the_app_starts_where_a_proxy_is_set(proxy: dict[str, str]) -> None:
    """without_proxy: gradio makes a client at its import, which refused SOCKS, and asks its own server at the launch,
    by the proxy."""
    code = (
        "import os\nfrom webui.server.gradio import prepare, without_proxy\nprepare()\n"
        "with without_proxy():\n    import gradio as gr\n    with gr.Blocks() as demo: gr.HTML('one')\n"
        "    demo.launch(prevent_thread_lock=True, quiet=True, _frontend=False)\ndemo.close()\n"
        "import core.hub\nfrom huggingface_hub.utils import get_session\nget_session()\n"
        "print(os.environ.get('ALL_PROXY'))\n"
    )
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=clean | proxy, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == str("socks5://127.0.0.1:9" if "ALL_PROXY" in proxy else None)
