"""The whole app: one Gradio app with a page for each language, and its launch options."""

from __future__ import annotations

import json
import os
from functools import partial

import gradio as gr
from starlette.middleware import Middleware

from core.messages import LANGUAGES
from core.system.reach import Reach
from webui.kit import hardware
from webui.kit.html import Html, join, tag
from webui.kit.live import QUIET, TICK_S, LivePart, Options, Poller
from webui.kit.tab import BEAT, when_opened
from webui.kit.theme import ASSETS, styles, theme
from webui.kit.wording import Wording
from webui.pages import chat, data, evaluate, help, models, runs, settings
from webui.pages.banner import LeftRuns, WriteNotice
from webui.pages.page_around import PageAround
from webui.pages.rail import rail
from webui.pages.shortcuts import shortcuts
from webui.pages.train import TrainPage
from webui.run import card
from webui.run.chart import uplot_head
from webui.run.signal import signal
from webui.server.blocks import GarageBlocks
from webui.server.door import Door, Doorkeeper
from webui.server.gradio import (
    forbid_fetching,
    replace_surrogates,
    with_middleware,
    without_intermediate_apps,
)
from webui.server.guard import Guard
from webui.server.language import PATHS, LanguageDoor, language_link
from webui.server.script import serve_fixed_script
from webui.server.set_file import SetFile
from webui.state.services import Services
from webui.state.snapshot import Snapshot

# Drawn when they are first opened.
TABS = {page.__name__.rpartition(".")[2]: page.draw for page in (chat, data, runs, evaluate, models, settings, help)}
LARGEST_UPLOAD = "2gb"
SCRIPTS = (
    "focus.js",
    "folds.js",
    "choices.js",
    "form.js",
    "start.js",
    "rail.js",
    "duel.js",
    "signal.js",
    "shortcuts.js",
)
# Parts drawn before the first answer are hidden until then, as they would move (FIRST_STYLE shows them after two
# seconds in any case).
ARRIVED = (
    "() => { requestAnimationFrame(() => requestAnimationFrame(() => document.body.classList.add('lg-arrived'))); }"
)
# The page's width before our style sheet is loaded, and room for the scroll bar. gradio's own list of pages is never
# shown: the language link in the header is ours.
FIRST_STYLE = """<style>
html { scrollbar-gutter: stable; scroll-padding: 110px 0 24px; } /* what has the focus is not behind the bar */
.nav-holder { display: none !important; }
.gradio-container > .main > .wrap.translucent { position: fixed !important; inset: 0; } /* gradio's "Loading" */
.gradio-container > .main { max-width: none !important; width: 100% !important; margin: 0 !important;
  padding: 0 !important; }
@media (min-width: 721px) { .gradio-container > .main { box-sizing: border-box; padding-left: 212px !important; } }
.gradio-container main { width: 100%; max-width: 1480px; margin: 0 auto !important;
  padding: 30px clamp(20px, 3.4vw, 44px) 56px !important; }
@media (max-width: 720px) { .gradio-container main { padding: 10px 14px 132px !important; }
  html { scroll-padding: 12px 0 124px; } } /* nor behind Start and the rail of a phone */
@keyframes lg-wait { from, to { visibility: hidden; } }
body:not(.lg-arrived) :is(#left-runs, #pages) { animation: lg-wait 2s; }
</style>"""
# By language, the page's code and the sentence for an app that does not answer (server/script).
FIRST_WORDS = json.dumps(
    {each: [*map(Wording(each).t, ("language.html", "page.lost"))] for each in LANGUAGES},
    ensure_ascii=False,
)
HTML_LANG = (
    f"<script>{{ const words = {FIRST_WORDS}; [document.documentElement.lang, window.loraGarageLost] = "
    f"words[location.pathname.split('/').filter(Boolean).pop()] ?? words.en; }} "
    f"document.querySelector('link[rel=manifest]')?.setAttribute('crossorigin', 'use-credentials');</script>"
)


def build(services: Services) -> gr.Blocks:
    """Return the whole app: a page for each language, whose handlers hold services; the state of a visitor is only in
    gr.State."""
    with without_intermediate_apps():
        return _build(services)


def _build(services: Services) -> gr.Blocks:
    """Return the app with a page for each language, English at the root, and its queue set up."""
    with GarageBlocks(
        title="LoRA Garage", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True
    ) as demo:
        build_page(services, Wording("en"), demo)
    for language in LANGUAGES:
        if language != "en":
            with demo.route(Wording(language).t("language.name"), PATHS[language], show_in_navbar=False):
                build_page(services, Wording(language), demo)
    demo.queue(api_open=False, max_size=64, default_concurrency_limit=8)
    return demo


def build_page(services: Services, w: Wording, demo: gr.Blocks) -> None:
    """Build the page of one language: its header, Train, and the tabs that are drawn when they are first opened."""
    gr.Navbar(visible=False)
    opened, planning = gr.Textbox(visible="hidden"), gr.State(False)
    train, talk_to = TrainPage(services, w, planning), gr.Textbox(visible="hidden")
    with gr.Row(elem_id="header-row"):
        gr.HTML(tag("div", tag("h1", "LoRA Garage"), class_="lg-header"))
        gr.HTML(rail(w), elem_id="rail")
        status = gr.HTML(headline(services.snapshots.now(), w), elem_id="header-status")
        chip = gr.HTML(hardware.chip(services.monitor.newest(), w), elem_id="header-hardware")
        others = [language_link(language, class_="lg-language") for language in LANGUAGES if language != w.language]
        gr.HTML(join([*others, shortcuts(w)]), elem_id="language")
    unwritable, left = WriteNotice(services, w), LeftRuns(services, w)
    unwritable.build()
    left.build()
    with gr.Tabs(elem_id="pages") as tabs, _tab("train", w) as train_tab:
        train.build()
    header = [
        LivePart(status, lambda context: gr.update(value=headline(context.snapshot, w))),
        LivePart(chip, lambda context: gr.update(value=hardware.chip(services.monitor.newest(), w))),
    ]
    followed = (unwritable, left, train)
    poller = Poller(services, [*header, *(part for each in followed for part in each.parts())], opened, planning)
    around = PageAround(services, w, demo, poller, tabs, train.wizard, opened, talk_to)
    with tabs:
        for name, draw in TABS.items():
            with _tab(name, w) as tab:
                when_opened(tab, partial(draw, around, tab))
    train.wire(demo, poller, train_tab)
    left.wire(poller, tabs)
    train.wire_tabs(poller, tabs, opened, talk_to)
    clock = gr.Timer(TICK_S)
    poller.wire(demo, clock).then(None, js=ARRIVED, **QUIET)
    clock.tick(None, None, None, js=BEAT, **QUIET)


def _tab(name: str, w: Wording) -> gr.Tab:
    return gr.Tab(w.t(f"page.{name}"), id=name, elem_id=f"tab-{name}")


def headline(snapshot: Snapshot, w: Wording) -> Html:
    """Return the page's head: the state of the run that Train shows, and hidden parts from which the browser makes the
    tab's title, its icon and a notification when a run ends."""
    return join([card.headline(snapshot.shown, w), signal(snapshot, w)])


def scripts(*names: str) -> str:
    """Return script elements with the contents of these files of the assets folder, so that the page loads no files for
    them."""
    return "".join(f"<script>{(ASSETS / name).read_text('utf-8')}</script>" for name in names)


def launch(services: Services, port: int, reach: Reach | None = None, keeper: Doorkeeper | None = None) -> gr.Blocks:
    """Build the app, serve it on port in the background behind our guards, and return it; uploads go to the workspace's
    cache. reach: None for this PC only. keeper: None for no door. Raises OSError if the port is taken."""
    reach = reach or Reach.from_host("127.0.0.1")
    os.environ["GRADIO_TEMP_DIR"] = str(services.workspace.cache / "uploads")
    forbid_fetching()
    replace_surrogates()
    serve_fixed_script()
    demo = build(services)
    off = ("share", "mcp_server", "ssr_mode", "run_history", "enable_monitoring", "inbrowser")
    options: Options = dict.fromkeys(off, False) | dict.fromkeys(("allowed_paths", "blocked_paths", "footer_links"), [])
    options |= dict.fromkeys(("strict_cors", "show_error", "quiet", "prevent_thread_lock"), True)
    options |= {"server_name": reach.bound, "server_port": port, "root_path": "", "max_file_size": LARGEST_UPLOAD}
    # gradio keeps a page's state and its drawn tabs (4 MB) until as many others were opened since.
    options |= {"state_session_capacity": 64}
    # A phone or browser may install the page; its manifest is requested with the cookie that opens the door.
    options |= {"pwa": True, "favicon_path": str(ASSETS / "icon.svg")}
    options |= {
        # else gradio requests its own page at the start, and fails on a PC that takes three seconds for it
        "_frontend": False,
        "theme": theme(),
        "css": styles(),
        "head": FIRST_STYLE + HTML_LANG + uplot_head() + scripts(*SCRIPTS),
        "app_kwargs": {"docs_url": None, "redoc_url": None, "openapi_url": None},
    }
    layers = [
        Middleware(Guard, hosts=reach.names),
        *([Middleware(Door, keeper=keeper)] if keeper else []),
        Middleware(LanguageDoor),
        Middleware(SetFile, sets=services.datasets, workspace=services.workspace),
    ]
    with with_middleware(layers):
        demo.launch(**options)
    return demo
