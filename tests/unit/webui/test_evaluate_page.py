"""The Evaluate page: what a browser gets for what it has chosen and pressed, whatever it sends."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.chat.comparison import ComparisonAnswer
from core.chat.evaluation import sets
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.of_run import JUDGE, contestants_of_run, newest_evaluation_of
from core.chat.evaluation.table import judge_of_kind, option_of
from core.chat.prompts import MAX_BYTES, Prompt
from core.errors import GarageError
from core.files import JsonObject
from core.judges.specs import JUDGE_SPEC, ExactJudge, JudgeSpec, LabelJudge, ModelJudge, NumberJudge, RegexJudge
from core.messages import LANGUAGES, msg
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from tests.kit.chat_server import ChatServer
from tests.kit.runs import trained
from tests.kit.waits import wait_until
from webui.kit.visitor import IS_LOCAL
from webui.kit.wording import Wording
from webui.pages.evaluate import EvaluatePlace
from webui.state.evaluating import Choice, EvaluationProgress
from webui.state.services import Services

HOSTILE = "<img src=x onerror=alert(1)>"
LABELS = LabelJudge(labels=("yes", "no"))


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def run(space: Workspace) -> RunFolder:
    return trained(space, "Shop labels")


@pytest.fixture
def place(space: Workspace, run: RunFolder) -> EvaluatePlace:
    return EvaluatePlace(Services.open(space), Wording("en"))


def kept_judge(evaluation: SetEvaluation) -> JudgeSpec:
    return JUDGE_SPEC.validate_json((evaluation.path / JUDGE).read_bytes())


def own_set(space: Workspace, rows: int = 3, title: str = "Mine") -> sets.TestSet:
    prompts = [
        Prompt(turns=({"role": "user", "content": f"Is {at} even? {HOSTILE}"},), expected="no" if at % 2 else "yes")
        for at in range(rows)
    ]
    return sets.save(space, sets.create(title, prompts))


def evaluated(space: Workspace, run: RunFolder, test_set: sets.TestSet, judge: JudgeSpec = LABELS) -> SetEvaluation:
    """Base: the first right; examples: the first two; fine-tuned: all but the first."""
    evaluation = SetEvaluation.create(
        space, test_set.prompts, list(contestants_of_run(run, "")), 32, (test_set.title, test_set.fingerprint)
    )
    rights: tuple[Callable[[int], bool], ...] = (lambda at: at < 1, lambda at: at < 2, lambda at: at > 0)
    for number, prompt in enumerate(test_set.prompts):
        for at, is_right in enumerate(rights):
            text = f"{prompt.expected}." if is_right(number) else f"maybe {HOSTILE}"
            evaluation.add(ComparisonAnswer(prompt=number, contestant=at, text=text, tokens=3, seconds=0.1,
                                            finish_reason="stop"))  # fmt: skip
    (evaluation.path / JUDGE).write_bytes(JUDGE_SPEC.dump_json(judge))
    return evaluation


def drawn(place: EvaluatePlace, **fields: object) -> str:
    return place.drawn({"fields": fields})


def press(page: EvaluatePlace, act: str, fields: JsonObject | None = None, **rest: object) -> JsonObject:
    return page.press({"act": act, "fields": fields or {}, **rest})


def filters(html: str) -> dict[str, int]:
    buttons = re.findall(r'data-set="filter" data-value="(\w+)"[^>]*>[^<]* (\d+)</button>', html)
    return {name: int(count) for name, count in buttons}


# ---- choosing ------------------------------------------------------------------------------------


def test_the_judge_is_shown_on_five_rows_before_there_are_answers(place: EvaluatePlace, space: Workspace) -> None:
    mine = own_set(space, 8)
    html = drawn(place, questions=f"set:{mine.name}")
    trial = html[html.index("ep-trial") :]
    assert html.count('data-act="start"') == 1 and "names the expected label and no other (proposed)" in html
    assert trial.count("<tr>") == 1 + 5, "its head and five rows"
    assert trial.count("ev-cell ev-right") == 5 and trial.count("ev-cell ev-wrong") == 5
    exact = drawn(place, questions=f"set:{mine.name}", judge="similarity")
    assert 'value="similarity" selected' in exact and "ev-wrong" in exact


def test_a_judge_has_a_field_for_what_it_needs_and_is_shown_at_work_with_it(
    place: EvaluatePlace, space: Workspace, run: RunFolder
) -> None:
    mine = own_set(space)
    fields = {"model": f"run:{run.id}", "questions": f"set:{mine.name}", "judge": "regex"}
    html = drawn(place, **fields)
    assert 'name="pattern" value=""' in html and "ep-trial" not in html
    html = drawn(place, **fields, pattern="^y")
    assert 'value="^y"' in html and html[html.index("ep-trial") :].count("ev-cell ev-right") == 3, (
        "yes, twice, and not no"
    )
    evaluation = evaluated(space, run, mine)
    assert press(place, "judge", fields) == {"notice": ""} and kept_judge(evaluation) == LABELS, (
        "without a pattern none"
    )
    press(place, "judge", fields | {"pattern": "^y"})
    assert kept_judge(evaluation) == RegexJudge(pattern="^y") and "matches a pattern" in drawn(
        place, **fields, pattern="^y"
    )
    assert "no regular expression" in _refusal(place, "judge", fields | {"pattern": "("})
    assert "keyword" in _refusal(place, "judge", fields | {"judge": "json", "schema": '{"if": true}'})
    for typed, spec in (("2 %", NumberJudge(relative=0.02)), ("0,5", NumberJudge(tolerance=0.5)), ("", NumberJudge())):
        press(place, "judge", fields | {"judge": "number", "tolerance": typed})
        assert kept_judge(evaluation) == spec
    for typed in ("few", "-1", "nan", "200 %"):
        assert f"“{typed}” does not suit" in _refusal(place, "judge", fields | {"judge": "number", "tolerance": typed})
    assert kept_judge(evaluation) == NumberJudge(), "a refused one changes nothing"


def test_a_tolerance_leaves_the_other_options_of_the_proposed_judge(place: EvaluatePlace, space: Workspace) -> None:
    rows = [Prompt(turns=({"role": "user", "content": f"{n}?"},), expected=f"{n},5 kg") for n in range(3)]
    mine = sets.save(space, sets.create("Weights", rows))
    choice = Choice("base:starter", f"set:{mine.name}", judge="number", option="0.1")
    evaluating = place.services.evaluating
    assert evaluating.judge(choice, evaluating.basis(choice)) == NumberJudge(tolerance=0.1, decimal=",")


def test_another_model_at_the_proposed_server_is_the_judge(place: EvaluatePlace, space: Workspace) -> None:
    mine = own_set(space)
    judge = judge_of_kind("model", (), "http://localhost:1/v1", "a")
    choice = Choice("base:starter", f"set:{mine.name}", judge="model", option=option_of(judge), judge_model="b")
    ground = replace(place.services.evaluating.basis(choice), judge=judge)
    assert place.services.evaluating.judge(choice, ground) == judge.model_copy(update={"model": "b"})


def test_a_model_judges_once_a_person_at_this_pc_sends_it_the_answers(
    place: EvaluatePlace, space: Workspace, run: RunFolder
) -> None:
    mine = own_set(space)
    evaluation = evaluated(space, run, mine)
    server = ChatServer()
    server.reply = lambda body: '{"verdict": "same"}'
    fields = {"model": f"run:{run.id}", "questions": f"set:{mine.name}", "judge": "model", "server": server.url}
    assert 'name="server"' in drawn(place, **fields) and "Name the model" in _refusal(place, "judge", fields)
    fields |= {"judge_model": "big"}
    press(place, "judge", fields)
    assert kept_judge(evaluation) == ModelJudge(url=f"{server.url}/chat/completions", model="big")
    html = drawn(place, **fields)
    assert 'data-act="send"' in html and "12 requests would go to" in html and 'class="ev-conclusion"' not in html
    assert "only on the PC that runs LoRA Garage" in _refusal(place, "send", fields) and not server.asked
    press(place, "send", fields | {"also": f"run:{run.id}@0.5"}, **{IS_LOCAL: True})  # which is not answered for it
    wait_until(lambda: not place.services.evaluating.progress().at_work, 30)
    assert place.services.evaluating.progress().error is None and len(server.asked) == 12
    html = drawn(place, **fields)
    assert 'data-act="send"' not in html and 'class="ev-conclusion"' in html
    server.close()


def test_a_base_model_alone_is_asked_what_would_be_trained_on(place: EvaluatePlace) -> None:
    html = drawn(place, model="base:starter", questions="data:sample:shop_messages")
    assert re.findall(r'name="who" value="([\w+]+)" checked', html) == ["base", "base+prompt", "base+examples"]
    assert 'value="base:starter" selected' in html and 'value="data:sample:shop_messages" selected' in html
    ground = place.services.evaluating.basis(Choice("base:starter", "data:sample:shop_messages"))
    assert len(ground.test_set.prompts) == 20 and ground.system


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "run:../../etc", "questions": "set:../../etc/passwd", "who": "base", "judge": 7},
        {"model": None, "questions": ["x"], "who": [1, None], "prompt": {}, "filter": "x", "row": "99999", "more": "x"},
        {"model": "base:../..", "questions": "data:gone", "judge": "regex"},
        {},
    ],
)
def test_any_json_of_a_browser_gets_a_page(place: EvaluatePlace, fields: JsonObject) -> None:
    html = drawn(place, **fields)
    assert 'value="run:' in html and "selected" in html and "passwd" not in html
    assert drawn(place, **fields) == html and place.press({"act": fields, "fields": [fields]}) == {"notice": ""}


def test_a_run_that_is_removed_while_it_is_open_leaves_a_page(
    place: EvaluatePlace, space: Workspace, run: RunFolder
) -> None:
    mine = own_set(space)
    evaluated(space, run, mine)
    fields = {"model": f"run:{run.id}", "questions": f"set:{mine.name}"}
    assert 'class="ev-conclusion"' in drawn(place, **fields)
    shutil.rmtree(run.path)
    place.services.snapshots.now(fresh=True)
    html = drawn(place, **fields)
    assert run.id not in html and 'value="base:starter" selected' in html
    sets.remove(space, mine.name)
    assert mine.name not in drawn(place, **fields)


# ---- the table -----------------------------------------------------------------------------------


def test_rows_are_coloured_filtered_and_opened(place: EvaluatePlace, space: Workspace, run: RunFolder) -> None:
    mine = own_set(space, 9)
    evaluated(space, run, mine)
    fields = {"questions": f"set:{mine.name}"}
    html = drawn(place, **fields)
    assert html.index("ev-conclusion") < html.index("ev-table"), "the sentence comes first"
    assert filters(html) == {"all": 9, "differ": 9, "tuned_wrong": 1, "base_right": 2}
    assert html.count('class="ev-row"') == 9 and html[html.index("ep-rows") :].count("ev-cell ev-right") == 11
    assert drawn(place, **fields, filter="base_right").count('class="ev-row"') == 2
    opened = drawn(place, **fields, filter="tuned_wrong", row="0")
    assert opened.count('class="ev-answer"') == 1 + 3
    assert "Names no label." in opened and "The expected label." in opened
    assert "<img" not in opened and opened.count("&lt;img") == 3, "nothing of a question or an answer is markup"


def test_the_judge_stays_shown_on_five_rows_until_all_is_answered(
    place: EvaluatePlace, space: Workspace, run: RunFolder
) -> None:
    """As "Try without fine-tuning first" begins at once, its judge was seen for a moment only."""
    mine = own_set(space)
    evaluation = SetEvaluation.create(
        space, mine.prompts, list(contestants_of_run(run, "")), 32, (mine.title, mine.fingerprint)
    )
    (evaluation.path / JUDGE).write_bytes(JUDGE_SPEC.dump_json(LABELS))
    assert "ep-trial" in drawn(place, questions=f"set:{mine.name}")


def test_confused_labels_are_counted(place: EvaluatePlace, space: Workspace, run: RunFolder) -> None:
    mine = own_set(space, 9)
    evaluation = evaluated(space, run, mine)
    evaluation.add(ComparisonAnswer(prompt=1, contestant=2, text="It is: yes", tokens=1, seconds=0.1,
                                    finish_reason="stop"))  # fmt: skip
    html = drawn(place, questions=f"set:{mine.name}")
    table = html[html.index("ep-confusions") : html.index("ep-rows")]
    assert re.findall(r'<td class="ev-cell( ev-\w+)?">(\d)</td>', table) == [
        (" ev-right", "4"), ("", "0"), (" ev-wrong", "1"),  # yes: one was "maybe"
        (" ev-wrong", "1"), (" ev-right", "3"), ("", "0"),
    ]  # fmt: skip
    (evaluation.path / JUDGE).write_bytes(JUDGE_SPEC.dump_json(ExactJudge()))
    assert "ep-confusions" not in drawn(place, questions=f"set:{mine.name}")


def test_a_thousand_rows_come_in_parts(place: EvaluatePlace, space: Workspace, run: RunFolder) -> None:
    mine = own_set(space, 1000)
    evaluated(space, run, mine)
    html = drawn(place, questions=f"set:{mine.name}")
    assert html.count('class="ev-row"') == 100 and filters(html)["all"] == 1000 and len(html) < 200_000
    assert drawn(place, questions=f"set:{mine.name}", more="2").count('class="ev-row"') == 300
    assert "100 more" in html and drawn(place, questions=f"set:{mine.name}", set=mine.name).count("<li>") <= 201


def test_another_judge_judges_the_answers_that_are_there(
    place: EvaluatePlace, space: Workspace, run: RunFolder
) -> None:
    mine = own_set(space)
    evaluated(space, run, mine)
    fields = {"questions": f"set:{mine.name}"}
    html = drawn(place, **fields)
    assert "ep-trial" not in html and "names the expected label and no other" in html
    assert press(place, "judge", fields | {"judge": "length"}) == {"notice": ""}
    html = drawn(place, **fields)
    assert 'value="length" selected' in html and "100 % (3 of 3)" in html
    press(place, "judge", fields | {"judge": "person"})
    html = drawn(place, **fields)
    assert "nothing to compare yet" in html, "seen: a bar at 0 % (0 of 0)"
    assert "ev-share" not in html and "thin lines" not in html


def test_a_vote_and_a_bad_answer_are_one_press_each(place: EvaluatePlace, space: Workspace, run: RunFolder) -> None:
    mine = own_set(space)
    evaluated(space, run, mine)
    fields = {"questions": f"set:{mine.name}"}
    for at, verdict in (("0", "right"), ("2", "wrong")):
        press(place, "vote", fields, number="0", place=at, verdict=verdict)
    html = drawn(place, **fields, row="0")
    assert html.count('aria-pressed="true" class="ev-vote') == 3, "two contestants gave the same answer"
    assert "agrees with your votes on 100 % of 3 answers" in html
    sentence = press(place, "bad", fields, number="0", place="2")["notice"]
    assert "Kept as a test" in sentence and "1 question" in sentence
    press(place, "bad", fields, number="0", place="2")
    [failures] = [one for one in sets.all_sets(space) if one.base]
    assert [(one.question, one.expected, one.source) for one in failures.prompts] == [
        (mine.prompts[0].question, "yes", "failure")
    ], "two presses keep it once"
    assert "not there any more" in _refusal(place, "vote", fields, number="77", place="0")


def _refusal(page: EvaluatePlace, act: str, fields: JsonObject, **rest: object) -> str:
    with pytest.raises(GarageError) as error:
        press(page, act, fields, **rest)
    return Wording("en").render(error.value.message)


# ---- sets ----------------------------------------------------------------------------------------


def test_a_set_is_begun_with_a_question_opened_and_emptied(place: EvaluatePlace, space: Workspace) -> None:
    typed = {"title": "海盗 & co", "question": f" {HOSTILE} ", "expected": ""}
    answer = press(place, "add", typed)
    [made] = sets.all_sets(space)
    assert answer == {"notice": "", "chosen": {"set": made.name}, "empty": ["question", "expected"]}
    assert (made.title, made.prompts[0].question, made.prompts[0].expected) == ("海盗 & co", HOSTILE, None)
    html = drawn(place, set=made.name)
    assert "海盗 &amp; co (1 question)" in html and "&lt;img" in html and "/tests.jsonl?id=" in html
    assert "Write a question." in _refusal(place, "add", {"title": "x"})
    for base, kept in (("starter", "starter"), ("../x", "starter"), ("", "")):
        press(place, "base", {"base": base}, name=made.name)
        assert sets.open_set(space, made.name).base == kept, "finished runs of which base get these questions"
    press(place, "remove", name=made.name, at="0")
    assert not [*sets.all_sets(space)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"prompt": "a"}\n{"prompt": oh}\n', "mine.jsonl, line 2"),
        ("", "has no question"),
        ("\n".join(f'{{"prompt": "{at}"}}' for at in range(100_000)), "100,000 questions are too many"),
        ('{"prompt": ' * 5000, "mine.jsonl, line 1"),
        ('{"messages": [{"role": "root", "content": "x"}]}', "mine.jsonl"),
        (None, "mine.jsonl"),
    ],
    ids=["broken", "empty", "100,000 rows", "nested", "role", "not UTF-8"],
)
def test_a_file_that_is_no_set_is_refused_in_one_sentence(place: EvaluatePlace, text: str | None, why: str) -> None:
    before = drawn(place)
    sentence = _refusal(place, "import", {}, name="C:\\x\\mine.jsonl", size=10, text=text)
    assert why in sentence and "\n" not in sentence
    assert drawn(place) == before
    assert "x has 16,777,217 bytes" in _refusal(place, "import", {}, name="x", size=MAX_BYTES + 1)


def test_a_set_that_is_brought_in_replaces_none_and_is_the_one_that_was_saved(
    place: EvaluatePlace, space: Workspace
) -> None:
    mine = own_set(space)
    lines = "".join(sets.lines(mine))
    press(place, "import", name="anything.jsonl", size=len(lines), text=lines)
    assert [one.title for one in sets.all_sets(space)] == ["Mine"], "the same again is no second one"
    other = '{"prompt": "Who?", "expected": "Me"}\n'
    press(place, "import", name="Mine.jsonl", size=len(other), text=other)
    press(place, "import", name="CON.jsonl", size=len(other), text=other)
    assert sorted((one.title, len(one.prompts)) for one in sets.all_sets(space)) == [
        ("CON", 1), ("Mine", 3), ("Mine (2)", 1)
    ]  # fmt: skip
    press(place, "delete", name=mine.name)
    assert sorted(one.title for one in sets.all_sets(space)) == ["CON", "Mine (2)"]


# ---- start and stop ------------------------------------------------------------------------------


def test_start_takes_what_is_chosen_and_a_refusal_is_a_sentence(
    place: EvaluatePlace, space: Workspace, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, started = own_set(space), list[Choice]()
    monkeypatch.setattr(place.services.evaluating, "start", started.append)
    press(place, "start", {"questions": f"set:{mine.name}", "who": ["tuned", "base", "x"], "judge": "exact"})
    assert started == [Choice(f"run:{run.id}", f"set:{mine.name}", ("tuned", "base"), judge="exact")]
    shown = EvaluationProgress(started[0], error=msg("chat.unloaded"))
    monkeypatch.setattr(place.services.evaluating, "progress", lambda: shown)
    assert str(msg("chat.unloaded")) in drawn(place, questions=f"set:{mine.name}").replace("&#x27;", "'")
    shown = EvaluationProgress(started[0], at_work=True, done=3, total=6)
    html = drawn(place, questions=f"set:{mine.name}")
    assert 'data-act="stop"' in html and "3 of 6 answers" in html
    assert 'data-act="start"' in drawn(place), "of other questions"


def test_contestants_are_those_that_are_chosen(place: EvaluatePlace, space: Workspace, run: RunFolder) -> None:
    mine = own_set(space)
    choice = Choice(f"run:{run.id}", f"set:{mine.name}", ("base+prompt", "tuned"), "Be brief.", "exact")
    evaluation = place.services.evaluating.prepare(choice)
    assert [(one.label, one.system) for one in evaluation.lineup.contestants] == [
        ("base+prompt", "Be brief."), ("tuned", "")
    ]  # fmt: skip
    assert kept_judge(evaluation) == ExactJudge()
    assert sets.open_set(space, mine.name).base == run.recipe().model.id, "its later runs get the set, too"
    alone = place.services.evaluating.prepare(Choice("base:starter", f"set:{mine.name}", ("base",)))
    assert [(one.label, one.other) for one in alone.lineup.contestants] == [("base", "base:starter")]


def test_a_checkpoint_and_a_strength_are_compared(place: EvaluatePlace, space: Workspace, run: RunFolder) -> None:
    mine, id = own_set(space), f"run:{run.id}"
    checkpoint = "checkpoint-000020"
    saved = shutil.copytree(run.adapter, run.path / "checkpoints" / checkpoint / "adapter")
    saved.with_name("COMPLETE").touch()
    html = drawn(place, model=id, questions=f"set:{mine.name}")
    for how in (checkpoint, "0.5"):
        assert f'<option value="{id}@{how}"' in html
    lineups = [
        place.services.evaluating.prepare(Choice(id, f"set:{mine.name}", ("tuned",), also=f"{id}@{how}")).lineup
        for how in (checkpoint, "0.5")
    ]
    assert [(one.label, one.checkpoint, one.strength) for _, one in (each.contestants for each in lineups)] == [
        (f"Shop labels@{checkpoint}", checkpoint, 1.0),
        ("Shop labels@0.5", None, 0.5),
    ]


def test_another_run_is_compared_and_the_evaluation_stays_that_of_the_first(
    place: EvaluatePlace, space: Workspace, run: RunFolder
) -> None:
    other, mine = trained(space, "Other"), own_set(space)
    place.services.snapshots.now(fresh=True)
    fields = {"model": f"run:{run.id}", "questions": f"set:{mine.name}", "also": f"run:{other.id}"}
    assert f'value="run:{other.id}" selected' in drawn(place, **fields)
    assert "selected" in drawn(place, **fields | {"also": "run:../x@checkpoint-1"})
    choice = Choice(f"run:{run.id}", f"set:{mine.name}", ("base", "tuned"), also=f"run:{other.id}")
    evaluation = place.services.evaluating.prepare(choice)
    assert [one.label for one in evaluation.lineup.contestants] == ["base", "tuned", "Other"]
    for number, prompt in enumerate(mine.prompts):
        for at in range(3):
            text = str(prompt.expected) if at else "maybe"
            evaluation.add(ComparisonAnswer(prompt=number, contestant=at, text=text, tokens=1, seconds=0.1,
                                            finish_reason="stop"))  # fmt: skip
    html = drawn(place, **fields)
    assert ">Other</th>" in html and ">Fine-tuned model</th>" in html
    assert "ev-conclusion" not in drawn(place, **fields | {"model": f"run:{other.id}", "also": ""})
    assert newest_evaluation_of(space, other.id) is None and newest_evaluation_of(space, run.id) is not None


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_speaks_every_language(space: Workspace, run: RunFolder, language: str) -> None:
    mine = own_set(space)
    evaluated(space, run, mine)
    place = EvaluatePlace(Services.open(space), Wording(language))
    for fields in ({"questions": f"set:{mine.name}", "row": "0", "set": mine.name}, {"model": "base:starter"}):
        html = drawn(place, **fields)
        assert "evaluate_page." not in html and "evaluation_view." not in html and "evaluation." not in html
