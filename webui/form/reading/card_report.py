"""The report on an opened recipe card: what this PC lacks for it, and its results where it was trained."""

from __future__ import annotations

from core.errors import GarageError
from core.recipe import Recipe
from core.runs.cards.recipe_card import RecipeCard
from webui.kit import format
from webui.kit.wording import Wording
from webui.state.services import Services


class CardReport:
    def __init__(self, services: Services, card: RecipeCard, wording: Wording):
        self.services, self.card, self.w = services, card, wording

    def with_same_rows(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the dataset of this PC whose SHA-256 is the card's, if there is one, else as it is."""
        sha256, sets = self.card.data.sha256, self.services.datasets
        if not sha256:
            return recipe
        same = next((info.id for info in sets.list() if info.sha256 == sha256), None)
        return (
            recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": same, "version": None})})
            if same
            else recipe
        )

    def missing_parts(self, recipe: Recipe, has_data: bool) -> list[str]:
        """Return a sentence for each part that is missing here or differs: base, dataset, or the run that this one
        continues."""
        w, data, sentences = self.w, self.card.data, []
        if recipe.model.id not in self.services.models.local_ids():
            key = "recipe_card.no_folder" if recipe.model.id.startswith("library:") else "recipe_card.no_base"
            sentences.append(w.t(key, model=format.model_name(recipe.model.id, w)))
        if not has_data:
            sentences.append(
                w.t("recipe_card.no_data", name=data.name or recipe.data.source, rows=format.rows(w, data.rows or 0))
            )
        elif data.sha256 and self._sha256(recipe) not in ("", data.sha256):
            sentences.append(w.t("recipe_card.other_data", name=data.name))
        if parent := self.card.outcome.continues:
            sentences.append(w.t("recipe_card.continues", name=parent))
        return sentences

    def _sha256(self, recipe: Recipe) -> str:
        try:
            return self.services.datasets.get(recipe.data.source).sha256 or ""
        except GarageError:
            return ""

    def outcome(self) -> str:
        """Return the run's results as a sentence: "It was trained on NVIDIA GeForce RTX 4060: 7.1 GiB, 12 min, eval
        loss 0.812" and the like."""
        w, then = self.w, self.card.outcome
        parts = [
            w.t("fits_view.gib", gib=format.gib(w, then.memory_gib)) if then.memory_gib else "",
            format.duration(w, then.seconds),
            w.t("recipe_card.eval_loss", loss=format.loss(w, then.eval_loss)) if then.eval_loss is not None else "",
        ]
        device = w.t("train_page.device_cpu") if then.device == "cpu" else then.device or "?"
        return w.t("recipe_card.outcome", device=device, numbers=", ".join(filter(None, parts)) or "–")
