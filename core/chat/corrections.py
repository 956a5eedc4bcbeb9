"""Corrected answers as rows of a dataset: the better answer to train on, the worse one beside it for preference
training. No torch.

There is one dataset for each model that answers (a run, a base, an adapter), made with its first row and an ordinary
dataset afterwards: its row serves `sft`, and as a pair `dpo`, `orpo` and `simpo`. A row is saved before the page
reports it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

from filelock import FileLock, Timeout

from core import files
from core.chat.comparison import Contestant, PromptComparison
from core.data.conversation import Turn
from core.data.formats import Example
from core.data.sets import working
from core.data.sets.info import DatasetInfo, Origin
from core.data.store import LOCK_S, DatasetStore
from core.data.validation_split import FEW_PAIRS
from core.errors import ChatError, DataError
from core.files import JsonObject
from core.recipe import OF_ONE_OBJECTIVE, OF_PREFERENCES, Data, Recipe, Train
from core.runs import further, judging
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from core.workspace.names import short_id


def row(turns: Sequence[Turn], better: str, worse: str = "") -> JsonObject:
    """Return a dataset row: the conversation up to its question, the better answer and, if any, the rejected one.
    Raises ChatError without a question or better answer, or for two equal answers."""
    if not turns or turns[-1]["role"] != "user":
        raise ChatError("chat.no_question")
    if not better.strip():
        raise ChatError("corrections.empty")
    if better.strip() == worse.strip():
        raise ChatError("corrections.same")
    prompt = [dict(turn) for turn in turns]
    example = {"messages": [*prompt, {"role": "assistant", "content": better.strip()}]}
    return example | ({"rejected": [*prompt, {"role": "assistant", "content": worse.strip()}]} if worse.strip() else {})


def keep(
    workspace: Workspace, store: DatasetStore, answered: str, name: str, rows: Sequence[JsonObject]
) -> tuple[DatasetInfo, int]:
    """Add rows to the dataset that holds the corrections of a model; it is created, with this name, if there is none.
    answered: the model, run:<id> or base:<model>.

    Returns the dataset and the number of new rows; rows that it has already are not repeated. Raises ChatError if there
    is neither a dataset nor a row, DataError with nothing changed.
    """
    examples = list({example.as_json(): example for example in map(working.example_of, rows)}.values())
    with _locked(store):
        info = find_dataset(store, answered)
        existing = {example.as_json() for _, example in store.rows(info.id)} if info else set()
        new = [example for example in examples if example.as_json() not in existing]
        if info is None and new:
            info = _create_dataset(workspace, store, answered, name, new)
        elif info is not None and new:
            working.edit_rows(store, info.id, add=[example.as_dict() for example in new])
            info = store.get(info.id)
    if info is None:
        raise ChatError("corrections.no_votes")
    return info, len(new)


def _create_dataset(
    workspace: Workspace, store: DatasetStore, answered: str, name: str, rows: Sequence[Example]
) -> DatasetInfo:
    """Import rows as a new dataset of corrections with this name, through a temporary file that is deleted, and return
    it. answered: the model that is corrected, run:<id> or base:<model>, which the dataset records. Raises DataError if
    it cannot be stored."""
    folder = workspace.cache / "sets"
    file = folder / f"corrections-{short_id()}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        working.write(((0, example) for example in rows), file)
        return store.import_file(file, name, origin=Origin(corrects=answered))
    except OSError as error:
        raise DataError("data.cannot_store", name=name, reason=error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def rows_from_draws(run: RunFolder) -> list[JsonObject]:
    """Return the best and worst answers that a run by rewards has drawn, each pair as a row. Raises ChatError if there
    are none."""
    rows = list[JsonObject]()
    for line in files.read_lines(run.path / judging.PAIRS, 0).records:
        with contextlib.suppress(ChatError, KeyError, TypeError, AttributeError):  # equal texts, or a damaged line
            rows.append(row(line["messages"], line["chosen"], line["rejected"]))
    if not rows:
        raise ChatError("corrections.no_draws", name=run.name)
    return rows


@contextlib.contextmanager
def _locked(store: DatasetStore) -> Iterator[None]:
    """Context manager: hold the store's lock, so that two pages which correct one run for the first time make one
    dataset. Raises DataError if it cannot be had."""
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        with FileLock(store.root / ".corrections.lock").acquire(timeout=LOCK_S):
            yield
    except Timeout:
        raise DataError("sets.being_changed", name="corrections") from None
    except OSError as error:
        raise DataError("data.cannot_store", name="corrections", reason=error.strerror or str(error)) from error


def find_dataset(store: DatasetStore, answered: str) -> DatasetInfo | None:
    """Return the first dataset that is recorded as the corrections of a model, or None. answered: the model, run:<id>
    or base:<model>."""
    return next((info for info in store.list() if info.corrects == answered), None)


def recipe_for(parent: RunFolder, info: DatasetInfo) -> Recipe:
    """Return settings that continue a run with its corrections: preference training (DPO) from FEW_PAIRS rows on;
    before that training on the corrected answers alone (SFT), for which fewer rows do, with the goal of remembering
    them.

    The run's learning rate and number of steps are left out: they are planned for the new rows. Raises RunError where
    the run cannot be continued.
    """
    recipe = further.recipe_of(parent)
    kept = recipe.train.model_dump(exclude_unset=True, exclude={*OF_ONE_OBJECTIVE, *OF_PREFERENCES})
    goal, objective = (recipe.goal, "dpo") if (info.good_rows or 0) >= FEW_PAIRS else ("question_answer", "sft")
    train = Train(**kept | {"objective": objective})
    return recipe.model_copy(update={"data": Data(source=info.id), "train": train, "goal": goal})


def rows_from_votes(comparison: PromptComparison) -> list[JsonObject]:
    """Return a dataset row for each question on which more people preferred one answer: the better answer, and the
    worse one as rejected unless it is empty. Ties, "both bad", an empty better answer and two equal ones give no
    row."""
    won: dict[int, Counter[tuple[int, int]]] = {}
    for vote in comparison.votes():
        if vote.verdict in ("left", "right"):
            pair = (vote.left, vote.right) if vote.verdict == "left" else (vote.right, vote.left)
            won.setdefault(vote.prompt, Counter())[pair] += 1
    answers, rows = comparison.answers(), []
    for prompt, counts in won.items():
        for (better, worse), count in counts.items():
            texts = [answers[prompt, place].text if (prompt, place) in answers else "" for place in (better, worse)]
            if count > counts[worse, better] and texts[0].strip() and texts[0].strip() != texts[1].strip():
                rows.append(row(comparison.lineup.prompts[prompt].turns, *texts))
    return rows


def learner(comparison: PromptComparison) -> Contestant:
    """The contestant to train with the votes: the last tuned one, else the last."""
    trained = [one for one in comparison.lineup.contestants if one.column == "tuned"]
    return (trained or comparison.lineup.contestants)[-1]


def answered_by(comparison: PromptComparison) -> str:
    """Return the model to train with the votes (`learner`) in the form of `keep`: run:<id> or base:<model>."""
    one = learner(comparison)
    return f"run:{one.run}" if one.run else one.other
