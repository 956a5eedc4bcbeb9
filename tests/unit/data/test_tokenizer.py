"""Text to ids and which of them are learned, on the real starter tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from core.data.formats import ChatMessage, Example
from core.data.tokenizer import Tokenizer
from core.errors import ModelError

STYLE = Example(messages=(ChatMessage("user", "What is a book?"), ChatMessage("assistant", "Arr, matey! Pages.")))


@pytest.fixture(scope="module")
def tokenizer(starter_folder: Path) -> Tokenizer:
    return Tokenizer(starter_folder)


def test_exactly_the_assistants_tokens_are_learned(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode_example(STYLE, 512)
    ids = [i for i, learned in zip(row.input_ids, row.learned, strict=True) if learned]
    assert tokenizer.decode(ids, skip_special_tokens=False) == "Arr, matey! Pages.<|im_end|>"
    assert row.cut == 0


def test_what_training_sees_before_the_answer_is_the_prompt_of_the_chat(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode_example(STYLE, 512)
    assert row.input_ids[: row.learned.index(True)] == tokenizer.prompt(
        [{"role": "user", "content": "What is a book?"}]
    )


def test_rows_equal_those_of_transformers_own_template(tokenizer: Tokenizer, starter_folder: Path) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(starter_folder)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "héllo 你好 🙂\n\n  x"},
        {"role": "assistant", "content": "  ok  "},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "ok"},
    ]
    example = Example(messages=tuple(ChatMessage(m["role"], m["content"]) for m in messages))
    expected = reference.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert tokenizer.encode_example(example, 512).input_ids == expected


def test_no_token_is_put_before_a_template_that_has_its_own_begin_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_example(STYLE, 512).input_ids
    assert ids.count(tokenizer._id("<|im_start|>")) == 3  # system, user, assistant: no double BOS


def test_prompt_and_completion_are_asked_in_the_same_frame_as_a_chat(tokenizer: Tokenizer) -> None:
    pair = Example(prompt="What is a book?", completion="Arr, matey! Pages.")
    assert tokenizer.encode_example(pair, 512) == tokenizer.encode_example(STYLE, 512)


def test_plain_text_is_learned_whole_and_ends(tokenizer: Tokenizer) -> None:
    row = tokenizer.encode_example(Example(text="Once upon a time"), 512)
    assert all(row.learned) and row.input_ids[-1] == tokenizer.eos_token_id


def test_no_begin_or_end_token_stands_twice(starter_folder: Path, tmp_path: Path) -> None:
    """With a tokenizer that frames every text by itself, as Llama's does, under a template that has its own frame."""
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(starter_folder / name, tmp_path / name)
    config = json.loads((starter_folder / "tokenizer.json").read_text("utf-8"))
    frame = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
             {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}]  # fmt: skip
    config["post_processor"] = {
        "type": "TemplateProcessing", "single": frame, "pair": [*frame, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in (("<|im_start|>", 1),
            ("<|im_end|>", 2))},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(config), "utf-8")
    framing, plain = Tokenizer(tmp_path), Tokenizer(starter_folder)
    assert framing.encode_example(STYLE, 512) == plain.encode_example(STYLE, 512)
    text = framing.encode_example(Example(text="Once upon a time"), 512).input_ids
    assert (text[0], text[-1]) == (1, 2) and text.count(1) == text.count(2) == 1


def test_padding_that_looks_like_the_end_token_is_not_mistaken_for_it(tokenizer: Tokenizer) -> None:
    """Labels masked by pad_token_id lost every end token, and the model never learned to stop (pad is eos here)."""
    import torch

    from core.engine.batches import collate

    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    short = tokenizer.encode_example(STYLE, 512)
    long = tokenizer.encode_example(Example(prompt="What is a book?", completion="Arr, matey! " * 9), 512)
    batch = collate([short, long], tokenizer.pad_token_id, torch.device("cpu"))
    ends = [row for row in (0, 1) for i, target in zip(batch.index, batch.targets, strict=True)
            if target == tokenizer.eos_token_id and i // batch.input_ids.shape[1] == row]  # fmt: skip
    assert ends == [0, 1], "each row learns its end once"


def test_a_long_row_is_cut_at_its_end_and_counted(tokenizer: Tokenizer) -> None:
    full = tokenizer.encode_example(STYLE, 512)
    cut = tokenizer.encode_example(STYLE, 40)
    assert cut.input_ids == full.input_ids[:40] and cut.cut == len(full.input_ids) - 40


def test_train_on_everything_learns_every_token(tokenizer: Tokenizer) -> None:
    assert all(tokenizer.encode_example(STYLE, 512, "everything").learned)


def test_spaces_of_an_answer_are_learned_where_the_tokenizer_trims_its_offsets(
    starter_folder: Path, tmp_path: Path
) -> None:
    """With trim_offsets, as some byte-level tokenizers have it, an all-space token has an empty range."""
    import json
    import shutil

    folder = tmp_path / "trims"
    shutil.copytree(starter_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    config["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps(config), "utf-8")
    example = Example(messages=(ChatMessage("user", "a"), ChatMessage("assistant", "x  1\n    y")))
    trims, plain = Tokenizer(folder), Tokenizer(starter_folder)
    assert trims.encode_example(example, 512) == plain.encode_example(example, 512)


def test_a_pattern_that_runs_away_is_a_sentence_after_a_moment(tmp_path: Path) -> None:
    """Of a tokenizer.json from anywhere: Rust panics, and what it panics with is no Exception, so nobody caught it."""
    hostile = FastTokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    hostile.pre_tokenizer = pre_tokenizers.Split(Regex("(a?){30}a{30}(x+x+)+y"), "isolated")
    hostile.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "a"}', "utf-8")
    with pytest.raises(ModelError) as caught:
        Tokenizer(tmp_path).encode("a" * 30 + "x" * 28)
    assert caught.value.message.key == "model.tokenizer_runs_away" and tmp_path.name in caught.value.message.render(
        "zh"
    )
