"""The shape of a language model: reading config.json (`config`), names of linear layers (`matrices`), and the counts
that follow (`shape`). A family with other layer names goes into `matrices`, one with other keys in config.json into
`config`.

Imports: the ground.
"""
