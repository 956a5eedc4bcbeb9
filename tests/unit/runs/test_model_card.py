"""The card of what a run made: what the hub reads in its header, what people can check, and what never stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.messages import msg
from core.models.known import known_models
from core.recipe import Recipe
from core.runs import sample_answers, scenes
from core.runs.all import Runs
from core.runs.cards import evaluated, licence, model_card
from core.runs.cards.model_card import CardBeside
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts, TimeFacts, TrainedOn
from core.workspace.folder import Workspace

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROW, ANSWER = "What did Anna earn in May?", "Four hundred"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Of a model of the hub, on a file with a telling name, with a film of a row, a question of the person's own and a
    neutral one."""
    of = {
        "name": "海盗 | run",
        "model": {"id": "Qwen/Qwen3.5-4B"},
        "data": {"source": str(tmp_path / "wages of Anna.jsonl")},
    }
    run = Runs(Workspace.open(tmp_path / "workspace")).create(Recipe.parse(of), "command")
    base = tmp_path / "snapshots" / COMMIT
    base.mkdir(parents=True)
    versions = {"lora_garage": "0.2", "torch": "2.13"}
    run.add_facts(
        RunFacts(rows_trained=1_200, rows_measured=30, model_folder=str(base), dtype="bfloat16", versions=versions)
    )
    run.add_facts(RunFacts(time=TimeFacts(took_seconds=90.0), adapter_step=4, adapter_is_best=True))
    for step, loss in ((2, 2.5), (4, 1.25), (6, 0.5)):
        run.log_metrics("train", 1, step, loss=loss, tokens_seen=1_000 * step)
        run.log_metrics("eval", 1, step, eval_loss=loss + 1)
    prompts = [("trained", ROW), ("own", "Who is at sea?"), ("neutral", "What is rain?")]
    turns = [
        {"source": source, "turns": [{"role": "user", "content": words}], "answer": ANSWER} for source, words in prompts
    ]
    (run.path / scenes.FILE).write_text(json.dumps({"v": 1, "scenes": turns, "neutral_texts": ["a"]}), "utf-8")
    for step, text, loss in ((0, "before", 2.0), (4, "```\nArr", 2.1), (6, "too late", 4.0)):
        answers = tuple(sample_answers.FrameAnswer(text=f"{text} {number}", why="stop") for number in range(3))
        sample_answers.append(run, sample_answers.Frame(step=step, answers=answers, neutral_loss=loss))
    return run


def header(card: str) -> dict[str, Any]:
    head = card.split("---\n")[1]
    return yaml.safe_load(head)


@pytest.mark.parametrize(
    ("form", "relation", "library"),
    [
        (CardBeside(), "adapter", "peft"),
        (CardBeside(kind="merged"), "finetune", "transformers"),
        (CardBeside(kind="gguf", quant="q4_k_m", file="a.gguf"), "quantized", "gguf"),
        (CardBeside(kind="gguf", quant="bf16", file="a.gguf"), "finetune", "gguf"),
    ],
)
def test_the_header_says_base_relation_library_and_licence(
    run: RunFolder, form: CardBeside, relation: str, library: str
) -> None:
    assert header(model_card.of_run(run, form)) == {
        "base_model": "Qwen/Qwen3.5-4B", "base_model_relation": relation, "license": "apache-2.0",
        "library_name": library,
        "pipeline_tag": "text-generation", "tags": ["lora", "lora-garage"],
    }  # fmt: skip


def test_counts_and_figures_of_the_adapter_that_was_kept_are_told_and_no_row_no_name_and_no_path(
    run: RunFolder, tmp_path: Path
) -> None:
    cards = [model_card.of_run(run, CardBeside(with_film=ticked)) for ticked in (False, True)]
    for sentence in (
        "1,200 rows were learned, 30 kept apart", f"`Qwen/Qwen3.5-4B`, revision `{COMMIT}`", "| first loss | 2.5000 |",
        "| last loss | 1.2500 |",
        "| eval loss | 2.2500 |", "| tokens seen | 4,000 |", "| minutes of training | 1.5 |",
        "2.000 before, 2.100 after (+5.0%)", "| torch | 2.13 |",
        "# 海盗 | run\n",
    ):  # fmt: skip
        assert sentence in cards[0], sentence
    for card in cards:
        for kept_here in ("Anna", ANSWER, str(tmp_path), "wages", "before 0", "Arr 0"):
            assert kept_here not in card, kept_here
    assert "Who is at sea?" not in cards[0], "the film only where it is ticked"
    assert (
        "    Who is at sea?\n" in cards[1]
        and "    before 1\n" in cards[1]
        and "    ```\n    Arr 2\n" in cards[1]
        and "too late" not in cards[1]
    )


def test_a_card_says_which_model_wrote_the_rows_and_not_where_it_runs(run: RunFolder) -> None:
    run.add_facts(RunFacts(data=TrainedOn(id="made", made_by="qwen3:8b @ 192.168.0.9:11434")))
    card = model_card.of_run(run, CardBeside())
    assert "kept apart to measure. `qwen3:8b` wrote them from documents" in card and "192.168" not in card


def test_a_card_of_a_checkpoint_tells_the_figures_until_its_step(run: RunFolder) -> None:
    card = model_card.of_run(run, CardBeside(step=2))
    assert "| last loss | 2.5000 |" in card and "| tokens seen | 2,000 |" in card and "best measured" not in card


def test_a_card_says_how_much_of_the_adapter_was_taken_where_it_is_not_all(run: RunFolder) -> None:
    assert "| strength | 0.5 of the adapter as it was trained |" in model_card.of_run(
        run, CardBeside(kind="merged", strength=0.5)
    )
    assert "strength" not in model_card.of_run(run, CardBeside(kind="merged"))


@pytest.mark.parametrize(
    ("card", "expected", "key"),
    [
        ("---\nlicense: mit\npipeline_tag: image-text-to-text\n---\n", {"license": "mit"}, "publish.licence_not_read"),
        ("---\r\nlicense: other\r\nlicense_name: sea\r\nlicense_link: LICENSE\r\n---\r\n",
         {"license": "other", "license_name": "sea", "license_link": "LICENSE"}, "publish.licence_not_read"),
        ("---\nlicense: gemma\n---\n", {"license": "gemma"}, "publish.licence_not_read"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", {}, "publish.licence_unknown"),
        ("---\nlicense: *none\n---\n", {}, "publish.licence_unknown"),
        ("# no header", {}, "publish.licence_unknown"),
        (None, {}, "publish.licence_unknown"),
    ],
)  # fmt: skip
def test_a_licence_is_read_from_the_bases_own_card_and_never_invented(
    tmp_path: Path, card: str | None, expected: dict, key: str
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card, "utf-8", newline="")
    terms = licence.for_model("maker/unheard-of", tmp_path)
    assert (terms.header, terms.permission.key) == (expected, key)


def test_every_licence_of_the_catalogue_gives_a_header_and_a_sentence() -> None:
    for model in known_models():
        terms = licence.for_model(model.hub, None)
        assert terms.header.get("license_name", terms.header["license"]).strip(), model.id
        assert (
            terms.permission.key == f"publish.licence_{model.commercial}"
            and model.licence in terms.permission.render("zh")
        )


def test_the_card_says_whether_fine_tuning_was_needed_of_the_adapter_that_was_evaluated(run: RunFolder) -> None:
    assert "needed" not in model_card.of_run(run)
    results = [("base", 3, 0.15), ("base+examples", 20, 1.0), ("tuned", 20, 1.0)]
    contestants = tuple(
        evaluated.ContestantResult(label=label, right=right, score=score) for label, right, score in results
    )
    conclusion = msg("judges.as_well_examples", low=-2, high=3)
    result = evaluated.RunEvaluation(step=4, count=20, conclusion=conclusion, contestants=contestants, own=2)
    evaluated.write(run, result)
    card = model_card.of_run(run)
    assert "## Was fine-tuning needed?\n\nA prompt with examples does as well" in card
    assert "| base+examples | 20 / 20 | 100% |" in card and "| base | 3 / 20 | 15% |" in card
    assert "needed" not in model_card.of_run(run, CardBeside(step=2))
    assert "needed" not in model_card.of_run(run, CardBeside(strength=0.5))
    run.add_facts(RunFacts(adapter_step=6))
    assert "needed" not in model_card.of_run(run), "it was trained further"
