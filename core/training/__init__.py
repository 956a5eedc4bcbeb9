"""One run in its own process: load, train, evaluate, save. Imports torch; no other room imports this one.

Imports: engine, chat (sample answers), runs, advice, data, memory, models, system, workspace and the ground. Read
`worker`, then `trainer`. To add a setting of training: docs/map.md.
"""
