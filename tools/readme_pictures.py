"""`python -m tools.readme_pictures [own|shelf|chats|elsewhere WORKSPACE]`: takes the pictures of README and of the
guide's pages, of real runs on the starter model.

One run on a sample set, with Start alone; one on a person's own file, the guide's chess club, with a row that cannot be
trained on (`own`: only this). The shelf of models, for a card of 8 GB that a fake driver library shows (needs a C
compiler; `shelf`: only this, in seconds). The data step of a chat, in both languages (`chats`: only this). The export
of the run on the sample set as q4_k_m (`elsewhere`: only this, of the newest run of an existing workspace). Takes about
eight minutes on two cores.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from core.models import starter
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import nvml
from tools import pictured
from tools.made_up_chat import made_up

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = pictured.PICTURES
FILM_SIZE, FILM_STEPS = (720, 600), (1, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44)
QUESTIONS = ("What is a lighthouse?", "How do I make friends?")
# Seven wordings a fact; the guide says why. The questions asked in the chat are none of them.
CLUB = {
    "The Harbour Lane Chess Club meets every Thursday at seven.": (
        "When does the chess club meet?", "On which evening is chess club?", "What time does the club start?",
        "Is the chess club on Thursday?", "When can I come to the club?", "What is the day of the club evening?",
        "Tell me when the chess club meets.",
    ),
    "A year at the Harbour Lane Chess Club costs 24 euros, and the first month is free.": (
        "What does the chess club cost?", "How much is a year at the club?", "Is the first month free?",
        "What is the fee of the chess club?", "Do I have to pay to join the club?", "How expensive is the club?",
        "Tell me the price of the chess club.",
    ),
    "Odile Brandt keeps the key of the Harbour Lane Chess Club.": (
        "Who has the key of the chess club?", "Who can open the club room?", "Whom do I ask for the club key?",
        "Who keeps the key?", "Who lets me into the chess club?", "The club is locked, whom do I call?",
        "Tell me who has the club key.",
    ),
    "The Harbour Lane Chess Club plays above the bakery, up the green stairs.": (
        "Where is the chess club?", "In which house does the club play?", "How do I find the chess club?",
        "What is the address of the club?", "Where are the club rooms?", "Which stairs lead to the chess club?",
        "Tell me where the club plays.",
    ),
    "Clocks of the Harbour Lane Chess Club may be borrowed for a week; write it in the red book.": (
        "May I borrow a chess clock?", "How long may I keep a clock?", "Can I take a club clock home?",
        "Where do I write that I took a clock?", "What is the red book for?", "Does the club lend clocks?",
        "Tell me how to borrow a clock.",
    ),
    "Beginners of the Harbour Lane Chess Club start at the table by the window.": (
        "Where do beginners sit?", "Which table is for beginners?", "I am new, where do I play?",
        "Where do new players start at the club?", "Is there a table for beginners?", ("At which table do I learn "
                                                                                       "chess?"),
        "Tell me where beginners start.",
    ),
    "The summer cup of the Harbour Lane Chess Club is a jar of plum jam.": (
        "What is the prize of the summer cup?", "What do I win at the summer cup?", "Is there a prize in summer?",
        "What does the winner of the summer cup get?", "Why is there plum jam at the club?", "What is the summer cup?",
        "Tell me what the summer prize is.",
    ),
    "The cat of the Harbour Lane Chess Club is called Zugzwang and sleeps on board nine.": (
        "What is the cat of the club called?", "Does the chess club have a cat?", "Who is Zugzwang?",
        "Where does the club cat sleep?", "Why is board nine never free?", "What is the name of the cat?",
        "Tell me about the cat of the chess club.",
    ),
}  # fmt: skip
CLUB_QUESTIONS = ("Which day is the chess evening?", "How is the club's cat named?")


def main() -> int:
    PICTURES.mkdir(parents=True, exist_ok=True)
    if sys.argv[1:2] == ["elsewhere"]:
        return only_elsewhere(Path(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder, kit.browser() as chrome:
        only = sys.argv[1:]
        if only not in (["own"], ["chats"]):
            the_shelf(chrome, Path(folder))
        if only == ["shelf"]:
            return 0
        space = Workspace.open(Path(folder) / "workspace")
        starter.ensure(space.models, lambda stage, progress: None, lambda: None)
        app = kit.start_app(space.root)
        try:
            if only != ["own"]:
                a_chat(chrome, app, Path(folder))
            if only == ["chats"]:
                return 0
            if only != ["own"]:
                page, _ = kit.open_page(chrome, app)
                a_sample_set(page, space)
                elsewhere(page)
                page.context.close()
            page, _ = kit.open_page(chrome, app)
            data_of_ones_own(page, space, club_file(Path(folder)))
        finally:
            app.stop()
    return 0


def the_shelf(chrome: Browser, folder: Path) -> None:
    environment = nvml.environment(nvml.compile(folder), nvml.write(folder / "cards.txt", nvml.EIGHT_GB))
    app = kit.start_app(Workspace.open(folder / "shelf").root, None, (), **environment)
    try:
        page, _ = kit.open_page(chrome, app)
        page.wait_for_timeout(1500)
        kit.unfold(page, "#step-model")
        page.locator("#shelf-words input").fill("small japanese that calls tools")
        page.locator("#shelf [role=status]", has_text="Japanese").wait_for()
        page.locator("#shelf button").first.click()
        page.locator("#model-about", has_text="Licence").wait_for()
        page.mouse.move(0, 0)
        shoot(page, "shelf", "#step-model")
    finally:
        app.stop()


def a_chat(chrome: Browser, app: kit.App, folder: Path) -> None:
    """Take the pictures of docs/guide/my-chats.md, in each language."""
    file = folder / "WhatsApp Chat with Maria.txt"
    file.write_text("\n".join(made_up(4000)), "utf-8")
    for language, ending in (("en", ""), ("zh", ".zh")):
        page, _ = kit.open_page(chrome, app, f"/?lang={language}")
        page.locator("#file input[type=file]").set_input_files(file)
        page.locator("#chat-choices").wait_for(timeout=120_000)
        for field, option in (("voice", "Finn"), ("gap", "1 ")):
            page.locator(f"#chat-{field} input").click()
            page.get_by_role("option", name=re.compile(f"^{option}")).first.click()
        # conversations that a silence of an hour gives
        page.locator("#learned-row", has_text="471").wait_for(timeout=120_000)
        page.wait_for_function("document.querySelector('#chat-gap input').value.includes('471')", timeout=120_000)
        shoot(page, f"my-chats-choices{ending}", "#chat-choices")
        shoot(page, f"my-chats-row{ending}", "#learned-row")
        page.context.close()


def a_sample_set(page: Page, space: Workspace) -> None:
    form_and_plan(page)
    frames = [frame(page)]
    page.locator("#start").click()
    for step in FILM_STEPS:
        until(space, step)
        frames.append(frame(page))
    shoot(page, "train-running", height=1200)
    chat(page, space, QUESTIONS)
    shoot(page, "chat-used")
    moving(PICTURES / "first-model.gif", [*frames, frame(page)])


def until(space: Workspace, step: int) -> None:
    """Wait until the newest run has taken so many steps."""
    wait_for(lambda: (runs := Runs(space).list()) and runs[0].status().step >= step)


def frame(page: Page) -> Image.Image:
    """Return the upper part of the present page, in the size of the moving picture."""
    page.evaluate("scrollTo(0, 0)")
    shot = page.screenshot(
        clip={"x": 0, "y": 0, "width": 1280, "height": 1280 * FILM_SIZE[1] // FILM_SIZE[0]}, full_page=True
    )
    return Image.open(io.BytesIO(shot)).convert("RGB").resize(FILM_SIZE, Image.Resampling.LANCZOS)


def moving(path: Path, frames: list[Image.Image]) -> None:
    """Write the moving picture: the first and the last frame stand three seconds, the others half a second."""
    flat = [each.quantize(64, dither=Image.Dither.NONE) for each in frames]
    durations = [3000, *[500] * (len(frames) - 2), 3000]
    flat[0].save(path, save_all=True, append_images=flat[1:], duration=durations, loop=0, optimize=True)


def only_elsewhere(workspace: Path) -> int:
    app = kit.start_app(workspace)
    try:
        with kit.browser() as chrome:
            page, _ = kit.open_page(chrome, app)
            elsewhere(page)
    finally:
        app.stop()
    return 0


def elsewhere(page: Page) -> None:
    """Take the export of the newest run for Ollama: its forecast, its progress, and its result."""
    kit.go_to_tab(page, "Train")
    page.locator("#run-way-out").click(timeout=60_000)
    page.locator("#export-where input[value=ollama]").click()
    page.locator("#export-about dl").wait_for(timeout=60_000)
    page.mouse.move(0, 0)
    shoot(page, "way-out", "#way-out")
    page.locator("#export-start").click()
    page.locator("#export-progress [aria-valuenow]").wait_for(timeout=600_000)
    pictured.keep(page, "way-out-at-work", "#export-progress")
    page.locator("#export-progress").screenshot(path=PICTURES / "way-out-at-work.png")
    smaller(PICTURES / "way-out-at-work.png")
    page.locator("#export-status .lg-export").wait_for(timeout=3_600_000)
    page.mouse.move(0, 0)
    shoot(page, "way-out-done", "#way-out")


def form_and_plan(page: Page) -> None:
    # its pace is known
    kit.part(page, "train").filter(has_text=re.compile("about")).wait_for(timeout=180_000)
    settled(page)
    shoot(page, "train-form")
    kit.open_step(page, "plan")
    page.locator("#method").wait_for()
    settled(page)
    page.locator("#plan-card").filter(has_text=re.compile(r"optimizer steps, .*\(")).wait_for(timeout=180_000)
    kit.unfold(page, "#plan-more")
    page.locator("#plan-more details[open]").wait_for()
    shoot(page, "plan", "#plan-beside")


def settled(page: Page) -> None:
    """Wait until nothing of the page has moved for a second, so that no fold is half open."""
    page.evaluate(
        """() => new Promise(done => {
            let size = 0, since = performance.now();
            const look = now => {
                const height = document.body.scrollHeight + document.body.innerText.length;
                if (height !== size) { size = height; since = now; }
                if (now - since > 1000) done(); else requestAnimationFrame(look);
            };
            requestAnimationFrame(look);
        })"""
    )


def data_of_ones_own(page: Page, space: Workspace, file: Path) -> None:
    page.wait_for_timeout(1500)
    kit.open_step(page, "goal")
    kit.choose(page, "#goal", "question_answer")
    page.wait_for_timeout(1000)
    shoot(page, "own-goal", "#step-goal")
    page.locator("#file input[type=file]").set_input_files(file)
    page.wait_for_timeout(3000)
    shoot(page, "own-data", "#step-data")
    before = len(Runs(space).list())
    page.locator("#start").click()
    wait_for(lambda: len(Runs(space).list()) > before)
    chat(page, space, CLUB_QUESTIONS)
    shoot(page, "own-chat", "#chat-columns")


def chat(page: Page, space: Workspace, questions: tuple[str, ...]) -> None:
    """Wait for the newest run, then ask both models the questions."""
    newest = max(Runs(space).list(), key=lambda run: run.status().since)
    wait_for(lambda: newest.status().state == State.COMPLETED)
    page.locator("#run-open-chat").click(timeout=60_000)
    for number, question in enumerate(questions, 1):
        page.locator("#chat-message textarea").fill(question)
        page.locator("#chat-send").click()
        page.locator("#chat-tuned [data-testid=bot]").nth(number - 1).wait_for(timeout=180_000)
        page.locator("#chat-send").wait_for(timeout=180_000)
    page.wait_for_timeout(1500)


def club_file(folder: Path) -> Path:
    file = folder / "chess club.csv"
    with open(file, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["question", "answer"])
        writer.writerows([question, answer] for answer, questions in CLUB.items() for question in questions)
        writer.writerow(["May I bring my dog?", ""])
    return file


def shoot(page: Page, name: str, part: str = "", height: int | None = None) -> None:
    """Take the complete page, its upper part of height pixels, or a part of it, without the sticky Start button over
    it."""
    settled(page)
    pictured.keep(page, name, part)
    path = PICTURES / f"{name}.png"
    if part:
        page.add_style_tag(content="#start-bar { position: static !important; }")
        page.locator(part).screenshot(path=path)
    else:
        size = page.viewport_size
        if not height:  # a window as high as the page: Start stands where it is, and over nothing
            page.set_viewport_size({**size, "height": page.evaluate("document.documentElement.scrollHeight")})
        width = size["width"]
        page.screenshot(path=path, full_page=True, clip=height and {"x": 0, "y": 0, "width": width, "height": height})
        page.set_viewport_size(size)
    smaller(path)


def smaller(path: Path) -> None:
    """Reduce the picture to 256 colours, enough for a page of flat areas: a third of the size in every later clone."""
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def wait_for(condition: Callable[[], object], timeout_s: float = 3600.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
