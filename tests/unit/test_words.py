"""Every sentence that the code names exists in both languages, with the same values in it."""

from __future__ import annotations

import ast
import os
import re
import string
import subprocess
import sys
from functools import cache
from typing import get_args

import pytest

from core.advice.goals import goals
from core.data.shapes.cells import ANSWERS
from core.data.shapes.known import COLUMNS, OPTIONAL
from core.errors import RecipeError
from core.export.records import STAGES
from core.messages import CORE_LOCALES, LANGUAGES, Catalogue, Message, msg
from core.models.known import known_models
from core.presets import PROJECT
from core.recipe import Adapter, Data, Format, Model, Recipe, Train
from core.reward_settings import Rewards
from core.runs.folder import Status
from core.runs.states import State
from tests.kit.source import tree_of

CATALOGUE = Catalogue(CORE_LOCALES, PROJECT / "webui" / "locales")
HELP = {f"recipe.help_{section}_{name}" for section, model in
        (("recipe", Recipe), ("model", Model), ("data", Data), ("adapter", Adapter), ("train", Train),
         ("rewards", Rewards))
        for name, field in model.model_fields.items() if field.description}  # fmt: skip


GLOSSARY = [[cell.strip() for cell in line.strip("|").split("|")] for line in 
            (PROJECT / "docs" / "glossary.md").read_text("utf-8").splitlines()
            if line.startswith("| ")][1:]  # fmt: skip


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_language_has_the_same_sentences_with_the_same_values(language: str) -> None:
    english, other = CATALOGUE.keys("en"), {key for key in CATALOGUE.keys(language) if not key.startswith("presets.")}
    assert english == other - HELP
    assert [
        k for k in english if placeholders(CATALOGUE.raw(k, "en")) != placeholders(CATALOGUE.raw(k, language))
    ] == []


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_setting_has_its_help_in_it_and_nothing_else_has(language: str) -> None:
    assert {key for key in CATALOGUE.keys(language) if key.startswith("recipe.help_")} == HELP


@pytest.mark.parametrize("language", LANGUAGES[2:])
def test_what_a_further_language_says_of_presets_is_of_some_that_are_there_and_of_each_goal(language: str) -> None:
    """English and Chinese stand in presets/ themselves."""
    said = {key.removeprefix("presets.") for key in CATALOGUE.keys(language) if key.startswith("presets.")}
    parts = ("title", "description", "why", "question", "answer")
    of_goals = {
        f"goal_{goal.id}_{part}" for goal in goals() for part in (*parts, *(["instead"] if goal.instead else []))
    }
    samples = [
        file.stem for file in (PROJECT / "presets" / "samples").glob("*.yaml") if not file.stem.endswith(".heldout")
    ]
    of_models = {key for key in said if key.startswith("model_")}
    assert said - of_models == of_goals | {
        f"sample_{name}_{part}" for name in samples for part in ("title", "description")
    }
    # one that is added is said in English until then
    assert of_models <= {f"model_{model.id}_note" for model in known_models()}


def test_a_label_is_the_term_of_the_glossary() -> None:
    assert len(GLOSSARY) >= 40
    other = []
    for english, chinese, keys, *_ in GLOSSARY:
        for key in filter(None, keys.split(", ")):
            for language, term in (("en", english), ("zh", chinese)):
                label = re.sub(r" ?[(（].*", "", CATALOGUE.raw(key, language))
                if label.casefold() != term.casefold():
                    other.append(f"{language} {key}: {label}, in docs/glossary.md: {term}")
    assert not other, other


def test_no_sentence_and_no_page_uses_a_word_for_which_the_glossary_has_another() -> None:
    """Named with what to write. Code in a page (between backticks), the glossary itself, and names of tests (the record
    and faults.md are made of them) may hold them."""
    helps = {f"core/recipe.py, {model.__name__}.{name}": field.description or "" for model in (Recipe, Model, Data,
        Adapter, Train, Rewards)
             for name, field in model.model_fields.items()}  # fmt: skip
    pages = [
        PROJECT / "README.md",
        *(
            page
            for page in (PROJECT / "docs").rglob("*.md")
            if page.name not in ("glossary.md", "faults.md", "null-card-record.md")
        ),
    ]
    texts = {
        page.relative_to(PROJECT).as_posix(): re.sub(r"```.*?```|`[^`]*`", "", page.read_text("utf-8"), flags=re.S)
        for page in pages
    }
    sentences = {language: {f"{language} {key}": CATALOGUE.raw(key, language) for key in CATALOGUE.keys(language)
                            if language == "zh" or key not in HELP} for language in LANGUAGES}  # fmt: skip
    found = []
    for column, edges, where in (
        (3, (r"(?<![\w-])", r"(?![\w-])"), sentences["en"] | helps | texts),
        (4, ("", ""), sentences["zh"] | texts),
    ):
        for row in GLOSSARY:
            for word in filter(None, row[column].split("; ")):
                pattern = re.compile(edges[0] + r"\s+".join(map(re.escape, word.split())) + edges[1], re.I)
                found += [
                    f"{place}: “{word}”, write “{row[column - 3]}”"
                    for place, text in where.items()
                    if pattern.search(text)
                ]
    assert not found, "\n".join(found)


def literal_keys() -> set[str]:
    """First arguments of msg("a.b"), SomeError("a.b"), w.t("a.b") that are written out."""
    found = set()
    for file in [*(PROJECT / "core").rglob("*.py"), *(PROJECT / "webui").rglob("*.py")]:
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                value = node.args[0].value
                if (
                    (name in ("msg", "t", "named", "fail") or name.endswith("Error"))
                    and isinstance(value, str)
                    and value.count(".") == 1
                    and " " not in value
                ):
                    found.add(value)
    return found


def test_every_key_written_in_the_code_has_its_sentence() -> None:
    keys = literal_keys()
    assert len(keys) > 100, "the search finds them"
    assert keys - CATALOGUE.keys("en") == set()


def test_every_sentence_is_one_that_the_code_can_name() -> None:
    """Its key stands there, or an f-string makes it of names that stand there. `_info` and `_kept` are put behind a
    key, `launch.` before."""
    files = [*(file for folder in ("core", "webui", "launcher") for file in (PROJECT / folder).rglob("*.py"))]
    nodes = [node for file in files for node in ast.walk(tree_of(file))]
    written = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    named = {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    words = written | named | {key.rpartition(".")[2] for key in written}
    made = {"".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            for node in nodes if isinstance(node, ast.JoinedStr)}  # fmt: skip
    patterns = [
        re.compile(re.escape(text).replace("\0", "(.+)"))
        for text in made
        if re.fullmatch(r"[\w.\0-]*\.[\w.\0-]+", text)
    ]

    @cache
    def known(word: str) -> bool:
        """A word of the code, or several with a `_` between them."""
        ends = [place for place in range(1, len(word)) if word[place - 1] == "_" or word[place] == "_"]
        return word in words or any(
            {word[:end], word[:end].strip("_")} & words and known(word[end:].lstrip("_")) for end in ends
        )

    def is_named(key: str) -> bool:
        if key in written or any(
            (found := each.fullmatch(key)) and all(map(known, found.groups())) for each in patterns
        ):
            return True
        if key.startswith("start."):  # tests/process/test_release.py looks into its scripts
            return True
        return (key.endswith(("_info", "_kept")) and is_named(key[:-5])) or (key[:7] == "launch." and known(key[7:]))

    assert len(patterns) > 50 and [key for key in sorted(CATALOGUE.keys("en")) if not is_named(key)] == []


@pytest.mark.parametrize(
    ("wanted", "spoken"), [("", LANGUAGES), ("de", ("en", "de")), ("en, zh", ("en", "zh")), ("xx", ("en",))]
)
def test_the_languages_that_are_wanted_are_spoken_and_english(wanted: str, spoken: tuple[str, ...]) -> None:
    code = "from core.messages import LANGUAGES; print(*LANGUAGES)"
    environment = os.environ | {"LORA_GARAGE_LANGUAGES": wanted}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert tuple(said.stdout.split()) == spoken


def test_every_state_and_every_stage_has_words() -> None:
    stages = set()
    for file in (PROJECT / "core").rglob("*.py"):
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                if getattr(node.func, "attr", getattr(node.func, "id", "")) in ("stage", "set_stage", "report"):
                    stages.add(node.args[0].value)
    wanted = {f"state.{state.value}" for state in State} | {
        f"stage.{stage}" for stage in (stages | {Status().stage}) - STAGES
    }
    assert wanted | {f"export.stage_{stage}" for stage in STAGES} <= CATALOGUE.keys("en")
    assert len(stages) > 5


def test_every_format_has_its_columns_its_answer_and_words() -> None:
    """A format without words showed its key on the page, and no test saw it."""
    named = {f"wizard.format_{name}" for name in get_args(Format)}
    assert named == {key for key in CATALOGUE.keys("en") if key.startswith("wizard.format_")}
    for name, columns in COLUMNS.items():
        assert name == "text" or set(columns) & {*ANSWERS, "messages", "conversations"}, name
        needed = [column for column in columns if column not in OPTIONAL]
        assert re.search(r"\b" + r" \+ ".join(needed) + r"\b", msg("data.shapes").render("en")), (name, needed)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_inside_a_sentence_is_in_the_same_language(language: str) -> None:
    inner = msg("lease.training", name="海盗")
    sentence = msg("lease.held", owner=inner).render(language)
    assert inner.render(language) in sentence and "{" not in sentence


def test_an_error_crosses_processes_with_its_words() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(RecipeError("recipe.missing", file="a.yaml")))
    assert error.message == msg("recipe.missing", file="a.yaml") and "a.yaml" in str(error)


def test_a_sentence_that_is_empty_in_a_language_is_not_the_english_one() -> None:
    assert [CATALOGUE.render(msg("language.between_sentences"), language) for language in ("en", "zh")] == [" ", ""]


NEVER_ONE = {"data.too_many_rows", "hub_set.too_large", "hub_set_view.too_large", "learned_view.projected",
             "wizard.bad_lines", "wizard.import_rows",
             "wizard.rows_sampled"}  # fmt: skip  # limits, and numbers of large sets


@pytest.mark.parametrize(
    ("language", "nouns"), [("en", "(?:usable )?(?:rows|pairs)"), ("de", "(?:verwendbare )?(?:Zeilen|Paaren?)")]
)
def test_rows_and_pairs_are_singular_where_there_is_one(language: str, nouns: str) -> None:
    """ "1 pairs", "Trains on 1 rows"."""
    plural = re.compile(rf"\{{\w+(?::,)?\}} {nouns}\b(?!\}})")
    found = {key for key in CATALOGUE.keys(language) if plural.search(CATALOGUE.raw(key, language))}
    assert sorted(found - NEVER_ONE) == [] and len(found) >= 6


@pytest.mark.parametrize(
    ("rows", "english", "german"),
    [(1, "1 row added", "1 Zeile hinzugefügt"), (1200, "1,200 rows added", None), (0, "0 rows added", None)],
)
def test_a_noun_is_singular_where_its_number_is_one(rows: int, english: str, german: str | None) -> None:
    """ "now 1 rows"."""
    assert CATALOGUE.render(msg("sets.added", rows=rows), "en") == english
    assert german is None or CATALOGUE.render(msg("sets.added", rows=rows), "de") == german
    assert "{rows}" in CATALOGUE.render(msg("sets.added"), "en")


def test_a_noun_is_singular_where_a_number_with_a_fraction_is_one() -> None:
    """ "A gap of 1 hours"."""
    assert "of 1 hour starts" in CATALOGUE.render(msg("data.note_chat_gap", hours=1.0), "en")
    assert "of 1.5 hours starts" in CATALOGUE.render(msg("data.note_chat_gap", hours=1.5), "en")


def test_a_negative_number_has_a_minus_sign_in_every_language() -> None:
    """Seen: "-71 to 71 percentage points" beside a figure of "−71 %"."""
    said = msg("better.neutral", percent=-1962.5, words="-")
    texts = [CATALOGUE.render(said, language).partition(" %")[0] for language in ("en", "zh", "de")]
    assert [text.rpartition(" ")[2] for text in texts] == ["−1962.5", "−1962.5", "−1962,5"]


def test_an_unknown_key_and_a_missing_value_are_shown_and_never_raise() -> None:
    assert "future.key" in Message(key="future.key", params={"n": 1}).render("zh")
    assert "{file}" in Message(key="recipe.missing").render("en")
