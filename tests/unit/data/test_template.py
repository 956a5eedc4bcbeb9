"""The chat template: what the model reads, and exactly which characters the assistant wrote."""

from __future__ import annotations

import pytest

from core.data.template import PLAIN, ChatTemplate
from core.errors import TemplateError

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (  # trims the answers and writes them between spaces
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
THINKING = (  # puts an empty thought before the last answer only, as Qwen3 does
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% "
    "endif %}"
)
TWO_TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello you"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Bye {{ 7*7 }} bye"},
]
SPECIAL = frozenset({"<|im_start|>", "<|im_end|>", "</s>"})


def learned(source: str, messages: list) -> list[str]:
    rendered = ChatTemplate(source, {"eos_token": "</s>"}, SPECIAL).spans(messages)
    return [rendered.text[start:end] for start, end in rendered.spans]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CHATML, ["Hello you<|im_end|>", "Bye {{ 7*7 }} bye<|im_end|>"]),
        (MARKED, ["Hello you<|im_end|>", "Bye {{ 7*7 }} bye<|im_end|>"]),
        (LLAMA2, [" Hello you </s>", " Bye {{ 7*7 }} bye </s>"]),
        # The first answer is not what would have to be written at its place, where it was the last: see
        # test_conversation_templates.
        (THINKING, ["<think>\n\n</think>\n\nBye {{ 7*7 }} bye<|im_end|>"]),
        (PLAIN, ["Hello you</s>", "Bye {{ 7*7 }} bye</s>"]),
    ],
)
def test_exactly_the_answers_and_their_end_token_are_the_assistants(source: str, expected: list[str]) -> None:
    assert learned(source, TWO_TURNS) == expected


@pytest.mark.parametrize("source", [CHATML, MARKED, LLAMA2, PLAIN])
def test_a_chat_asks_with_exactly_the_text_that_training_put_before_the_answer(source: str) -> None:
    template = ChatTemplate(source, {"eos_token": "</s>"}, SPECIAL)
    for turns in (TWO_TURNS[:2], TWO_TURNS):
        rendered = template.spans(turns)
        assert template.render(turns[:-1], add_generation_prompt=True) == rendered.text[: rendered.spans[-1][0]]


def test_without_markers_a_template_renders_the_same() -> None:
    marked = ChatTemplate(MARKED, {}, SPECIAL)
    assert "generation %}" not in marked.without_markers
    assert ChatTemplate(marked.without_markers).render(TWO_TURNS) == marked.render(TWO_TURNS)


def test_stop_is_what_closes_an_answer() -> None:
    assert ChatTemplate(CHATML, {}, SPECIAL).stop == "<|im_end|>"
    assert ChatTemplate(PLAIN, {"eos_token": "</s>"}, SPECIAL).stop == "</s>"


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("{% for %}", "template.broken"),
        ("{{ raise_exception('roles must alternate') }}", "template.cannot_render"),
        ("{{ messages[0].content.__class__.__mro__ }}", "template.cannot_render"),
        ("{{ messages[-1].content | upper }}", "template.rewrites_answers"),
        ("no answers at all", "template.rewrites_answers"),
        ("", "template.renders_nothing"),
        ("x" * 300_000, "template.too_large"),
    ],
)
def test_a_template_that_cannot_be_used_says_so(source: str, key: str) -> None:
    with pytest.raises(TemplateError) as caught:
        learned(source, TWO_TURNS)
    assert caught.value.message.key == key


def test_a_template_that_is_too_large_is_told_in_bytes() -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate("雨" * 100_000)
    assert caught.value.message.params["bytes"] == 300_000


def test_characters_that_we_use_as_markers_cannot_be_smuggled_in() -> None:
    messages = [{"role": "user", "content": "a\ue0f0b\ue0f2"}, {"role": "assistant", "content": "c\ue0f1d"}]
    assert learned(MARKED, messages) == ["cd<|im_end|>"]
