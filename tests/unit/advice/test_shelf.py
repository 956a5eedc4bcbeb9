"""A person's words find the models that they ask for, in English and in Chinese, over the real catalogue."""

from __future__ import annotations

import pytest

from core.advice import catalogue, shelf, wish
from core.advice.wish import Wish
from core.memory import budget
from core.memory.budget import Budget
from core.messages import LANGUAGES
from core.models.known import known_models
from core.presets import load

CARD = budget.planned(12, "Windows")
BY_ID = {model.id: model for model in known_models()}


def ids(words: str, there: Budget = CARD, asked: Wish | None = None) -> list[str]:
    return [row.model.id for row in shelf.find(words, there, asked).rows]


# words: what must be first, what must be among them, what must not appear.
QUESTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "a small Japanese model for 6 GB": (
        "lfm2.5-1.2b-jp",
        ("qwen3.5-4b", "sarashina2.2-3b-instruct"),
        ("qwen3-8b", "olmo-3-7b", "starter"),
    ),
    "the newest Qwen that fits": (
        "qwen3.5-4b",
        ("qwen3.5-9b", "qwen3-8b"),
        ("qwen3.8-27b", "gemma-4-12b", "deepseek-r1-distill-qwen-7b"),
    ),
    "one I may sell": (
        "qwen3.5-4b",
        ("llama-3.1-8b-instruct",),
        ("aya-expanse-8b", "qwen2.5-3b-instruct", "exaone-4.0-1.2b"),
    ),
    "日语小模型 可商用": (
        "sarashina2.2-3b-instruct",
        ("qwen3.5-4b", "llm-jp-3.1-1.8b-instruct", "tinyswallow-1.5b-instruct"),
        ("qwen3-8b", "aya-expanse-8b"),
    ),
    "calls tools under 4B": ("qwen3.5-4b", ("qwen3-4b-instruct-2507", "lfm2.5-350m"), ("qwen3-8b", "gemma-3-4b-it")),
    "thinks german": (
        "qwen3.5-4b",
        ("qwen3-8b", "granite-4.2-8b"),
        ("qwen3-4b-instruct-2507", "minicpm5-1b", "olmo-3-7b-think"),
    ),
    "llama 27B for 24 GB": (
        "llama-3.1-8b-instruct",
        ("llama-2-13b-chat",),
        ("llama-3.3-70b-instruct", "tinyllama-1.1b-chat", "qwen3.8-27b"),
    ),
    "能放进 8G 显卡、会思考的最新千问": ("qwen3.5-4b", ("qwen3-4b",), ("qwen3.5-9b", "qwen3-4b-instruct-2507")),
}


@pytest.mark.parametrize("words", QUESTIONS)
def test_a_new_users_question_is_answered(words: str) -> None:
    first, among, never = QUESTIONS[words]
    models = ids(words)
    assert models[0] == first
    assert set(among) <= set(models) and not set(never) & set(models)


READINGS: dict[str, Wish] = {
    "": Wish(),
    "what is the best model": Wish(),
    "qwen3 8b": Wish(names=("qwen3",), billions=(8 / 1.25, 8 * 1.25)),
    "Qwen/Qwen3-8B": Wish(names=("qwen/qwen3-8b",)),
    "gemma 3 4b": Wish(names=("gemma3",), billions=(4 / 1.25, 4 * 1.25)),
    "phi-4": Wish(names=("phi-4",)),
    "3 to 8B": Wish(billions=(3.0, 8.0)),
    "4B-8B tools": Wish(billions=(4.0, 8.0), tools=True),
    "over 30 billion": Wish(billions=(30.0, float("inf"))),
    "500M": Wish(billions=(0.4, 0.625)),
    "不超过40亿": Wish(billions=(0.0, 4.0)),
    "7B以下": Wish(billions=(0.0, 7.0)),
    "12gb": Wish(card_gb=12.0),
    "RTX 3060 Ti": Wish(card_gb=8.0),
    "4060ti": Wish(card_gb=8.0),
    "4060 ti 16 GB": Wish(card_gb=16.0),
    "8G显存": Wish(card_gb=8.0),
    "small 7b": Wish(billions=(7 / 1.25, 7 * 1.25)),
    "without thinking": Wish(thinks=False),
    "不思考的模型": Wish(thinks=False),
    "会调用工具的韩语模型": Wish(tools=True, language="ko"),
    "deutsch": Wish(language="de"),
    "kleines Modell, das ich verkaufen darf": Wish(billions=(0.0, wish.MEANT["small"][1]), sell=True),
    "höchstens 4B, spricht Japanisch und Deutsch": Wish(billions=(0.0, 4.0), language="ja", languages=("de",)),
    "kann Werkzeuge aufrufen, ab 7B": Wish(tools=True, billions=(7.0, float("inf"))),
    "nemo français": Wish(language="fr", names=("nemo",)),
    "english and japanese": Wish(language="en", languages=("ja",)),
    "without tools": Wish(),
    "不可商用": Wish(),
    "moe": Wish(topic="experts"),
    "an email assistant for my laptop with 6 GB": Wish(card_gb=6.0),
    "r1 14b": Wish(names=("r1",), billions=(14 / 1.25, 14 * 1.25)),
    "google": Wish(makers=("Gemma",)),
    "阿里 最新": Wish(makers=("Qwen",), order="newest"),
    "role play": Wish(topic="roleplay"),
    "what should I take for this PC": Wish(),  # was "sold" and "thinks"
    "a smarter one to start with": Wish(),  # was the starter
    "up to 8 GB": Wish(card_gb=8.0),  # "up" was a name
    "python": Wish(topic="code"),  # was near "phone"
}


@pytest.mark.parametrize("words", READINGS)
def test_words_are_read_as_what_they_ask_for(words: str) -> None:
    assert wish.read(words).wish == READINGS[words]


@pytest.mark.parametrize(
    ("written", "meant"), [("qwne 8b", "qwen"), ("lamma", "llama"), ("japanes", "japanese"), ("ministal", "ministral")]
)
def test_a_misspelt_word_is_said_with_the_nearest_ones(written: str, meant: str) -> None:
    remark = shelf.find(written, CARD).remarks[0]
    for language in LANGUAGES:
        assert all(part in remark.render(language) for part in (written.split()[0], meant))


def test_a_word_that_means_nothing_is_said_and_finds_nothing_by_itself() -> None:
    alone = shelf.find("xyzzy", CARD)
    assert not alone.rows and "xyzzy" in str(alone.remarks[0])
    beside = shelf.find("xyzzy german", CARD)
    assert {row.model.id for row in beside.rows} == set(ids("german")) and "xyzzy" in str(beside.remarks[0])


def test_words_that_mean_nothing_at_all_bring_what_may_be_asked() -> None:
    for language in LANGUAGES:
        sentences = [told.render(language) for told in shelf.find("chatgpt", CARD).remarks]
        assert len(sentences) == 2 and "8 GB" in sentences[1]
    assert len(shelf.find("chatgpt german", CARD).remarks) == 1


def test_a_word_that_is_near_another_but_begins_otherwise_is_not_taken_for_it() -> None:
    result = shelf.find("ollama german", CARD)
    assert result.words.unknown[0][0] == "ollama" and "llama" in result.words.unknown[0][1]
    assert "llama" in result.remarks[0].render("zh")


def test_what_may_be_sold_without_limits_comes_before_what_may_be_within_limits() -> None:
    rows = [row for row in shelf.find("one I may sell", CARD).rows if row.verdict in ("lora", "qlora")]
    meanings = [row.model.commercial for row in rows]
    assert set(meanings) == {"allowed", "limited"} and meanings == sorted(meanings)


def test_what_is_made_for_a_language_comes_before_what_names_it_among_many() -> None:
    """ "small Japanese for 6 GB" brought Qwen first."""
    rows = [row.model for row in shelf.find("small japanese for 6 GB", CARD).rows if row.verdict in ("lora", "qlora")]
    made_for = [len(model.languages) <= 3 for model in rows]
    assert made_for[0] and not made_for[-1] and made_for == sorted(made_for, reverse=True)
    assert ids("chinese")[0] == ids("")[1], "Qwen is made for Chinese among others"


@pytest.mark.parametrize("words", ["small", "small japanese", "a tiny model", "large"])
def test_what_a_word_means_is_the_limit_that_is_said(words: str) -> None:
    """ "small" said "at most 4.5B" and showed 4.6B."""
    result = shelf.find(words, CARD)
    least, most = result.wish.billions or (0.0, 0.0)
    assert result.rows and all(least <= row.model.billions <= most for row in result.rows)


def test_an_odd_question_is_answered_all_the_same() -> None:
    for words in (
        "\x00",
        "🦙" * 300,
        "(" * 50,
        "99999999 GB",
        "0B",
        "rtx",
        "- / .",
        "b b b 4b4b",
        "ｑｗｅｎ３　８Ｂ",
        "a" * 5000,
    ):
        assert shelf.find(words, CARD).wish is not None
    assert ids("ｑｗｅｎ３　８Ｂ") == ids("qwen3 8b")


def test_without_words_all_models_are_there_and_the_starter_leads() -> None:
    result = shelf.find("", CARD)
    assert (
        len(result.rows) == len(BY_ID)
        and result.rows[0].model.id == "starter"
        and not result.remarks
        and not result.wish.parts()
    )
    assert ids("a model for 12 GB")[0] != "starter" and ids("", asked=Wish(fits=True))[0] == "starter"


def test_what_trains_here_comes_first_and_then_what_is_liked() -> None:
    rank = {"lora": 0, "qlora": 0, "tight": 1, "unknown": 2, "no": 3}
    place = {model.id: number for number, model in enumerate(known_models())}
    rows = shelf.find("german", CARD).rows
    assert [rank[row.verdict] for row in rows] == sorted(rank[row.verdict] for row in rows)
    for verdict in set(rank.values()):
        places = [place[row.model.id] for row in rows if rank[row.verdict] == verdict]
        assert places == sorted(places)


def test_a_verdict_is_that_of_choosing_the_model() -> None:
    for row in shelf.find("", CARD).rows:
        fits = {method: catalogue.fit(row.model.shape, catalogue.rounded(CARD), method) for method in ("lora", "qlora")}
        assert (row.lora, row.qlora) == (fits["lora"], fits["qlora"])
        assert (row.verdict != "no") == any(fit.verdict in ("fits", "tight") for fit in fits.values())
        assert row.needed_gib == fits[row.method].needed_gib
        assert (row.verdict in ("lora", "qlora")) == (fits[row.method].verdict == "fits")


def test_a_card_in_the_words_is_what_the_verdicts_are_of() -> None:
    result = shelf.find("qwen3 8b for 24 GB", CARD)
    assert result.budget.sold_gb == 24 and result.rows[0].verdict == "lora"
    assert shelf.find("qwen3 8b", CARD).rows[0].verdict == "qlora"
    small = shelf.find("fits", budget.planned(4, "Linux")).rows
    assert small and all(row.verdict != "no" for row in small) and "qwen3-8b" not in {row.model.id for row in small}


def test_a_gate_has_its_page_and_an_open_model_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://mirror.example/")
    rows = {row.model.id: row for row in shelf.find("gemma", CARD).rows}
    assert (
        rows["gemma-3-4b-it"].gate == "http://mirror.example/google/gemma-3-4b-it" and rows["gemma-4-e4b"].gate is None
    )


def test_the_words_stand_over_the_pages_own_controls() -> None:
    wish = Wish(language="ja", fits=True)
    assert shelf.find("german", CARD, wish).wish == Wish(language="de", fits=True)
    assert ids("", CARD, Wish(tools=True)) == ids("tools")
    assert set(ids("xyzzy", CARD, wish)) == set()


def test_where_nothing_is_all_of_it_the_least_is_left_out_and_said() -> None:
    result = shelf.find("llama 27B for 24 GB", CARD)
    assert (
        result.left_out == ("billions",) and "27B" in str(result.remarks[0]) and "27B" in result.remarks[0].render("zh")
    )
    too_large = shelf.find("llama 3.3 70b that fits", CARD)
    assert too_large.left_out == ("fits",) and too_large.rows[0].verdict == "no"


def test_what_one_may_not_do_is_never_left_out() -> None:
    result = shelf.find("exaone to sell", CARD)
    assert not result.rows and result.remarks[-1].key == "shelf.none"


def test_what_was_understood_is_told_in_both_languages() -> None:
    words = "newest small german that thinks and calls tools, commercial, that fits, stories"
    parts = wish.read(words).wish.parts()
    assert set(parts) == {"language", "thinks", "tools", "sell", "fits", "topic", "billions", "order"}
    for part in (*parts.values(), *wish.read("google qwen 8b 6gb").wish.parts().values()):
        for language in LANGUAGES:
            assert not part.render(language).startswith("shelf.") and "{" not in part.render(language)


def test_the_words_of_the_shelf_are_words_and_the_models_languages_have_names() -> None:
    presets = load("shelf")
    assert all(isinstance(word, str) for word in presets["fillers"]), "YAML reads on and no as true and false"
    assert all(isinstance(word, str) for words in presets["asks"].values() for word in words)
    assert {code for model in known_models() for code in model.languages} == set(presets["languages"])
    families = [*(model.family for model in known_models()), *(model.hub for model in known_models())]
    assert all(
        any(name.startswith(maker) for name in families) for makers in presets["makers"].values() for maker in makers
    )
    for topic in presets["topics"]:
        assert shelf.find("", CARD, Wish(topic=topic)).rows


def test_a_question_that_was_asked_of_this_card_before_needs_no_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page asks at each pause of typing; free memory trembles between them."""
    shelf.find("", CARD)
    counted: list[object] = []
    monkeypatch.setattr("core.advice.recommend.fill_memory_settings", lambda *asked: counted.append(asked))
    trembling = CARD.model_copy(update={"free_gib": CARD.free_gib + 0.01})  # type: ignore[operator]  # a planned card's is known
    for words in ("", "german", "qwen", "calls tools under 4B"):
        assert shelf.find(words, trembling).rows
    assert not counted


def test_the_end_of_a_word_is_no_bound_on_the_size() -> None:
    """Seen: "arab 7b" asked for Argentina's models of 7B or more, because "ab" is German for "at least"."""
    assert wish.read("arab 7b model").wish.billions == wish.read("7b model").wish.billions
    assert wish.read("collab 7b").wish.billions == wish.read("7b").wish.billions
    assert wish.read("ab 7b").wish.billions[0] == 7 and wish.read("日语不超过7b").wish.billions[1] == 7


def test_a_language_and_a_topic_are_called_as_the_reader_calls_them() -> None:
    """Seen: English names of languages on the German page."""
    japanese = wish.language_name("ja")
    assert [japanese.render(language) for language in ("en", "zh", "de")] == ["Japanese", "日语", "Japanisch"]
    assert wish.topic_name("stories").render("de") == "Geschichten"
    assert wish.language_name("xx").render("de") == "xx"
