"""Chat and comparison: base and fine-tuned model side by side (the worker process, its client, the command line), the
same prompts for several models with a blind vote (`comparison`, `contest`), the same prompts repeatedly during training
(`film`), and some questions before a training by rewards (`trying`).

Imports: engine (`chat_worker` inside its functions, `duel` and `film` at their top), runs, data, models, system,
workspace and the ground.
Add a way of sampling: a field of `answer.Sampling`, used by `duel`.
"""
