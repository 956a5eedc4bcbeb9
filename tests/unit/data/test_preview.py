"""What a preview says before training is what training does, row for row and token for token."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.data import preview as preview_module
from core.data.formats import ChatMessage, Example
from core.data.labels import Learning
from core.data.preview import MAX_ROWS, Preview, Previews
from core.data.sets.row_view import LONG_PIECE, SHOWN_CHARACTERS, RowView
from core.data.shapes.refused import MAX_REASONS, RefusedRows
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.errors import DataError, ModelError, TemplateError
from core.messages import msg
from core.models.library import Models
from core.presets import PRESETS, PROJECT
from core.recipe import Recipe
from core.training.tokenizing import tokenize
from core.workspace.folder import Workspace
from tests.kit.files import link_or_copy
from tests.kit.read_examples import examples_of
from tests.kit.templates import CONVERSATIONS, tokenizer_folder

SAMPLES = ("pirate_answers", "kettlewisp_facts", "shop_messages")


def chat(question: str, answer: str) -> Example:
    return Example(messages=(ChatMessage("user", question), ChatMessage("assistant", answer)))


# The starter's template puts its own system turn and the question before an answer: some 35 tokens.
UNEVEN = [
    chat("Short?", "Yes."),
    chat("Long answer?", "word " * 100),
    chat("word " * 100, "never reached at 64"),
    Example(
        messages=(
            ChatMessage("user", "a"),
            ChatMessage("assistant", "b"),
            ChatMessage("user", "c " * 30),
            ChatMessage("assistant", "d"),
        )
    ),
    Example(prompt="你好吗？", completion="很好 🏳️‍🌈，谢谢。"),
    Example(text="Plain text with an emoji 🙂 that is split over tokens."),
    Example(text="x"),
]


@pytest.fixture(scope="module")
def tokenizer(starter_folder: Path) -> Tokenizer:
    return Tokenizer(starter_folder)


@pytest.fixture
def previews(make_workspace: Callable[[], Workspace]) -> Previews:
    workspace = make_workspace()
    return Previews(DatasetStore(workspace.datasets, PRESETS), Models(workspace))


class Listener:
    """Stands where the worker's reporter stands; keeps the sentences."""

    def __init__(self) -> None:
        self.warned: dict[str, dict] = {}
        self.run = self

    def check(self) -> None: ...

    def set_stage(self, *_: object) -> None: ...

    def add_facts(self, _: object) -> None: ...

    def log_event(self, *_: object, message=None, **__: object) -> None:
        self.warned[message.key] = message.params

    def warn(self, message) -> None:
        self.warned[message.key] = message.params


def numbered(examples: list[Example]) -> list[tuple[int, Example]]:
    return list(enumerate(examples, 1))


def joined(view: RowView) -> str:
    return "".join(piece.text for piece in view.pieces)


# ---- counts --------------------------------------------------------------------------------------


def sets() -> dict[str, list[Example]]:
    samples = {name: [e for _, e in examples_of(PRESETS / "samples" / f"{name}.jsonl")] for name in SAMPLES}
    book = Example(text="\n\n".join(f"Chapter {n}. " + f"It rained on day {n}, and again. " * n for n in range(1, 30)))
    return samples | {"uneven": UNEVEN, "texts": [book, *UNEVEN[-2:]]}


@pytest.mark.parametrize("long_examples", ["cut", "split", "drop"])
@pytest.mark.parametrize("train_on", ["assistant", "everything"])
@pytest.mark.parametrize("name", [*SAMPLES, "uneven", "texts"])
def test_counts_are_what_the_worker_trains_on(
    name: str, train_on: str, long_examples: str, tokenizer: Tokenizer
) -> None:
    """At lengths that cut all, some and none of the rows, and at one beyond what the starter can read (8,192)."""
    examples = sets()[name]
    preview = Preview.measure(numbered(examples), tokenizer, Learning(train_on))
    cut_or_dropped = 0
    for max_length in (8, 40, 48, 64, 512, 100_000):
        data = {"source": "x", "max_length": max_length, "eval_fraction": 0.2, "train_on": train_on}
        recipe, listener = Recipe.parse({"data": data | {"long_examples": long_examples}}), Listener()
        counts = preview.counts(max_length, long_examples)
        if preview.problem(max_length, long_examples):
            with pytest.raises(DataError):
                tokenize(examples, recipe, tokenizer, listener)
            cut_or_dropped += counts.rows_dropped
            continue
        train, evaluation = tokenize(examples, recipe, tokenizer, listener)
        rows = [*train, *evaluation]

        def said(key: str, name: str = "rows", warned: dict = listener.warned) -> int:
            return warned.get(f"run.{key}", {name: 0})[name]

        assert (counts.rows, counts.counted) == (len(examples), len(examples))
        assert counts.tokens == sum(len(row.input_ids) for row in rows)
        assert counts.learned == sum(row.learned_count for row in rows)
        assert counts.tokens_cut == sum(row.cut for row in rows)
        assert counts.pieces == len(rows)
        assert (counts.rows_cut, counts.rows_split) == (said("rows_cut"), said("rows_split") + said("texts_split"))
        assert counts.rows_dropped == said("rows_dropped") + said("rows_too_long")
        assert counts.pieces >= counts.rows - counts.rows_dropped
        assert counts.max_length == min(max_length, 8192)
        cut_or_dropped += counts.rows_cut + counts.rows_dropped + counts.rows_split
    assert cut_or_dropped, "the lengths do cut"


def test_a_dropped_row_is_named_by_its_number_in_the_file(tokenizer: Tokenizer) -> None:
    preview = Preview.measure([(7, UNEVEN[0]), (9, UNEVEN[2])], tokenizer)
    assert preview.counts(64).first_dropped == (9,)


def test_facts_are_before_the_cut(tokenizer: Tokenizer) -> None:
    encoded = [tokenizer.encode_example(example, 100_000) for example in UNEVEN]
    facts = Preview.measure(numbered(UNEVEN), tokenizer).facts()
    assert (facts.rows, facts.exact) == (len(UNEVEN), True)
    assert facts.tokens == sum(len(row.input_ids) for row in encoded)
    assert facts.learned_tokens == sum(row.learned_count for row in encoded)
    assert facts.longest == max(len(row.input_ids) for row in encoded)


def test_a_large_set_is_counted_on_evenly_spread_rows_and_projected() -> None:
    rows = numbered([chat("q", "a" * (4 * (i % 10))) for i in range(10 * MAX_ROWS)])
    preview = Preview.measure(rows, None)
    assert [preview.rows[i][0] for i in preview.tokens.positions[:3]] == [1, 11, 21] and preview.counted == MAX_ROWS
    assert preview.counts(512).rows == 10 * MAX_ROWS and not preview.facts().exact
    assert preview.facts().tokens == 10 * preview.lengths.sum()
    assert preview.facts().answers == 10, "of all rows"
    assert np.array_equal(Preview.measure(rows, None).lengths, preview.lengths), "the same rows each time"


def test_huge_rows_are_counted_up_to_a_number_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_module, "MAX_CHARACTERS", 1_000)
    rows = numbered([chat("q", "a" * 99) for _ in range(50)])
    assert Preview.measure(rows, None).counts(512).counted == 10  # 1,000 / 100 characters a row
    assert Preview.measure(rows, None, every_row=True).counts(512).counted == 50


def test_start_is_refused_only_where_it_is_known_that_nothing_is_learned(tokenizer: Tokenizer, monkeypatch) -> None:
    examples = [UNEVEN[2]] * 4
    preview = Preview.measure(numbered(examples), tokenizer)
    assert preview.problem(512) is None
    assert preview.problem(64).key == "run.nothing_to_learn" and preview.problem(64).params == {
        "rows": 4,
        "max_length": 64,
    }
    with pytest.raises(DataError) as raised:
        recipe = Recipe.parse({"data": {"source": "x", "max_length": 64}})
        tokenize(examples, recipe, tokenizer, Listener())
    assert raised.value.message == preview.problem(64), "the worker's own sentence"
    assert Preview.measure(numbered(examples), None).problem(64) is None, "an estimate refuses nothing"
    monkeypatch.setattr(preview_module, "MAX_ROWS", 2)
    sampled = Preview.measure(numbered(examples), tokenizer).problem(64)
    assert sampled.key == "preview.nothing_in_sample" and sampled.params == {"counted": 2, "rows": 4, "max_length": 64}


def test_an_estimate_is_said_to_be_one_and_follows_the_characters() -> None:
    """40 Latin characters and 10 Chinese ones: 0.25 x 40 and 0.7 x 10 tokens, 12 more a turn; the answer with its end
    token."""
    preview = Preview.measure(numbered([chat("x" * 40, "好" * 10)]), None)
    counts = preview.counts(512)
    assert (counts.tokens, counts.learned) == (10 + 12 + 7 + 12, 7 + 1)
    assert not (counts.exact or preview.exact or preview.facts().exact)


def test_a_histogram_has_each_counted_row_once_and_knows_which_are_cut(tokenizer: Tokenizer) -> None:
    preview = Preview.measure(numbered(UNEVEN + [chat("q", "word " * 3000)]), tokenizer)
    for max_length in (40, 64, 512):
        bins = preview.histogram(max_length)
        assert len(bins) <= 24 and bins[0].start <= preview.lengths.min() and bins[-1].end >= preview.longest
        assert all(left.end == right.start for left, right in zip(bins, bins[1:], strict=False))
        assert sum(b.rows for b in bins) == len(preview.lengths)
        assert sum(b.cut for b in bins) == (preview.lengths > max_length).sum()


def test_one_very_long_row_does_not_squeeze_the_others_into_one_bar() -> None:
    rows = [chat("q", "x" * (40 * (i % 10))) for i in range(300)] + [chat("q", "x" * 400_000)]
    bins = Preview.measure(numbered(rows), None).histogram(512)
    assert sum(b.rows > 0 for b in bins) >= 8 and bins[-1].rows == 1 and bins[-1].end >= 100_000


# ---- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", UNEVEN, ids=range(len(UNEVEN)))
def test_the_pieces_are_the_row_and_say_what_is_learned(example: Example, tokenizer: Tokenizer) -> None:
    preview = Preview.measure([(1, example)], tokenizer)
    full = tokenizer.encode_full(example)
    for max_length in (8, 40, 41, 42, 43, 50, 64, 512):
        view, row = preview.row(0, max_length), tokenizer.encode_example(example, max_length)
        assert joined(view) == full.text == tokenizer.decode(full.input_ids, skip_special_tokens=False)
        length = len(full.input_ids)
        # plain text is split, never cut
        expected = (length - 1, 0) if example.text is not None else (row.learned_count, row.cut)
        assert (view.learned, view.cut, view.length) == (*expected, length)
        assert view.dropped == (row.learned_count == 0)
        assert any(piece.kind.startswith("cut") for piece in view.pieces) == (row.cut > 0)


def test_the_marked_text_is_the_answer_with_its_end_token(tokenizer: Tokenizer) -> None:
    view = Preview.measure([(3, UNEVEN[4])], tokenizer).row(0, 512)
    assert [piece.text for piece in view.pieces if piece.kind == "learned"] == ["很好 🏳️‍🌈，谢谢。<|im_end|>"]
    assert view.row_number == 3 and set(view.special) == {"<|im_start|>", "<|im_end|>"}
    assert view.pieces[0].text.startswith("<|im_start|>system")


def test_a_character_of_several_tokens_goes_with_its_first(tokenizer: Tokenizer) -> None:
    """🙂 is two or more tokens of the starter: a cut inside it leaves it whole, on the side of its first token."""
    example = chat("a", "🙂🙂🙂")
    preview, full = Preview.measure([(1, example)], tokenizer), tokenizer.encode_full(example)
    inside = next(i for i in range(2, len(full.offsets)) if full.offsets[i][0] < full.offsets[i - 1][1])
    view = preview.row(0, inside)
    assert joined(view) == full.text and "\ufffd" not in joined(view)
    kept = "".join(piece.text for piece in view.pieces if not piece.kind.startswith("cut"))
    assert len(kept) == full.offsets[inside - 1][0] + 1


def test_special_tokens_around_plain_text_are_shown(starter_folder: Path, tmp_path: Path) -> None:
    """With a tokenizer that puts a begin token before a text, as Llama's does."""
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_text((starter_folder / name).read_text("utf-8"), "utf-8")
    config = json.loads((starter_folder / "tokenizer.json").read_text("utf-8"))
    ids = {token["content"]: token["id"] for token in config["added_tokens"]}
    config["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [ids["<|im_start|>"]], "tokens": ["<|im_start|>"]}
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(config), "utf-8")
    view = Preview.measure([(1, Example(text="Hi 🙂"))], Tokenizer(tmp_path)).row(0, 512)
    assert [(piece.text, piece.kind) for piece in view.pieces] == [
        ("<|im_start|>", "given"),
        ("Hi 🙂<|im_end|>", "learned"),
    ]


def test_a_very_long_row_is_shown_in_part_with_the_number_of_characters_left_out(tokenizer: Tokenizer) -> None:
    example = chat("q " * 5_000, "The answer.")
    view = Preview.measure([(1, example)], tokenizer).row(0, 8192)
    shown = [piece for piece in view.pieces if piece.kind != "more"]
    hidden = sum(int(piece.text) for piece in view.pieces if piece.kind == "more")
    assert sum(len(piece.text) for piece in shown) <= SHOWN_CHARACTERS
    assert hidden + sum(len(piece.text) for piece in shown) == len(tokenizer.encode_full(example).text)
    assert "The answer." in shown[1].text or "The answer." in shown[2].text, (
        "what is learned is never behind a long question"
    )


def test_a_row_of_many_turns_ends_in_the_number_of_characters_that_follow(tokenizer: Tokenizer) -> None:
    turns = tuple(ChatMessage(role, "x" * (LONG_PIECE // 2)) for _ in range(8) for role in ("user", "assistant"))
    view = Preview.measure([(1, Example(messages=turns))], tokenizer).row(0, 8192)
    assert view.pieces[-1].kind == "more"
    total = sum(int(p.text) if p.kind == "more" else len(p.text) for p in view.pieces)
    assert total == len(tokenizer.encode_full(Example(messages=turns)).text)


def test_there_is_no_row_beyond_the_last(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError):
        Preview.measure(numbered(UNEVEN), tokenizer).row(len(UNEVEN), 512)


# ---- previews ------------------------------------------------------------------------------------


def test_a_preview_is_made_once_and_anew_for_a_changed_file(previews: Previews, tmp_path: Path) -> None:
    first = previews.get("sample:pirate_answers", "starter")
    assert first.exact and previews.get("sample:pirate_answers", "starter") is first
    assert previews.get("sample:pirate_answers", "starter", Learning("everything")) is not first
    library = tmp_path / "lib"
    library.mkdir()
    store = DatasetStore(previews._store.root, PRESETS, [library])
    changing = Previews(store, previews._models)
    for count in (1, 2):
        (library / "own.jsonl").write_text('{"question": "q", "answer": "a"}\n' * count, "utf-8")
        assert len(changing.get("library:own.jsonl", "starter").rows) == count


def test_only_the_last_previews_are_kept(previews: Previews, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.data.preview.KEPT_PREVIEWS", 4)
    cases = [(f"sample:{sample}", Learning(on)) for sample in SAMPLES for on in ("assistant", "everything")]
    made = [previews.get(sample, "starter", learning) for sample, learning in cases]
    assert len({id(preview.tokenizer) for preview in made}) == 1, "one tokenizer for all"
    (first, *_, last), (oldest, *_, newest) = cases, made
    assert previews.get(last[0], "starter", last[1]) is newest
    assert previews.get(first[0], "starter", first[1]) is not oldest


def test_threads_that_ask_for_the_same_preview_wait_for_one(
    previews: Previews, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on, made = threading.Event(), threading.Event(), []

    def measure(*values: object) -> Preview:
        made.append(values)
        begun.set()
        assert may_go_on.wait(10)
        return Preview(*([None] * 6))

    monkeypatch.setattr(Preview, "measure", measure)
    answers: list[Preview] = []
    threads = [
        threading.Thread(target=lambda: answers.append(previews.get("sample:pirate_answers", "starter")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    may_go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1 and len(answers) == 3 and len(set(map(id, answers))) == 1


def test_without_the_model_here_lengths_are_estimated_and_no_row_is_shown(tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    workspace = Workspace.open(tmp_path / "ws")
    previews = Previews(DatasetStore(workspace.datasets, PRESETS), Models(workspace))
    for model in ("starter", "owner/name"):
        preview = previews.get("sample:pirate_answers", model)
        assert not preview.exact and preview.row(0, 512) is None and preview.counts(512).learned > 0


def test_a_hub_model_is_read_where_it_was_downloaded_to(tmp_path: Path, starter_folder: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    commit = "a" * 40
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--owner--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit, "utf-8")
    (repo / "snapshots" / commit).mkdir(parents=True)
    for file in starter_folder.iterdir():
        link_or_copy(file, repo / "snapshots" / commit / file.name)
    assert Models(Workspace.open(tmp_path / "ws")).local_folder("owner/name") == repo / "snapshots" / commit


def test_what_cannot_be_previewed_is_said_in_a_sentence_and_tried_again(
    previews: Previews, tmp_path: Path, starter_folder
) -> None:
    with pytest.raises(ModelError):
        previews.get("sample:pirate_answers", "no model")
    with pytest.raises(DataError):
        previews.get("sample:none", "starter")
    folder = tmp_path / "lib" / "refuses"
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (folder / name).write_bytes((starter_folder / name).read_bytes())
    (folder / "model.safetensors").touch()
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}", "utf-8")
    workspace = Workspace(previews._models.workspace.root, (folder.parent,))
    refusing = Previews(previews._store, Models(workspace))
    for _ in range(2):
        with pytest.raises(TemplateError):
            refusing.get("sample:pirate_answers", "library:refuses")
    (folder / "chat_template.jinja").write_bytes((starter_folder / "chat_template.jinja").read_bytes())
    assert refusing.get("sample:pirate_answers", "library:refuses").exact


def test_a_row_that_the_template_refuses_is_named_and_left_out(tokenizer: Tokenizer) -> None:
    """One row refused the whole set."""
    with_tools = Example.from_dict({"messages": CONVERSATIONS["tools"][0], "tools": CONVERSATIONS["tools"][1]})
    rows = [chat("What?", "That."), with_tools, chat("Who?", "They."), with_tools]
    recipe = Recipe.parse({"data": {"source": "x", "eval_fraction": 0}, "train": {"num_train_epochs": 1}})
    preview = Preview.measure(list(zip((4, 7, 9, 1_200), rows, strict=True)), tokenizer)
    (message,) = map(str, preview.refused.messages(preview.counted))
    assert message.startswith("2 of 4 rows are skipped") and "tools" in message and message.endswith("file: 7, 1200.")
    counts, listener = preview.counts(512), Listener()
    train, _ = tokenize(rows, recipe, tokenizer, listener)
    assert (counts.rows, counts.rows_refused, counts.rows_dropped, preview.facts().rows) == (4, 2, 0, 2)
    assert counts.pieces == len(train) == 2 and counts.tokens == sum(len(row.input_ids) for row in train)
    params = listener.warned["template.examples_refused"]
    assert (params["rows"], params["read"], params["first"]) == (2, 4, [2, 4])
    with pytest.raises(TemplateError, match="Row 1,200 is skipped.*tools"):
        preview.row(3, 512)


def test_a_set_of_which_the_template_refuses_every_row_is_refused_with_the_first_reason(tokenizer: Tokenizer) -> None:
    refused = Example.from_dict({"messages": CONVERSATIONS["tools"][0], "tools": CONVERSATIONS["tools"][1]})
    recipe = Recipe.parse({"data": {"source": "x", "eval_fraction": 0}, "train": {"num_train_epochs": 1}})
    for row, refuse in (
        (7, lambda: Preview.measure([(7, refused), (8, refused)], tokenizer)),
        (1, lambda: tokenize([refused, refused], recipe, tokenizer, Listener())),
    ):
        with pytest.raises(TemplateError, match=f"None of 2 rows can be used. Row {row}: .*tools"):
            refuse()
    cut_away, short = Listener(), Recipe.parse({"data": {"source": "x", "eval_fraction": 0, "max_length": 8}})
    with pytest.raises(DataError, match="None of the 2 rows"):
        tokenize([refused, chat("word " * 20, "never reached")], short, tokenizer, cut_away)
    assert cut_away.warned["template.examples_refused"]["rows"] == 1


def test_of_many_reasons_and_rows_the_first_are_named_and_the_rest_counted() -> None:
    refused = RefusedRows()
    for row in range(1, 21):
        refused.add(row, msg("template.cannot_render", reason="alternate" if row < 13 else f"row {row}"))
    *named, others = refused.messages(30)
    assert named[0].params["first"] == [1, 2, 3, 4, 5, "…"] and named[0].params["rows"] == 12
    assert len(named) == MAX_REASONS and others.params["rows"] == 8 - (MAX_REASONS - 1)
    assert refused.if_all(21) is None and "alternate" in str(refused.if_all(20))


def test_a_set_that_is_read_from_disk_says_the_same(previews: Previews, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = previews.get("sample:pirate_answers", "starter")
    monkeypatch.setattr("core.data.sets.stored_rows.IN_MEMORY_BYTES", 0)
    on_disk = Previews(previews._store, previews._models).get("sample:pirate_answers", "starter")
    assert on_disk.facts() == in_memory.facts() and on_disk.facts().exact
    assert on_disk.row(5, 40) == in_memory.row(5, 40)


def test_a_preview_loads_no_torch(starter_folder: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tests.kit.read_examples import examples_of
from core.data.preview import Preview
from core.data.tokenizer import Tokenizer
rows = list(examples_of("presets/samples/pirate_answers.jsonl"))
Preview.measure(rows, Tokenizer(Path({str(starter_folder)!r}))).row(0, 64)
print([name for name in ("torch", "transformers", "datasets", "gradio") if name in sys.modules])"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr[-2000:]


def of_conversations(*names: str) -> list[tuple[int, Example]]:
    conversations = (CONVERSATIONS[name] for name in names)
    return numbered([Example.from_dict({"messages": turns, "tools": tools}) for turns, tools in conversations])


def test_thinking_and_tool_calls_are_seen_apart_with_what_the_template_does_to_them(
    tmp_path: Path, starter_folder: Path
) -> None:
    qwen = Tokenizer(tokenizer_folder(tmp_path, starter_folder))
    preview = Preview.measure(of_conversations("thinking_tools", "thinking_turns", "plain"), qwen)
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>'
    learned = [(piece.text, piece.part) for piece in preview.row(0, 4096).pieces if piece.kind == "learned"]
    assert learned == [
        ("<think>\nI must look.", "thinking"), ("\n</think>\n\n", ""), (call, "call"),
        ("<think>\nNow I know.", "thinking"), ("\n</think>\n\nIt is 20 degrees.<|im_end|>", ""),
    ]  # fmt: skip
    two = preview.row(1, 4096)
    assert two.examples == 2 and [piece.text for piece in two.pieces if piece.kind == "example"] == ["1", "2"]
    assert two.learned == sum(
        len(row.input_ids) and sum(row.learned[1:]) for row in qwen.encode_row(preview.rows[1][1], Learning())
    )
    assert [note.key for note in preview.notes] == ["framing.mixed", "framing.unfolded"]
    assert (preview.counts(4096).rows, preview.counts(4096).counted, preview.counts(4096).pieces) == (3, 3, 4)
    last = Preview.measure(of_conversations("thinking_turns"), qwen, Learning(mask_history=True))
    assert [note.key for note in last.notes] == ["framing.unlearned"] and last.row(0, 4096).examples == 1
    off = Preview.measure(of_conversations("thinking_turns"), qwen, Learning(enable_thinking=False))
    assert [note.key for note in off.notes] == ["framing.not_thinking", "framing.left_out", "framing.unfolded"]
    assert all(note.render(language) for note in (*preview.notes, *last.notes, *off.notes) for language in ("en", "zh"))


def test_the_worker_trains_on_the_examples_that_were_previewed(tmp_path: Path, starter_folder: Path) -> None:
    qwen = Tokenizer(tokenizer_folder(tmp_path, starter_folder))
    rows = of_conversations("thinking_tools", "thinking_turns", "plain", "turns")
    listener = Listener()
    train, _ = tokenize(
        [example for _, example in rows], Recipe.parse({"data": {"source": "x", "max_length": 4096}}), qwen, listener
    )
    counts = Preview.measure(rows, qwen).counts(4096)
    assert (
        (len(train), sum(row.learned_count for row in train)) == (counts.pieces, counts.learned) == (6, counts.learned)
    )
