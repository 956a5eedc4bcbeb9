"""Evaluation: was fine-tuning needed, and did it work? Test sets, the contestants that answer them (base model, base
with a system prompt, base with examples, fine-tuned), and their answers, judged. No torch.

Imports: the rest of chat, runs, data, models, workspace and the ground.
"""
