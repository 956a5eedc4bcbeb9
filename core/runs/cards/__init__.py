"""Model cards: README.md of what a run made (`model_card`), and the licence of its base (`licence`);
`recipe_card`: one file of a run for another PC.

Imports: as core/runs. Add what people can check: a part in `model_card`.
"""
