"""Base and tuned in one batch: the base is the base, the tuned is tuned, and nothing stays on the model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from core.chat import duel as duel_module
from core.chat.answer import COLUMNS, Column, Done, Piece, Sampling
from core.chat.duel import Duel, at_strength, choose
from core.chat.text_stream import Repetition, TextStream
from core.data.template import ChatTemplate
from core.data.tokenizer import Tokenizer
from core.engine import adapter, base_model
from core.engine.decoding.decoder import DecodedRows, Decoder
from core.engine.device import Compute
from core.errors import ChatError
from core.messages import msg
from core.recipe import Adapter
from tests.kit import families, tiny
from tests.kit.adapters import fill_b
from tests.kit.cuda import FakeCuda
from tests.kit.templates import tokenizer_folder

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
OTHER = [{"role": "user", "content": "Name three animals that live in the sea, please, and say what they eat."}]
SHORT = Sampling(max_new_tokens=8)  # of the starter "The capital of France is Paris." and its end
SAMPLED = Sampling(do_sample=True, temperature=1.0, top_p=0.95, max_new_tokens=6, seed=7)


def compute(dtype: torch.dtype) -> Compute:
    return Compute(torch.device("cpu"), dtype, msg("device.cpu_fp32"))


def plain(folder: Path, dtype: torch.dtype = torch.float32, four_bit: bool = False):
    return base_model.load(folder, compute(dtype), four_bit)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, starter_folder: Path, full: bool) -> Path:
    """A model of eight layers that says something else at each token and ends its answer to QUESTION after the third;
    with --full the starter, whose answer to it ends too."""
    if full:
        return starter_folder
    made = tmp_path_factory.mktemp("duel") / "talkative"
    tiny.make(made, starter_folder, layers=8, spread=0.2)
    third = greedy_tokens(plain(made), Tokenizer(made), QUESTION)[2]
    config = made / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"eos_token_id": [2, third]}), "utf-8")
    return made


def tuned(model, folder: Path, **settings):
    """A LoRA whose B is not zero, so that it changes every answer."""
    return fill_b(adapter.add(model, Adapter(**settings), str(folder), None).eval(), std=0.3, seed=3)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def never_saw_an_adapter(folder: Path):
    return plain(folder)


@pytest.fixture(scope="module")
def duel(folder: Path, tokenizer: Tokenizer) -> Duel:
    return Duel(tuned(plain(folder), folder), tokenizer)


def text_and_end(items: Iterable[Piece | Done], column: Column) -> tuple[str, Done]:
    """The text of one column and how it ended."""
    items = list(items)
    done = [item for item in items if isinstance(item, Done) and item.column == column]
    assert len(done) == 1
    return "".join(item.text for item in items if isinstance(item, Piece) and item.column == column), done[0]


def answer(duel: Duel, turns, *how, **more):
    """Of one question."""
    return duel.answer_all([turns], *how, **more)


def hooks(duel: Duel) -> int:
    model = duel._tuned or duel._model
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def greedy_tokens(model, tokenizer: Tokenizer, turns: list[dict]) -> list[int]:
    """transformers' own greedy answer, as long as SHORT."""
    ids = torch.tensor([tokenizer.prompt(turns)])
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=SHORT.max_new_tokens,
            do_sample=False,
            use_cache=True,
        )
    return out[0, ids.shape[1] :].tolist()


def spoken(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Without the token that ends it."""
    return ids[:-1] if ids[-1] in tokenizer.stop_ids else ids


@pytest.fixture(scope="module")
def greedy_tuned(duel: Duel, tokenizer: Tokenizer) -> list[int]:
    return greedy_tokens(duel._tuned, tokenizer, QUESTION)


@pytest.mark.parametrize("turns", [QUESTION, OTHER, [*QUESTION, {"role": "assistant", "content": "Paris."}, *OTHER]])
def test_in_fp32_the_base_column_writes_the_tokens_of_a_model_that_never_saw_the_adapter(
    turns, duel, never_saw_an_adapter, greedy_tuned, tokenizer, monkeypatch
):
    written: dict[Column, list[int]] = {"base": [], "tuned": []}
    take = duel_module._Reply.take
    monkeypatch.setattr(
        duel_module._Reply, "take", lambda row, token: written[row.column].append(token) or take(row, token)
    )
    list(answer(duel, {"base": turns, "tuned": QUESTION}, SHORT))
    assert written["base"] == greedy_tokens(never_saw_an_adapter, tokenizer, turns)
    assert written["tuned"] == greedy_tuned
    assert hooks(duel) == 0


def test_in_bf16_prefill_logits_of_equal_prompts_are_bit_equal_to_those_of_the_plain_model(folder, tokenizer):
    alone = Duel(plain(folder, torch.bfloat16), tokenizer)
    both = Duel(tuned(plain(folder, torch.bfloat16), folder), tokenizer)
    ids, mask = alone.decoder.left_padded([tokenizer.prompt(QUESTION)] * 2)
    with both._as_rows(["base", "tuned"], lambda: False):
        mixed, _ = both.decoder.forward(ids, mask, None)
    bare, _ = alone.decoder.forward(ids, mask, None)
    assert torch.equal(mixed[0], bare[0])
    assert not torch.equal(mixed[1], bare[1])


class Operations(TorchDispatchMode):
    """Names of the operations while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Counter[str]()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names[operation._schema.name.removeprefix("aten::")] += 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("four_bit", [False, True])
def test_a_batch_of_both_has_pefts_bits_without_an_index_that_a_card_would_wait_for(
    four_bit, folder, tokenizer, monkeypatch
):
    """PEFT takes the tuned rows by a list: two or three copies to the card a layer, 670 for each token of a 24-layer
    model."""
    both = Duel(tuned(plain(folder, torch.bfloat16, four_bit), folder), tokenizer)
    ids, mask = both.decoder.left_padded(
        [tokenizer.prompt(QUESTION), tokenizer.prompt(OTHER), tokenizer.prompt(QUESTION)]
    )

    def computed() -> tuple[torch.Tensor, Counter[str]]:
        with both._as_rows(["base", "tuned", "tuned"], lambda: False), Operations() as seen:
            return both.decoder.forward(ids, mask, None)[0], seen.names

    logits, names = computed()
    monkeypatch.setattr(
        duel_module,
        "_mixed",
        lambda layer, first, *args, **kwargs: type(layer)._mixed_batch_forward(layer, *args, **kwargs),
    )
    expected, of_peft = computed()
    layers = sum(isinstance(layer, LoraLayer) for layer in both._tuned.modules())
    assert torch.equal(logits, expected) and not torch.equal(logits[0], logits[2])
    assert of_peft["index"] - names["index"] >= 2 * layers == 2 * of_peft["index_put_"] and names["index_put_"] == 0
    assert not any("_mixed_batch_forward" in vars(module) for module in both._tuned.modules())


def test_the_tuned_column_differs_and_each_column_is_the_same_alone(duel):
    together = list(answer(duel, {"base": QUESTION, "tuned": QUESTION}, SHORT))
    base, tuned_text = text_and_end(together, "base")[0], text_and_end(together, "tuned")[0]
    assert base != tuned_text
    assert text_and_end(answer(duel, {"base": QUESTION}, SHORT), "base")[0] == base
    assert text_and_end(answer(duel, {"tuned": QUESTION}, SHORT), "tuned")[0] == tuned_text


def test_a_row_goes_on_alone_as_it_would_have_after_the_other_ended(duel):
    sampling, questions = Sampling(max_new_tokens=12), {"base": QUESTION, "tuned": OTHER}
    both = list(answer(duel, questions, sampling))
    first, last = sorted(COLUMNS, key=lambda column: text_and_end(both, column)[1].tokens)
    assert text_and_end(both, first)[1].finish_reason == "stop"
    assert text_and_end(both, last)[1].tokens > text_and_end(both, first)[1].tokens + 1
    assert text_and_end(both, last)[0] == text_and_end(answer(duel, {last: questions[last]}, sampling), last)[0]


def test_questions_asked_together_are_answered_as_each_alone(duel, monkeypatch):
    """In fp32. Of several lengths, one that ends before the others, one column alone; also where two rows fill the
    room."""
    longer = [*QUESTION, {"role": "assistant", "content": "Paris."}, *OTHER]
    requests = [
        {"base": QUESTION, "tuned": OTHER},
        {"base": longer},
        {"base": OTHER, "tuned": QUESTION},
        {"tuned": longer},
    ]
    alone = [
        (n, column, text_and_end(answer(duel, {column: one[column]}, SHORT), column))
        for n, one in enumerate(requests)
        for column in one
    ]
    rows = list[int]()
    forward = duel.decoder.forward
    monkeypatch.setattr(
        duel.decoder, "forward", lambda ids, mask, cache: rows.append(len(ids)) or forward(ids, mask, cache)
    )
    tight = len(duel.prompt("base", longer, SHORT)) + SHORT.max_new_tokens
    for room, widest, batches in ((duel.context_limit, 6, 1), (tight, 2, 3)):
        rows.clear()
        monkeypatch.setattr(duel, "context_limit", room)
        together = list(duel.answer_all(requests, SHORT))
        for n, column, (text, done) in alone:
            text_of_one, ended = text_and_end([item for item in together if item.question == n], column)
            assert (text_of_one, ended.tokens, ended.finish_reason) == (text, done.tokens, done.finish_reason)
        assert max(rows) == widest and hooks(duel) == 0
        assert len(rows) <= SHORT.max_new_tokens * batches, "a forward for all of a batch"


@pytest.mark.parametrize("kind", ["mixed", "dora"])
def test_a_question_that_joins_is_answered_as_alone_and_those_that_run_are_too(
    kind: str, duel: Duel, folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the end of the batch. One that joins is longer, later ones shorter than those that run, which leave
    in between; one that cannot be answered lets none after it join."""
    if kind == "dora":
        duel = Duel(tuned(plain(folder), folder, use_dora=True), tokenizer)
    how = [Sampling(max_new_tokens=length) for length in (4, 12, 9, 7, 6, 5)]
    long = [{"role": "user", "content": "Tell me more of it. " * 12 + "Why?"}]
    questions = [
        {"tuned": QUESTION}, {"base": OTHER, "tuned": OTHER}, {"tuned": long}, {"base": QUESTION}, {"tuned": OTHER},
        {"base": long},
    ]  # fmt: skip
    comes = iter([[], [2, 3], [], [], [4], [], [5, "too long"], [3]])

    def arriving():
        come = [[{"tuned": [{"role": "user", "content": "x " * 9999}]}, how[0]] if n == "too long" else
                [questions[n], how[n]] for n in next(comes, [])]  # fmt: skip
        return [([question], [sampling]) for question, sampling in come]

    sizes, join = list[int](), DecodedRows.join
    monkeypatch.setattr(DecodedRows, "join", lambda rows, new: join(rows, new) or sizes.append(len(rows._ids)))
    together = list(duel.answer_all(questions[:2], how[:2], arriving=arriving))
    assert {item.question for item in together} == set(range(6)) and (max(sizes) >= 5 or kind == "dora"), sizes
    for number, (question, sampling) in enumerate(zip(questions, how, strict=True)):
        alone = list(answer(duel, question, sampling))
        for column in question:
            text, done = text_and_end([each for each in together if each.question == number], column)
            known_text, known = text_and_end(alone, column)
            assert (text, done.tokens, done.finish_reason) == (known_text, known.tokens, known.finish_reason)
            assert done.prompt_tokens == known.prompt_tokens
    assert hooks(duel) == 0


def test_dora_is_answered_in_turn_and_says_so(folder, tokenizer, never_saw_an_adapter):
    dora = Duel(tuned(plain(folder), folder, use_dora=True, target_modules="q_proj,v_proj"), tokenizer)
    assert not dora.mixed
    answers = list(answer(dora, {"base": QUESTION, "tuned": QUESTION}, SHORT))
    bare = answer(Duel(never_saw_an_adapter, tokenizer), {"base": QUESTION}, SHORT)
    assert text_and_end(answers, "base")[0] == text_and_end(bare, "base")[0] != text_and_end(answers, "tuned")[0]
    assert dora._tuned.get_model_status().enabled is True
    with pytest.raises(ChatError) as refused:
        next(answer(dora, {"tuned": QUESTION}, SHORT, strength=0.5))
    assert refused.value.message.key == "chat.no_strength"
    assert hooks(dora) == 0


def test_at_strength_0_the_adapter_is_the_base_and_at_1_it_is_as_trained_bit_for_bit(
    duel, never_saw_an_adapter, tokenizer
):
    def logits(of) -> torch.Tensor:
        prompt = tokenizer.prompt(QUESTION)
        return of.decoder.forward(*of.decoder.left_padded([prompt]), None)[0]

    bare = Duel(never_saw_an_adapter, tokenizer)
    trained = logits(duel)
    with at_strength(duel._model, 0.0):
        assert torch.equal(logits(duel), logits(bare))
    with at_strength(duel._model, 0.5):
        assert not torch.equal(logits(duel), trained) and not torch.equal(logits(duel), logits(bare))
    assert torch.equal(logits(duel), trained)


def test_an_answer_at_another_strength_leaves_the_adapter_as_it_was(duel):
    full = text_and_end(answer(duel, {"tuned": QUESTION}, SHORT), "tuned")[0]
    base = text_and_end(answer(duel, {"base": QUESTION}, SHORT), "base")[0]
    at_0 = list(answer(duel, {"base": QUESTION, "tuned": QUESTION}, SHORT, strength=0.0))
    assert text_and_end(at_0, "tuned")[0] == base == text_and_end(at_0, "base")[0]
    begun = answer(duel, {"tuned": QUESTION}, SHORT, strength=-0.5)
    next(begun)
    begun.close()
    assert text_and_end(answer(duel, {"tuned": QUESTION}, SHORT), "tuned")[0] == full != base


def test_a_four_bit_base_answers_in_both_columns(folder, tokenizer):
    bare, adapted = (plain(folder, four_bit=True) for _ in range(2))
    answers = list(answer(Duel(tuned(adapted, folder), tokenizer), {"base": QUESTION, "tuned": QUESTION}, SHORT))
    base = text_and_end(answers, "base")[0]
    assert (
        base
        == tokenizer.decode(spoken(greedy_tokens(bare, tokenizer, QUESTION), tokenizer))
        != text_and_end(answers, "tuned")[0]
    )


def test_without_an_adapter_only_the_base_can_be_asked(never_saw_an_adapter, tokenizer):
    bare = Duel(never_saw_an_adapter, tokenizer)
    answers = answer(bare, {"base": QUESTION, "tuned": None}, SHORT)
    assert text_and_end(answers, "base")[0] == tokenizer.decode(
        spoken(greedy_tokens(never_saw_an_adapter, tokenizer, QUESTION), tokenizer)
    )
    with pytest.raises(ChatError, match="no fine-tuned model"):
        list(answer(bare, {"tuned": QUESTION}, SHORT))


# ---- nothing stays on the model -------------------------------------------------------------------------------------


def fail_in_layer(duel: Duel) -> Callable[[], None]:
    """Makes a late layer raise; returns what undoes it."""
    layer = duel._model.model.layers[-2].mlp

    def fail(module, inputs):
        raise RuntimeError("a layer failed")

    return layer.register_forward_pre_hook(fail).remove


def test_a_failed_answer_leaves_no_hooks_and_the_next_is_right(duel):
    """PEFT alone left 210 hooks, and a later batch answered row 0 from the base without a word."""
    before = text_and_end(answer(duel, {"base": QUESTION, "tuned": QUESTION}, SHORT), "tuned")[0]
    mend = fail_in_layer(duel)
    with pytest.raises(RuntimeError, match="a layer failed"):
        list(answer(duel, {"base": QUESTION, "tuned": QUESTION}, SHORT))
    mend()
    assert hooks(duel) == 0
    assert text_and_end(answer(duel, {"tuned": QUESTION}, SHORT), "tuned")[0] == before


def test_an_answer_closed_half_way_leaves_no_hooks(duel):
    pieces = answer(duel, {"base": OTHER, "tuned": OTHER}, SHORT)
    next(pieces)
    assert hooks(duel) > 0
    with pytest.raises(ChatError, match="still generating an answer"):
        next(answer(duel, {"base": OTHER}, SHORT))
    pieces.close()
    assert hooks(duel) == 0
    assert text_and_end(answer(duel, {"base": QUESTION}, SHORT), "base")[1].tokens > 0


def test_stop_ends_both_columns_even_while_the_prompt_is_read(duel):
    checks = []
    answers = list(
        answer(
            duel,
            {"base": OTHER, "tuned": OTHER},
            SHORT,
            lambda column=None, question=None: checks.append(1) or len(checks) > 5,
        )
    )
    assert [text_and_end(answers, column)[1].finish_reason for column in ("base", "tuned")] == ["stopped", "stopped"]
    assert len(checks) < 10  # layers, not tokens: the first forward was left
    assert hooks(duel) == 0


def test_numbers_that_are_not_finite_are_said(duel):
    layer = duel._model.model.norm
    handle = layer.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with pytest.raises(ChatError, match="NaN or infinite"):
        list(answer(duel, {"base": QUESTION, "tuned": QUESTION}, SHORT))
    handle.remove()
    assert hooks(duel) == 0


# ---- sampling -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(duel):
    turns = {"base": OTHER, "tuned": OTHER}
    first = list(answer(duel, turns, SAMPLED))
    again = list(answer(duel, turns, SAMPLED))
    other = list(answer(duel, turns, SAMPLED.model_copy(update={"seed": 8})))
    assert text_and_end(first, "base")[0] == text_and_end(again, "base")[0] != text_and_end(other, "base")[0]
    assert text_and_end(first, "tuned")[0] == text_and_end(again, "tuned")[0]


def test_a_repeated_question_draws_with_the_next_seeds_and_is_read_once(duel):
    turns = [{"role": "user", "content": "Which of them is the oldest? " * 8}]  # long enough to be read once
    together = list(duel.answer_all([{"base": turns}, {"base": OTHER}, {"base": turns}], SAMPLED))
    texts = [text_and_end([item for item in together if item.question == n], "base")[0] for n in range(3)]
    for n, (asked, seed) in enumerate(((turns, 7), (OTHER, 7), (turns, 8))):
        own = answer(duel, {"base": asked}, SAMPLED.model_copy(update={"seed": seed}))
        assert text_and_end(own, "base")[0] == texts[n]
    assert texts[0] != texts[2]


def test_a_sampled_base_answer_does_not_depend_on_the_tuned_column(duel):
    both = text_and_end(answer(duel, {"base": OTHER, "tuned": QUESTION}, SAMPLED), "base")[0]
    assert both == text_and_end(answer(duel, {"base": OTHER}, SAMPLED), "base")[0]


def test_top_p_draws_only_from_the_likeliest_tokens():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)
    sampling = Sampling(do_sample=True, temperature=1.0, top_p=0.75)
    drawn = {choose(logits, sampling, generator) for _ in range(200)}
    assert drawn == {0, 1}
    assert {choose(logits, Sampling(do_sample=True, top_p=1e-6), generator) for _ in range(20)} == {0}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(do_sample=True, temperature=0.0)])
def test_greedy_takes_the_likeliest_token(sampling):
    assert choose(torch.tensor([0.1, 3.0, 2.9]), sampling, torch.Generator().manual_seed(0)) == 1


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", ["Arr,  matey!\n\n  Yo-ho-ho 🏴‍☠️ 你好，世界 é", "🤖", " leading", "<|im_end|>after"])
def test_pieces_joined_are_the_decoded_text_and_no_character_is_broken(whole, tokenizer):
    stream, ids = TextStream(tokenizer), tokenizer.encode(whole)
    pieces = [stream.add(token) for token in ids]
    assert "".join([*pieces, stream.rest()]) == tokenizer.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_answer_cut_inside_a_character_leaves_the_broken_half_out(tokenizer):
    stream = TextStream(tokenizer)
    ids = tokenizer.encode("ok 🤖")
    assert "".join(stream.add(token) for token in ids[:-1]) + stream.rest() == "ok "


def test_half_a_surrogate_pair_in_a_question_does_no_harm(duel):
    broken = [{"role": "user", "content": "Hi \ud83d there"}]
    duel.prompt("base", broken, SHORT)


def test_a_conversation_without_room_is_refused_with_the_numbers(duel):
    long = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(ChatError, match=r"has 90\d\d tokens .* may take 8, .* is 8192"):
        list(answer(duel, {"base": long}, SHORT))
    with pytest.raises(ChatError, match="nothing to answer"):
        list(answer(duel, {"base": [*QUESTION, {"role": "assistant", "content": "Paris"}]}, SHORT))


LLAMA_8B = SimpleNamespace(
    num_attention_heads=32, num_key_value_heads=8, hidden_size=4096, head_dim=128, num_hidden_layers=32,
    intermediate_size=14336
)  # fmt: skip


@pytest.mark.parametrize(("free_gib", "tokens"), [(16.0, 27456), (2.0, 3392), (0.2, 512), (0.0, 512)])
def test_conversations_are_as_long_as_the_cards_memory(free_gib: float, tokens: int):
    """By hand: Llama-3-8B keeps 128 KiB a token and column, and computes 4 x 4096 + 3 x 14336 numbers of 2 bytes: 488
    KiB in both."""
    fitting = duel_module.tokens_that_fit(LLAMA_8B, int(free_gib * 2**30), 2)
    assert duel_module.tokens_that_fit(SimpleNamespace(num_hidden_layers=24), 2**30, 2) == 8192, (
        "another kind of family"
    )
    assert fitting == tokens and (
        fitting == 512 or fitting * (2 * 2**17 + 4 * (4 * 4096 + 3 * 14336)) <= 0.8 * free_gib * 2**30
    )


@pytest.mark.parametrize(("fraction", "expected_gib"), [(1.0, 2.6), (0.75, 0.6)])
def test_what_is_free_on_a_card_counts_what_is_cached_and_what_is_allowed(
    fraction: float, expected_gib: float, monkeypatch: pytest.MonkeyPatch
):
    """Of 8 GiB others hold 0.4 and we have allocated 5.4 and reserved 0.4 more: on Linux all the rest, on Windows up to
    our limit."""
    cuda = FakeCuda(others=0.0)
    cuda.held, cuda.reserved, cuda.fraction = 5.4, 5.8, fraction
    cuda.stand_in(monkeypatch)
    assert duel_module.free_on_card(torch.device("cuda:0")) == pytest.approx(expected_gib * 2**30, rel=1e-6)
    assert duel_module.free_on_card(torch.device("cpu")) is None


def test_a_conversation_too_long_for_the_card_says_that_it_is_the_card(
    never_saw_an_adapter, tokenizer, monkeypatch: pytest.MonkeyPatch
):
    """Seen in the code: 8,192 tokens for everybody, 2 GiB of cache on a card with 1 left."""
    fits = partial(duel_module.tokens_that_fit, never_saw_an_adapter.config, width=4)
    little = next(free for free in (2**n for n in range(20, 40)) if fits(free) > 600)
    monkeypatch.setattr(duel_module, "free_on_card", lambda device: little)
    small = Duel(never_saw_an_adapter, tokenizer)
    assert 512 <= small.context_limit < 8192
    with pytest.raises(ChatError) as caught:
        small.prompt("base", [{"role": "user", "content": "word " * small.context_limit}], SHORT)
    assert caught.value.message.key == "chat.too_long_for_card"
    monkeypatch.setattr(duel_module, "free_on_card", lambda device: 50 << 30)
    assert Duel(never_saw_an_adapter, tokenizer).context_limit == 8192


def test_the_tuned_column_is_asked_in_the_template_it_was_trained_with(never_saw_an_adapter, tokenizer):
    turn = "{{ 'Q: ' if m['role'] == 'user' else 'A: ' }}{{ m['content'] }}\n"
    source = "{% for m in messages %}" + turn + "{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
    trained = ChatTemplate(source, tokenizer.special)
    duel = Duel(never_saw_an_adapter, tokenizer, trained)
    assert tokenizer.decode(duel.prompt("tuned", QUESTION, SHORT)) == "Q: What is the capital of France?\nA: "
    assert duel.prompt("base", QUESTION, SHORT) == tokenizer.prompt(QUESTION)


def test_both_columns_are_asked_to_think_as_the_tuned_one_was_unless_somebody_says(
    never_saw_an_adapter, folder, tmp_path
):
    thinking = Tokenizer(tokenizer_folder(tmp_path, folder, "qwen3_5_think"))
    duel = Duel(never_saw_an_adapter, thinking, thinking.template.with_thinking(False))
    prompts = {
        way: [duel.prompt(column, QUESTION, Sampling(max_new_tokens=8, enable_thinking=way)) for column in COLUMNS]
        for way in (None, True, False)
    }
    assert all(base == tuned for base, tuned in prompts.values()) and duel.thinks is False
    assert (
        thinking.decode(prompts[None][0]).endswith("assistant\n<think>\n\n</think>\n\n")
        and prompts[None] == prompts[False]
    )
    assert thinking.decode(prompts[True][0]).endswith("assistant\n<think>\n")
    assert Duel(never_saw_an_adapter, thinking).thinks is True


@pytest.mark.parametrize("thinks", [True, False])
def test_a_thought_that_the_prompt_has_begun_belongs_to_the_answer_that_a_person_reads(
    thinks, never_saw_an_adapter, folder, tmp_path
):
    thinking = Tokenizer(tokenizer_folder(tmp_path, folder, "qwen3_5_think"))
    sampling = SHORT.model_copy(update={"enable_thinking": thinks})
    text = text_and_end(answer(Duel(never_saw_an_adapter, thinking), {"base": QUESTION}, sampling), "base")[0]
    assert text.startswith("<think>\n") == thinks


@pytest.mark.parametrize(
    ("block", "times"),
    [([7], 64), ([7, 8, 9], 21), (list(range(40)), 3), (list(range(64)), 3)],
    ids=["one token", "three", "a sentence", "the longest"],
)
def test_an_answer_that_repeats_one_block_is_noticed_and_no_earlier(block: list[int], times: int) -> None:
    def noticed(tokens: list[int]) -> int | None:
        repetition = Repetition()
        return next((place for place, token in enumerate(tokens, 1) if repetition.is_loop(token)), None)

    beginning = list(range(100, 150))
    after = noticed(beginning + block * (times + 2))
    assert after is not None and times <= (after - len(beginning)) / len(block) <= times + 2
    # one token that differs each time: a list, a table, a poem
    assert noticed([token for line in range(30) for token in [*block[:20], 1000 + line]]) is None


def test_one_column_is_ended_and_the_other_is_what_it_would_have_been(duel: Duel) -> None:
    both = {"base": OTHER, "tuned": OTHER}
    full_text, _ = text_and_end(answer(duel, both, SHORT), "tuned")
    items: list[Piece | Done] = []
    for item in answer(
        duel, both, SHORT, lambda column=None, question=None: bool(items) and column == "base"
    ):  # after the first piece
        items.append(item)
    assert (
        text_and_end(items, "base")[1].finish_reason == "stopped"
        and text_and_end(items, "base")[1].tokens < SHORT.max_new_tokens
    )
    assert text_and_end(items, "tuned") == (full_text, text_and_end(items, "tuned")[1])
    assert text_and_end(items, "tuned")[1].finish_reason != "stopped"


@pytest.mark.parametrize(
    ("name", "length", "is_shared"),
    [("llama", 150, True), ("gemma3_text", 150, False), ("gpt_oss", 150, False), ("qwen3_next", 150, False),
     ("lfm2", 150, False), ("mistral", 150, True), ("wide gemma3_text", 150, True), ("llama", 40, False)],
)  # fmt: skip
def test_what_prompts_begin_with_is_read_once_and_the_logits_stay(name: str, length: int, is_shared: bool) -> None:
    """Questions about one passage: it was read again for each of them."""
    *wide, family = name.split()
    torch.manual_seed(0)
    config = families.config(family, **({"sliding_window": 300} if wide else {}))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ids = torch.randint(5, families.VOCABULARY, (length + 60,)).tolist()
    prompts = [ids[:length] + ids[length + n : length + 3 * n] for n in (1, 5, 20)]
    plain, sharing = (DecodedRows(Decoder(model, 2), prompts) for _ in range(2))
    sharing.read_shared()
    assert (sharing._cache is not None) == is_shared == (sharing._ids.shape[1] < 50)
    for token in (7, 8, 9):
        torch.testing.assert_close(sharing.next_logits(), plain.next_logits(), rtol=1e-3, atol=1e-4)
        for rows in (sharing, plain):
            assert rows.can_join() == (name in ("llama", "mistral"))
            rows.append(torch.tensor([token] * len(rows._ids)))
            rows.keep([0, 2] if token == 7 else range(len(rows._ids)))
