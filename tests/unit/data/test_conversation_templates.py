"""Thinking and tool calls under the templates that families ship: what is learned is what the model will have to write
after the prompt that it will be given, or the row is refused with the reason (docs/thinking-and-tools.md)."""

from __future__ import annotations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from core.data.template import ChatTemplate
from core.errors import TemplateError
from core.presets import PROJECT
from tests.kit.templates import CONVERSATIONS, NAMES, TOKENS, TWINS, source, template

THINKING = [name for name in CONVERSATIONS if name.startswith("thinking")]
TOOLS = [name for name in CONVERSATIONS if name.endswith("tools")]
NO_TOOLS = (
    "cohere", "cohere2", "deepseek_r1_distill", "deepseekv3", "gemma", "gemma3", "idefics3", "llama3", "llava_next",
    "phi3", "phi3_5",
    "qwen2_5_vl", "smolvlm",
)  # fmt: skip
# Which conversations a template cannot be asked for, and why; all others are learned.
REFUSED = {
    **{name: dict.fromkeys(TOOLS, "template.no_tools") for name in NO_TOOLS},
    "lfm2": dict.fromkeys(TOOLS, "template.no_tool_calls"),
    **{name: dict.fromkeys(THINKING, "template.drops_thinking") for name in ("gemma4", "gemma4_v3", "gemma4_v4")},
    **{name: {"thinking_tools": "template.drops_thinking"} for name in ("gemma4_v2", "llama3_1", "llama3_2")},
}


def rendered_by_transformers(chat: ChatTemplate, turns: list, tools: list | None, thinks: bool | None) -> str:
    more = {} if thinks is None or chat.dialect.switch is None else {"enable_thinking": thinks}
    messages = chat.dialect.messages(turns)
    texts, _ = render_jinja_template(
        [messages], tools=tools, chat_template=chat.source, add_generation_prompt=True, **more, **TOKENS
    )
    return texts[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_comes_after_the_prompt_that_is_given_there(name: str) -> None:
    """Qwen3.8, once: `\\n</think>\\n\\n<think>\\nthought` was learned after a prompt that had begun the thought
    already."""
    chat, refused = template(name), REFUSED.get(name, {})
    for conversation, (turns, tools) in CONVERSATIONS.items():
        if conversation in refused:
            with pytest.raises(TemplateError) as caught:
                chat.conversations(turns, tools)
            assert caught.value.message.key == refused[conversation], conversation
            continue
        places = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
        learned = [
            (rendered, start, end) for rendered in chat.conversations(turns, tools) for start, end in rendered.spans
        ]
        assert len(learned) == len(places), f"{conversation}: each answer once"
        for place, (rendered, start, end) in zip(places, learned, strict=True):
            message, body = turns[place], rendered.text[start:end]
            prompt = rendered_by_transformers(chat, turns[:place], tools, bool(message.get("reasoning")))
            assert rendered.text[:start] == prompt, conversation
            assert all(body.count(part) == 1 for part in (message.get("reasoning"), message["content"]) if part), (
                conversation,
                body,
            )
            assert all(call["name"] in body and "Paris" in body for call in message.get("tool_calls", ())), (
                conversation,
                body,
            )
            assert "<think>" not in body or not prompt.rstrip().endswith("<think>"), "no thought is begun twice"
            assert body.rstrip("\n").endswith(tuple(chat.all_special)), f"{conversation}: it learns to stop"


def test_all_that_a_template_can_write_is_learned_and_the_rest_is_refused() -> None:
    assert set(REFUSED) <= set(NAMES)
    assert sum(map(len, REFUSED.values())) == 40 and len(NAMES) * len(CONVERSATIONS) == 287


# Where the answers of TRL's training twin are other ones than ours, and why.
OTHERWISE = {
    **dict.fromkeys(
        ("deepseek_r1_distill", "deepseekv3"),
        (
            "plain",
            "system",
            "turns",
            "thinking",
            "thinking_turns",
        ),  # the twin learns after <｜Assistant｜>, the prompt begins a thought
    ),
    "diffusion_gemma": (
        "thinking_turns",
        "tools",
        "thinking_tools",
    ),  # ours learns <|tool_response>, with which the model hands over
    # The twins leave out the thinking of earlier answers, which ours learns as examples of their own; gpt-oss: and end
    # those otherwise.
    **dict.fromkeys(
        ("glm4moe", "nemotron_3_5_lightning", "nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra"),
        ("thinking_turns",),
    ),
    "gptoss": ("turns", "thinking_turns", "thinking_tools"),
    # The twins learn the end of the text as well, which stands after the end of the answer.
    **dict.fromkeys(("phi3", "phi3_5"), ("plain", "system", "turns", "thinking", "thinking_turns")),
}


@pytest.mark.parametrize("name", TWINS)
def test_what_is_learned_is_what_the_training_twin_of_trl_marks(name: str) -> None:
    """But for what the prompt holds already, and for white space after the end token, which nobody has to write."""
    chat = template(name)
    for conversation, (turns, tools) in CONVERSATIONS.items():
        if conversation in REFUSED.get(name, {}):
            continue
        ours = [(f.text[:start], f.text[start:end]) for f in chat.conversations(turns, tools) for start, end in f.spans]
        texts, marked = render_jinja_template(
            [chat.dialect.messages(turns)], tools=tools, chat_template=source(f"{name}_training"),
            return_assistant_tokens_mask=True, **TOKENS
        )  # fmt: skip
        theirs: list[tuple[int, int]] = []
        for start, end in marked[0]:
            if theirs and theirs[-1][1] == start:
                start = theirs.pop()[0]
            if start < end:
                theirs.append((start, end))
        same = len(ours) == len(theirs)
        for (prompt, body), (start, end) in zip(ours, theirs, strict=False):
            before, answer, after = texts[0][start:end].partition(body)
            same = same and bool(answer) and prompt.endswith(before) and not after.strip()
        assert same == (conversation not in OTHERWISE.get(name, ())), (
            conversation,
            ours,
            [texts[0][a:b] for a, b in theirs],
        )


def test_thinking_that_is_left_out_is_asked_for_by_nobody() -> None:
    turns, _ = CONVERSATIONS["thinking_turns"]
    for name in ("qwen3", "qwen3_5_think", "qwen3_8", "glm4moe"):
        conversations = template(name).conversations(turns, thinks=False)
        learned = [f.text[start:end] for f in conversations for start, end in f.spans]
        assert [words.partition("<|")[0].strip() for words in learned] == ["It is 4.", "It is 6."], name
        assert not any(f.thinks or "four" in f.text for f in conversations)


def test_with_mask_history_only_the_last_round_is_learned_and_the_rest_counted() -> None:
    turns, _ = CONVERSATIONS["thinking_turns"]
    (conversation,) = template("qwen3").conversations(turns, mask_history=True)
    assert [conversation.text[start:end] for start, end in conversation.spans] == [
        "<think>\nThree and three.\n</think>\n\nIt is 6.<|im_end|>"
    ]
    assert conversation.unlearned == 1 and "make four" not in conversation.text
    (conversation,) = template("qwen3_8").conversations(turns, mask_history=True)
    assert len(conversation.spans) == 2 and conversation.unlearned == 0, "this one keeps what was thought"


def test_an_answer_of_weight_0_is_read_and_not_learned() -> None:
    turns = [dict(turn) for turn in CONVERSATIONS["turns"][0]]
    turns[1]["weight"] = 0
    (conversation,) = template("qwen2_5").conversations(turns)
    assert [conversation.text[start:end] for start, end in conversation.spans] == [
        "Now we talk.<|im_end|>"
    ] and "Hi, friend!" in conversation.text


def test_a_template_without_a_system_role_has_it_in_the_first_question() -> None:
    prompt = template("gemma").render(CONVERSATIONS["system"][0][:2], add_generation_prompt=True)
    assert "<start_of_turn>user\nBe brief.\n\nHello there<end_of_turn>" in prompt


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "qwen3_8", "smolvlm", "qwen3_5_nothink"])
@pytest.mark.parametrize("thinks", [False, True])
def test_what_is_taken_home_asks_as_was_learned(name: str, thinks: bool) -> None:
    chat, turns = template(name), CONVERSATIONS["plain"][0][:1]
    asking = chat.with_thinking(thinks)
    assert asking.render(turns, True) == chat.render(turns, True, thinks=thinks)
    assert rendered_by_transformers(asking, turns, None, None) == chat.render(turns, True, thinks=thinks)
    for other in (False, True):
        assert asking.render(turns, True, thinks=other) == chat.render(turns, True, thinks=other), (
            "who says so is still heard"
        )


def row_of(name: str) -> tuple[str, ...]:
    """The cells of the page's row that names a template, without the names."""
    dialect, refused = template(name).dialect, REFUSED.get(name, {})
    thinking = {"<think>": "`<think>` in the content", None: "written after the prompt"}.get(
        dialect.reasoning, f"`{dialect.reasoning}`"
    )
    reasons = sorted({key.removeprefix("template.") for key in refused.values()})
    return (
        "yes" if dialect.system else "in the first question", "parts" if dialect.parts else "text", thinking,
        f"`{dialect.switch}`" if dialect.switch else "no",
        "no" if not dialect.calls else "text" if dialect.arguments_as_text else "object",
        "yes" if dialect.tools else "no",
        f"{len(CONVERSATIONS) - len(refused)} of {len(CONVERSATIONS)}{', ' + ', '.join(reasons) if reasons else ''}",
    )  # fmt: skip


def test_the_page_of_thinking_and_tools_says_how_each_family_is_asked() -> None:
    page = (PROJECT / "docs" / "thinking-and-tools.md").read_text("utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in page if line.count(" | ") == 7]
    table = {name: tuple(cells) for names, *cells in rows for name in names.split(", ")}
    assert {name: table.get(name) for name in NAMES} == {name: row_of(name) for name in NAMES}
