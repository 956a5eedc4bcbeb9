"""A base model and its tuned one, answering side by side: the process that holds them, its handle, and the same headless.

Imports: engine (`worker` inside its functions, `duel` at its top), runs, data, models, system, workspace and the ground.
Add a way of sampling: a field of `answer.Sampling`, used by `duel`.
"""
