"""Cards of a run: README.md of its adapter or exports (`model_card`), the licence of its base (`licence`), and
`results`, a run for others; `picture`, the same as a drawing.

Imports: as core/runs. To add what people can check: a part in `model_card`.
"""
