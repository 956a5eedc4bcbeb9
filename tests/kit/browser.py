"""A real Chromium on a real app, for browser tests and screenshots.

The browser is LORA_GARAGE_BROWSER, else chromium-headless-shell (a page costs it a third less) or chromium; where there
is none the tests marked browser are skipped with that reason (tests/conftest.py, which also has the fixture chrome;
tests/browser/conftest.py has the apps and their workspaces).

Stable elem_ids (CSS `#id`); the page is / in English and /zh in Chinese:
  header        #header-status (what is going on), #language (link to the other language)
  header        #header-hardware (what trains, and how full it is)
  above all     #workspace-notice (it cannot be written), #left-runs > #left-runs-message, #left-runs-which,
                #left-runs-go-on, #left-runs-leave; #left-runs-notice
  train further #run-further, #details-further; above the form #further > #further-message, #further-undo
  run doctor    in the form #finding-<id> with #remedy-<id> (data: few_rows, duplicates, leakage, near_leakage; plan:
                few_steps, hot_plan), #data-left-out;
                of a run #run-finding with #run-remedy, #details-finding with #details-remedy
  pages         nav.lg-rail a[data-page], the open one with aria-current; panels #tab-train #tab-chat #tab-data
                #tab-runs #tab-evaluate #tab-models #tab-settings #tab-help
  Train, start  #form-column (hidden while something trains); #start-cards > button[data-set] (aria-pressed), #file
                (input[type=file]), #import > #import-progress, #import-cancel; #file-notice, #start-links;
                #start-bar > #start-summary > .lg-part[data-step=data|goal|model|plan|train] (aria-expanded), which tell
                the whole plan, and #start; #start-notice
  Train, steps  #step-goal #step-model #step-data #step-plan #step-train: accordions that the bar opens, one at a time
                (unfold, open_step); what is folded is not in the page at all
                goal: #goal (radio), #goal-against, #goal-about, #start-from > #recipe-file, #fill-notice,
                #next-goal
                model: #shelf-words, #shelf-fitting, #shelf-sell, #shelf-language, #shelf (li, button[data-model]),
                #ask-hub, #hub-found,
                #model, #model-about, #download-room, #download-model, #download-notice, #next-model
                data: #data (radio, value = data set id), #hub-set > #hub-set-words, #hub-set-ask, #hub-set-found
                (button[data-set]),
                #hub-set-failure, #hub-set-one > #hub-set-part, #hub-set-head, #hub-set-message, #hub-set-columns >
                #hub-set-question, #hub-set-answer; #hub-set-add, #hub-set-take; #hub-set-progress; #data-report,
                #comparing > #comparing-message, #comparing-choose, #comparing-try, #comparing-tried;
                #learned > #learned-counters, #learned-row, #row-before, #row-after, #next-data
                of a chat #chat-choices > #chat-voice, #chat-gap, #chat-pseudonyms, #chat-about; of a table
                #column-choices > #first-rows,
                #column-<number>; #reading-notice
                plan: #plan-for, #cards (checkboxes, of two cards and more), #cards-now, #method, #rank, #plan-at-hand,
                #all-settings >
                #settings-search, #setting-<name>, #reset-settings,
                #next-plan
                train: #run-name, #start-at; beside an open step #plan-beside > #plan-card, #plan-more
  downloads     below the form, while there are any: #downloads > #downloads-list (li, button[data-act]),
                #downloads-notice
  Train, run    #run-notice, #run-box > #run-main, #run-side: #run-card (name, state, phase, progress bar,
                .lg-figures), #stop, #run-again, #run-open-chat, #live-chart, #live-film (.fs-watch; .fs-all folds the
                evaluations), #run-settings-fold > #run-settings, #run-story-fold > #run-story
  Evaluate      #evaluate > #ep-choose (#ep-model, [name=questions], #ep-start, [data-act=stop], .ep-how), #ep-result
                (.ev-conclusion, .ev-share, #ep-confusions), #ep-rows ([data-set=filter], #ev-open-<row>,
                #ev-answers-<row>), #ep-sets (.ep-set, #ep-add, input[data-most]), .ev-message
  Models        #disk-list (li, button[data-kept], button[data-train]), #models-downloads, #models-words,
                #models-ask, #models-found, #models-shelf (li, button[data-repo])
  Help          #help-chapter (radio), #help-text
  Settings      #hardware, #places, #languages
  Chat          #chat-target, #chat-checkpoint, #chat-status, #chat-empty > .lg-idea, #chat-columns,
                #chat-base, #chat-tuned ([data-testid=bot], [data-testid=user]), #chat-base-note, #chat-tuned-note,
                #chat-notice, #chat-message, #chat-send, #chat-stop, #chat-undo, #chat-regenerate, #chat-clear,
                #chat-correct > #chat-correction-text,
                #chat-correction-save, #chat-correction-close; #chat-better-before, #chat-better-now,
                #chat-better-earlier, #chat-correction-notice; #chat-conversations (accordion) >
                #chat-conversations-search, #chat-conversations-list, #chat-conversations-message,
                #chat-conversation-name, #chat-conversation-rename, #chat-conversation-delete,
                #chat-conversation-really,
                #chat-settings (accordion) > #chat-precision, #chat-load,
                #chat-system, #chat-temperature, #chat-top-p, #chat-max-new-tokens,
                #chat-thinking (radio: trained, on, off; where the template knows it), #chat-seed, #chat-second-run,
                #chat-second-strength; details.lg-thought, details.lg-call in an answer
                blind: #duel-about, #duel-begin, #duel-contenders > #duel-first, #duel-second (each with -checkpoint,
                -strength, -precision), #duel-own, #duel-length; #duel-message, #duel-question, #duel-answers,
                #duel-left, #duel-right, #duel-equal, #duel-both-bad, #duel-result, #duel-pairs
  Data          #data-file (input[type=file]), #data-import, #data-sets (radio, value = data set id), #data-head,
                #data-use, #data-copy, #data-export (link), #data-delete, #data-notice; #data-mending > #data-found
                (button[data-mend]); #data-rows > #data-search, #data-undo, #data-redo, #data-add, #data-show
                (button[data-show]: all, problems, a kind of finding), .dt-row[aria-rowindex], .dt-editor,
                .dt-chosen > #data-delete-rows, #data-deselect; #data-message, #data-place;
                #data-row > #data-row-title, #data-row-first, #data-row-second, #data-row-save, #data-row-delete,
                #data-row-close, #data-row-tokens
  Runs          #runs-list (radio, value = run id; checkboxes, .rt-compare), #runs-empty, #details-card, #details,
                #details-chart,
                #details-chat, #details-settings, #details-story, #manage-fold, #rename-name, #rename, #delete,
                #delete-sure,
                #delete-really, #delete-keep, #manage-notice; #run-way-out (of Train) leads to #way-out > #export-where
                (radio), #export-about,
                #export-forms-fold > #export-form (radio), #export-start, #export-cancel, #export-notice,
                #export-progress,
                #export-status (.lg-export, button[data-act])
A chart's newest numbers are the aria-label of its `.lc-plot`; its sentence is `.lc-note`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.messages import msg
from core.presets import PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.kit.ports import free_port
from tests.kit.waits import PATIENCE, wait_until
from tests.windows import console

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
START_S = 60.0 * PATIENCE
ENGLISH = {
    "LORA_GARAGE_LANGUAGES": "en"
}  # of start_app, where a test asks for no other: a page less to build, 0.9 s of a processor
LEFT = "this page is left"
# How far what stood there was moved by what came, without a person's doing: of each frame, as browsers count it.
SHIFTS = """window.shifts = []; new PerformanceObserver((list) => {
    for (const each of list.getEntries()) if (!each.hadRecentInput) shifts.push(each.value);
}).observe({ type: "layout-shift", buffered: true });"""
STREAMS_END = (
    "AbortError: BodyStreamBuffer was aborted",
    "AbortError: signal is aborted without reason",  # of one that was not answered yet
    "Unexpected error Connection errored out.",
)
PATIENCE_MS = 20_000  # of what is expected of a page: two cores are shared with everything else that is tested


def chromium() -> str | None:
    """The browser's path, or None where there is none to use."""
    found = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    for path in (os.environ.get("LORA_GARAGE_BROWSER"), *(f"/usr/bin/{name}" for name in found)):
        if path and Path(path).exists():
            return path
    return None


@dataclass
class App:
    """`python -m webui` in a process of its own."""

    url: str
    port: int
    workspace: Path
    process: subprocess.Popen
    log: Path

    def stop(self, timeout_s: float = 60.0) -> int:
        if self.process.poll() is None:
            if os.name == "nt":
                console.press_ctrl_c(self.process.pid)
            else:
                self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


def start_app(
    workspace: Path, port: int | None = None, options: Sequence[str] = (), module: str = "webui", **environment: str
) -> App:
    """Serve workspace and wait until the page answers. options: more of the command line. Raises AssertionError with
    the app's output where it does not."""
    port = port or free_port()
    log = workspace / "app.log"
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                module,
                "--port",
                str(port),
                "--workspace",
                str(workspace),
                "--no-browser",
                *options,
            ],
            cwd=PROJECT,
            env=os.environ | {"LORA_GARAGE_LANGUAGES": "en,zh"} | environment,  # a page less to build at each start
            stdout=output,
            stderr=subprocess.STDOUT,
            creationflags=0 if os.name != "nt" else subprocess.CREATE_NEW_CONSOLE,  # in which App.stop presses Ctrl-C
        )
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url + "/theme.css", timeout=5).close()
            return App(url, port, workspace, process, log)
        except urllib.error.HTTPError as error:  # behind a door
            if error.code == 401:
                return App(url, port, workspace, process, log)
            time.sleep(0.1)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    process.kill()
    raise AssertionError(f"the app did not start:\n{log.read_text('utf-8', 'replace')[-4000:]}")


@contextmanager
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@dataclass
class Watch:
    """Records what must not happen on a page: errors in its console, requests that leave this PC. Gradio writes an
    error where a page is left or loaded again and its streams end; such errors are ignored until the next page is
    there."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    is_left: bool = False

    def on_console(self, message: ConsoleMessage) -> None:
        if message.text == LEFT:
            self.is_left = True
        elif message.type == "error" and not (self.is_left and message.text.startswith(STREAMS_END)):
            self.errors.append(message.text)

    def arrived(self) -> None:
        self.is_left = False

    def check(self) -> None:
        assert not self.errors, self.errors
        assert not self.outside, self.outside


def open_page(started: Browser, app: App, path: str = "/?lang=en", **options: Any) -> tuple[Page, Watch]:
    """A page in a context of its own (another visitor), watched. options: of browser.new_context."""
    options = {"viewport": DESKTOP, "locale": "en-US"} | options
    context = started.new_context(**options)
    page = context.new_page()
    watch = watch_page(page, app)
    page.goto(app.url + path)
    page.locator("a[data-page]").first.wait_for(timeout=30_000)
    return page, watch


def watch_page(page: Page, app: App) -> Watch:
    watch = Watch()
    page.add_init_script(f"addEventListener('beforeunload', () => console.debug('{LEFT}'))")
    page.add_init_script(SHIFTS)
    page.on("console", watch.on_console)
    page.on("domcontentloaded", lambda: watch.arrived())
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    ours = (app.url, "data:", "blob:", "about:")
    page.on("request", lambda request: None if request.url.startswith(ours) else watch.outside.append(request.url))
    return watch


@contextmanager
def accepting_dialog(page: Page) -> Iterator[None]:
    """Context manager: accept the question that a press inside raises; fails unless there is exactly one."""
    questions: list[str] = []

    def yes(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.accept()

    page.once("dialog", yes)
    yield
    assert len(questions) == 1, questions


def expect(thing: Any) -> Any:
    """Playwright's expect, with the patience of a small machine."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    return expect(thing)


def assert_accessible(page: Page, picture: str = "") -> None:
    """Assert that axe finds nothing, in the dark and the light look, and that nothing is wider than the window.
    Pictures go where LORA_GARAGE_PICTURES names a folder."""
    folder = os.environ.get("LORA_GARAGE_PICTURES")
    for dark in (True, False):
        set_dark(page, dark)
        if folder and picture:
            page.screenshot(path=f"{folder}/{picture}-{'dark' if dark else 'light'}.png", full_page=True)
        found = violations(page)
        assert found == [], (dark, found)
    assert overflow(page) <= 0


def violations(page: Page) -> list[str]:
    """Return what axe finds on the page as it stands, one line each: "rule (impact): element". In the dark look only
    contrast is checked: nothing else depends on the look. A loop over both therefore ends in the light one."""
    from axe_playwright_python.sync_playwright import Axe

    without_transitions(page)
    # A bar that stays in view (Start) covers a part of whatever is scrolled under it just now; axe takes that for a
    # small target.
    stands = "where => { for (const bar of document.querySelectorAll('#start-bar')) bar.style.position = where; }"
    page.evaluate(stands, "static")
    dark = page.evaluate("document.body.classList.contains('dark')")
    rules = {"type": "rule", "values": ["color-contrast"]} if dark else {"type": "tag", "values": AXE_TAGS}
    # What passes need not be told of: on a long page a third of axe's time, and a megabyte of an answer.
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    violated = page.evaluate("options => axe.run(options).then(result => result.violations)", options)
    page.evaluate(stands, "")
    return [
        (
            f"{found['id']} ({found['impact']}): {node['html'][:160]} | "
            f"{' '.join((node.get('failureSummary') or '').split())[:200]}"
        )
        for found in violated
        for node in found["nodes"][:4]
    ]


def go_to_tab(page: Page, name: str) -> None:
    page.locator("nav.lg-rail").get_by_role("link", name=name, exact=True).click()


# Until nothing has changed inside of an element for so many milliseconds.
STILL = """(part, ms) => new Promise(done => {
    const end = () => { watching.disconnect(); requestAnimationFrame(() => done()); };  // after gradio's own
    let timer = setTimeout(end, ms);
    const watching = new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(end, ms); });
    watching.observe(part, { attributes: true, characterData: true, childList: true, subtree: true });
})"""


def unfold(page: Page, fold: str) -> None:
    """Open an accordion, or close it. By key: a click is lost where the page moves between press and release, as while
    steps appear above it. Gradio draws its fields once more at the end of the opening: what is typed before is lost."""
    label = page.locator(f"{fold} button").first
    if fold.startswith("#step-"):  # its head is hidden while it is closed: the bar opens it
        step = part(page, fold.removeprefix("#step-"))
        expect(step).to_be_visible()
        was_open = step.get_attribute("aria-expanded") == "true"
        step.press("Enter")
        expect(step).to_have_attribute("aria-expanded", str(not was_open).lower())
        page.locator(fold).evaluate(STILL, 100)
        return
    expect(label).to_be_visible()
    was_open, word = label.evaluate("label => label.classList.contains('open')"), re.compile(r"\bopen\b")
    label.press("Enter")
    (expect(label).not_to_have_class if was_open else expect(label).to_have_class)(word)
    page.locator(fold).evaluate(STILL, 100)


def part(page: Page, step: str) -> Locator:
    """Return the part of the bar that describes a step and opens it. step: data, goal, model, plan or train."""
    return page.locator(f".lg-part[data-step={step}]")


def open_step(page: Page, step: str) -> None:
    """Open a step of the form, unless it is the open one."""
    expect(part(page, step)).to_be_visible()
    if part(page, step).get_attribute("aria-expanded") != "true":
        unfold(page, f"#step-{step}")


def open_details(details: Locator) -> None:
    """Unfold a `<details>`, by one click: the page itself keeps it over a redraw (webui/assets/folds.js)."""
    details.locator("summary").click()
    expect(details).to_have_attribute("open", "")


def plan_two_steps(page: Page, max_length: int, said: str | re.Pattern[str] = "2 optimizer steps") -> None:
    """Plan a run of two steps without sample answers, of rows of at most max_length tokens. said: what the plan then
    says."""
    unfold(page, "#step-plan")
    unfold(page, "#all-settings")
    for setting, value in (("max_steps", 2), ("sample_seconds", 0), ("max_length", max_length)):
        box = page.locator(f"#setting-{setting} input")
        box.fill(str(value))
        box.blur()
    expect(page.locator("#plan-card")).to_contain_text(said)


def choose(page: Page, radio: str, value: str) -> None:
    """Choose an option of a radio group, or a card for "#data", by its value: an id, the same in every language."""
    if radio == "#data":
        card = page.locator(f"button[data-set='{value}']")
        card.click()
        expect(card).to_have_attribute("aria-pressed", "true")
        return
    option = page.locator(f"{radio} input[value='{value}']")
    option.click()
    expect(option).to_be_checked()


@contextmanager
def made_by_start(page: Page, workspace: Workspace, by_click: bool = False) -> Iterator[RunFolder]:
    """Context manager: press Start and yield the run that it makes. The device is held, so that the run waits and
    trains nothing; it is stopped at the end. by_click: by mouse, else by key, which waits for nothing that moves."""
    before = {run.id for run in Runs(workspace).list()}
    with lease.hold(workspace, msg("lease.somebody")):
        start = page.locator("#start")
        start.click() if by_click else start.press("Enter")
        run = wait_until(lambda: next((run for run in Runs(workspace).list() if run.id not in before), None))
        assert isinstance(run, RunFolder)
        expect(page.locator("#form-column")).to_be_hidden()
        yield run
        run.request("stop")  # as the button does, which goes where the worker ends first: the device is held
        wait_until(lambda: run.status().state in (State.STOPPED, State.FAILED), 120)  # its worker may be reading torch
    expect(page.locator("#form-column")).to_be_visible()


def only_filled(page: Page, button: str) -> None:
    """Wait until `button` (its id) is the only one in the page's filled style: that of the next step."""
    page.wait_for_function(
        """button => {
            const filled = [...document.querySelectorAll("button")].filter(one => one.checkVisibility()
                && getComputedStyle(one).backgroundColor === "rgb(15, 118, 110)");
            return filled.map(one => one.id).join() === button;
        }""",
        arg=button,
        timeout=PATIENCE_MS,
    )


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def set_dark(page: Page, dark: bool) -> None:
    without_transitions(page)
    page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)


def without_transitions(page: Page) -> None:
    """Switch transitions off: in the middle of one, axe would measure a colour that nobody reads."""
    page.evaluate("""() => {
        if (document.getElementById("without-transitions")) return;
        const style = document.head.appendChild(document.createElement("style"));
        style.id = "without-transitions";
        style.textContent = "*, *::before, *::after { transition: none !important; }";
    }""")
