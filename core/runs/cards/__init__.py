"""A run for others: README.md of its adapter or exports (`model_card`), with the licence of its base (`licence`), and a
drawing (`picture`) of its `results`. And what was measured of it, a file each: `better`, `tested`, `evaluated`,
`benchmarked`.

Imports: as core/runs. To add what people can check: a part in `model_card`.
"""
