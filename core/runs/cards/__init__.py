"""Cards of a run: README.md of its adapter or exports (`model_card`), the licence of its base (`licence`), and
`recipe_card`, one file of a run for another PC.

Imports: as core/runs. To add what people can check: a part in `model_card`.
"""
