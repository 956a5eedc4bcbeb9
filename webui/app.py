"""The whole app: one Gradio app with a page for each language, and its launch options."""

from __future__ import annotations

import json
import os

import gradio as gr
from starlette.middleware import Middleware

from core.messages import LANGUAGES
from webui.kit import hardware
from webui.kit.html import Html, join, tag
from webui.kit.live import AT_ONCE, QUIET, SHOW_CHAT, TICK_S, LivePart, Options, Poller
from webui.kit.theme import ASSETS, styles, theme
from webui.kit.wording import Wording
from webui.pages.banner import LeftRuns, WriteNotice
from webui.pages.chat import ChatPage
from webui.pages.conversations import CHOSEN
from webui.pages.data import DataPage
from webui.pages.help import HelpPage
from webui.pages.models import ModelsPage
from webui.pages.rail import rail
from webui.pages.runs import SAVE, RunsPage
from webui.pages.settings import SettingsPage
from webui.pages.shortcuts import shortcuts
from webui.pages.train import TrainPage
from webui.run import card
from webui.run.chart import uplot_head
from webui.run.signal import signal
from webui.server.door import Door, Doorkeeper
from webui.server.gradio import (
    accept_stale_choices,
    forbid_fetching,
    keep_no_page_configs,
    log_handler_errors,
    poll_less_often,
    replace_surrogates,
    skip_unchanged_outputs,
    with_middleware,
    without_intermediate_apps,
)
from webui.server.guard import Guard
from webui.server.language import PATHS, LanguageDoor, language_link
from webui.server.reach import Reach
from webui.server.run_file import RunFile
from webui.server.script import serve_fast_script
from webui.server.set_file import SetFile
from webui.state.services import Services
from webui.state.snapshot import Snapshot

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
# Scroll to the export of the Runs page; the parts of the tab are drawn a moment later.
SEE_WAY_OUT = """() => {
  const see = (times) => {
    const place = document.querySelector("#way-out");
    if (!place?.offsetParent) return times && requestAnimationFrame(() => see(times - 1));
    const keep = new ResizeObserver(() => place.scrollIntoView({ block: "start" }));
    // at once, and as charts above it are drawn
    keep.observe(document.body);
    const leave = () => keep.disconnect();  // from then on it is the person who scrolls
    ["wheel", "touchmove", "keydown", "pointerdown"].forEach((act) => 
      addEventListener(act, leave, { once: true, passive: true }));
  };
  see(200);
}"""
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
.gradio-container > .main { max-width: 1480px !important; width: 100% !important; margin: 0 !important;
  padding: 0 !important; }
@media (min-width: 721px) { .gradio-container > .main { max-width: 1692px !important; box-sizing: border-box;
  padding-left: 212px !important; } } /* not a margin: it stands there before this comes, and would be moved */
.gradio-container main { width: 100%; padding: 30px clamp(20px, 3.4vw, 44px) 56px !important; }
@media (max-width: 720px) { .gradio-container main { padding: 10px 14px 132px !important; }
  html { scroll-padding: 12px 0 124px; } } /* nor behind Start and the rail of a phone */
@keyframes lg-wait { from, to { visibility: hidden; } }
body:not(.lg-arrived) :is(#left-runs, #pages) { animation: lg-wait 2s; }
</style>"""
CODES = json.dumps({language: Wording(language).t("language.html") for language in LANGUAGES})
HTML_LANG = (
    f"<script>document.documentElement.lang = {CODES}[location.pathname.split('/').filter(Boolean).pop()] || "
    f"'en'; document.querySelector('link[rel=manifest]')?.setAttribute('crossorigin', 'use-credentials');</script>"
)


def build(services: Services) -> gr.Blocks:
    """Build all pages. Their handlers hold services; the state of a visitor is only in gr.State."""
    with without_intermediate_apps():
        return _build(services)


def _build(services: Services) -> gr.Blocks:
    with gr.Blocks(title="LoRA Garage", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as demo:
        build_page(services, Wording("en"), demo)
    for language in LANGUAGES:
        if language != "en":
            with demo.route(Wording(language).t("language.name"), PATHS[language], show_in_navbar=False):
                build_page(services, Wording(language), demo)
    demo.queue(api_open=False, max_size=64, default_concurrency_limit=8)
    poll_less_often(demo)
    return demo


def build_page(services: Services, w: Wording, demo: gr.Blocks) -> None:
    """Build the page of one language, and connect its tabs with each other."""
    gr.Navbar(visible=False)
    opened, planning = gr.Textbox(visible="hidden"), gr.State(False)
    train, chat, runs = TrainPage(services, w, planning), ChatPage(services, w), RunsPage(services, w, opened)
    settings, data = SettingsPage(services, w), DataPage(services, w)
    models, guide = ModelsPage(services, w), HelpPage(services, w)
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
    with gr.Tabs(elem_id="pages") as tabs:
        with gr.Tab(w.t("page.train"), id="train", elem_id="tab-train") as train_tab:
            train.build()
        with gr.Tab(w.t("page.chat"), id="chat", elem_id="tab-chat") as chat_tab:
            chat.build()
        with gr.Tab(w.t("page.data"), id="data", elem_id="tab-data") as data_tab:
            data.build()
        with gr.Tab(w.t("page.runs"), id="runs", elem_id="tab-runs"):
            runs.build()
        with gr.Tab(w.t("page.models"), id="models", elem_id="tab-models") as models_tab:
            models.build()
        with gr.Tab(w.t("page.settings"), id="settings", elem_id="tab-settings") as settings_tab:
            settings.build()
        with gr.Tab(w.t("page.help"), id="help", elem_id="tab-help"):
            guide.build()
    header = [
        LivePart(status, lambda context: gr.update(value=headline(context.snapshot, w))),
        LivePart(chip, lambda context: gr.update(value=hardware.chip(services.monitor.newest(), w))),
    ]
    followed = (unwritable, left, train, chat, runs, models, settings)
    poller = Poller(
        services,
        [*header, *(part for each in followed for part in each.parts())],
        opened,
        planning,
    )
    train.wire(demo, poller, train_tab)
    chat.wire(demo, chat_tab)
    left.wire(poller, tabs)
    train.wizard.further.wire()
    train.wizard.further.wire_button(train.wizard, train.run.further, None, tabs, train.run.notice)
    train.wizard.further.wire_button(train.wizard, train.run.again, None, tabs, train.run.notice, anew=True)
    train.wizard.further.wire_button(train.wizard, runs.further, opened, tabs, runs.run_notice)
    train.wizard.further.wire_button(train.wizard, runs.duplicate, opened, tabs, runs.run_notice, anew=True)
    train.run.finding.wire(train.wizard, None, tabs, train.run.notice)
    runs.finding.wire(train.wizard, opened, tabs, runs.run_notice)
    runs.wire(poller, tabs, chat.target)
    settings.wire(demo, settings_tab)
    data.wire(data_tab, train.wizard.model_step.model)
    data.wire_use(train.wizard, train.wizard.data_step.data, train.wizard.data_step.choices, tabs)
    models.wire(models_tab)
    guide.wire()
    _wire_actions(services, train, chat, runs, poller, tabs)
    poller.wire(demo, gr.Timer(TICK_S)).then(None, js=ARRIVED, **QUIET)


def _wire_actions(
    services: Services, train: TrainPage, chat: ChatPage, runs: RunsPage, poller: Poller, tabs: gr.Tabs
) -> None:
    """The buttons of the run on Train that open another page, or save its picture."""

    def shown() -> str | None:
        view = services.snapshots.now().shown
        return view.row.id if view else None

    run, step = train.run, train.wizard.data_step
    chat.corrections.wire_train(train.wizard, chat.target, step.data, step.choices, tabs)
    run.open_chat.click(lambda: runs.to_chat(shown()), None, [tabs, chat.target], js=CHOSEN, **AT_ONCE).then(
        None, js=SHOW_CHAT
    )
    exported = run.take_out.click(lambda: runs.to_way_out(shown()), None, [tabs, runs.list, *runs.opening], **AT_ONCE)
    poller.after(exported).then(None, js=SEE_WAY_OUT)
    saved = run.save_picture.click(lambda: runs.picture(shown()), None, [run.picture_file, run.notice], **AT_ONCE)
    saved.then(None, [run.picture_file], None, js=SAVE, **QUIET)


def headline(snapshot: Snapshot, w: Wording) -> Html:
    return join([card.headline(snapshot.shown, w), signal(snapshot, w)])


def scripts(*names: str) -> str:
    return "".join(f"<script>{(ASSETS / name).read_text('utf-8')}</script>" for name in names)


def launch(services: Services, port: int, reach: Reach | None = None, keeper: Doorkeeper | None = None) -> gr.Blocks:
    """Serve in the background. reach: None for this PC only. keeper: None for no door. Raises OSError if the port is
    taken."""
    reach = reach or Reach.from_host("127.0.0.1")
    os.environ["GRADIO_TEMP_DIR"] = str(services.workspace.cache / "uploads")
    forbid_fetching()
    replace_surrogates()
    serve_fast_script()
    skip_unchanged_outputs()
    keep_no_page_configs()
    accept_stale_choices()
    log_handler_errors()
    demo = build(services)
    off = ("share", "mcp_server", "ssr_mode", "run_history", "enable_monitoring", "inbrowser")
    options: Options = dict.fromkeys(off, False) | dict.fromkeys(("allowed_paths", "blocked_paths", "footer_links"), [])
    options |= dict.fromkeys(("strict_cors", "show_error", "quiet", "prevent_thread_lock"), True)
    options |= {"server_name": reach.bound, "server_port": port, "root_path": "", "max_file_size": LARGEST_UPLOAD}
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
        Middleware(RunFile, store=services.datasets, workspace=services.workspace),
    ]
    with with_middleware(layers):
        demo.launch(**options)
    return demo
