"""The shape of a language model: how a config.json is read (`config`), what its linear layers are called (`matrices`),
and what follows by counting (`shape`). A family with other names of layers goes into `matrices`, one with other words
in config.json into `config`.
Imports: the ground."""
