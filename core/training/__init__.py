"""One run in its own process: load, train, evaluate, save. Imports torch; no other room imports this one.

Imports: engine, chat (sample answers), runs, advice, data, memory, models, system, workspace and the ground. Read
`worker`, then `trainer`. Add a setting of training: a field in core/recipe with its description, `help_train_<name>` in
core/locales/zh/recipe.yaml; use it in `trainer`, or in engine where it belongs to the step.
"""
