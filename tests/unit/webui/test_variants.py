"""The variants on the page: what the form takes of them, and how the chat answers."""

from __future__ import annotations

import pytest

from core.chat.client import ChatState, ChatTarget
from core.errors import RecipeError
from core.messages import LANGUAGES
from webui.form.fields import FormAnswers
from webui.form.planner import Form, recipe_of
from webui.kit.wording import Wording
from webui.pages.chat_status import status_line


def test_a_form_says_what_cannot_be_together_and_takes_a_share() -> None:
    """lora_dropout, below 1, was refused above 0: its limit was read as that of a whole number."""
    given = {
        "adapter.lora_dropout": 0.1,
        "train.warmup_ratio": 0.03,
        "train.neftune_noise_alpha": "5",
        "adapter.load_in_8bit": True,
    }
    sections = FormAnswers(given).sections()
    assert sections["adapter"] == {"lora_dropout": 0.1, "load_in_8bit": True}
    assert sections["train"] == {"warmup_ratio": 0.03, "neftune_noise_alpha": 5.0}
    form = Form(None, "starter", "sample:pirate_answers", "here", "", FormAnswers(given | {"adapter.method": "qlora"}))
    with pytest.raises(RecipeError, match="an 8-bit one .load_in_8bit"):
        recipe_of(form)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("use_dora", "mixed", "said"), [(True, False, "DoRA"), (False, False, ""), (False, True, None)]
)
def test_the_chat_page_says_that_answers_come_in_turn_and_why(
    language: str, use_dora: bool, mixed: bool, said: str | None
) -> None:
    state = ChatState(
        "ready", ChatTarget("starter", label="my run"), dtype="bfloat16", mixed=mixed, adapter={"use_dora": use_dora}
    )
    shown = str(status_line(state, Wording(language)))
    in_turn = {"en": "one after the other", "zh": "先后", "de": "nacheinander"}[language]
    assert (in_turn in shown) == (said is not None) and (said or "") in shown
