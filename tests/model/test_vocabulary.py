"""Tokens that a tokenizer has and the weights have not: said in a sentence before a GPU, which would not say it, reads
them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from core.data.formats import Example
from core.data.labels import Encoded, Learning
from core.data.sets.pieces import Pieces
from core.data.sets.tokens import Tokenized
from core.data.tokenizer import Tokenizer
from core.engine.decoding.decoder import Decoder
from core.engine.families import vocabulary
from core.engine.step import Step
from core.errors import ModelError
from core.recipe import Recipe
from core.training.trainer import Trainer, TrainingData
from tests.kit.trainer import FP32, Pausing, rows, tiny_base, trainer_of

ROWS = 97  # of the tiny model's embedding


def with_token(token: int) -> list[Encoded]:
    return [*rows(3), Encoded([5, 6, token, 7], [False, True, True, True])]


def trainer_on(trainer: Trainer, train: Sequence[Encoded], evaluation: Sequence[Encoded]) -> Trainer:
    reporter = Pausing(trainer.reporter.run)
    return Trainer(
        trainer.step.tuned, trainer.recipe, TrainingData(train, evaluation, 0), FP32, reporter, lambda folder: None
    )


def test_a_run_whose_data_have_a_token_without_a_row_says_both_numbers_before_it_begins(tmp_path: Path) -> None:
    """On a card it looked like this: "CUDA error: device-side assert triggered", at whatever step read the row."""
    trainer = trainer_of(tmp_path, None)
    trainer_on(trainer, with_token(ROWS - 1), rows(3))
    for train, evaluation in ((with_token(ROWS), rows(3)), (rows(3), with_token(ROWS))):
        with pytest.raises(ModelError) as raised:
            trainer_on(trainer, train, evaluation)
        message = raised.value.message
        assert message.key == "model.token_without_row" and message.params == {"token": ROWS, "rows": ROWS}
        assert all(message.render(language).count("97") == 2 for language in ("en", "zh", "de"))


def test_a_prompt_with_such_a_token_is_refused_and_the_next_is_answered() -> None:
    decoder = Decoder(tiny_base(), 0)
    with pytest.raises(ModelError, match="number 97, but this model knows only numbers below 97"):
        decoder.left_padded([[1, 2], [3, ROWS]])
    ids, mask = decoder.left_padded([[1, 2], [3]])
    assert decoder.forward(ids, mask, None)[0].shape == (2, ROWS)


def test_a_pad_token_without_a_row_is_replaced_because_only_the_mask_marks_padding(tmp_path: Path) -> None:
    """Some tokenizers have a pad token that was added after the weights were made."""
    numbers = []
    for pad in (0, ROWS):
        trainer = trainer_of(tmp_path / str(pad), None)
        step = Step.from_recipe(
            trainer.step.tuned, Recipe.parse({"data": {"source": "x", "packing": False}}), FP32, pad
        )
        step.begin(7)
        numbers.append(step.compute([rows(4)], 1e-2))
        ids, mask = Decoder(tiny_base(), pad).left_padded([[1, 2], [3]])
        assert ids.tolist() == [[1, 2], [0, 3]] and mask.tolist() == [[1, 1], [0, 1]]
    assert numbers[0] == numbers[1]


def test_a_family_whose_embedding_is_not_found_is_trained_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_base()
    monkeypatch.setattr(model, "get_input_embeddings", lambda: None)
    vocabulary.require_rows_of(model, with_token(ROWS))
    assert vocabulary.padding(model, ROWS) == ROWS


def test_rows_whose_files_have_no_such_token_are_not_read_for_it(
    starter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [(number, Example(prompt="What is it?", completion=f"It is {number}.")) for number in range(3)]
    tokens = Tokenized(examples, Tokenizer(starter_folder), Learning("assistant")).tokens(
        torch.arange(3).numpy(), trains=True
    )
    pieces = Pieces.from_tokens(tokens, 64, "cut")
    highest = max(max(piece.input_ids) for piece in pieces)
    model = tiny_base()
    monkeypatch.setattr(vocabulary, "rows_of", lambda _: highest)
    with pytest.raises(ModelError, match=f"number {highest}"):
        vocabulary.require_rows_of(model, pieces)
    monkeypatch.setattr(vocabulary, "rows_of", lambda _: highest + 1)
    monkeypatch.setattr(Pieces, "__getitem__", lambda *_: pytest.fail("a row was read"))
    vocabulary.require_rows_of(model, pieces)
