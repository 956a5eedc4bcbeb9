"""What a model answers: a base and its tuned one side by side (the process that holds them, its handle, the same headless), the same
prompts asked of several of them and judged blind (`comparison`, `contest`), and the same questions again and again while a run trains
(`film`).

Imports: engine (`worker` inside its functions, `duel` and `film` at their top), runs, data, models, system, workspace and the ground.
Add a way of sampling: a field of `answer.Sampling`, used by `duel`.
"""
