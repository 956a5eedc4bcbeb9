"""Answers from a model: `decoder` reads prompts and computes the next token's logits of rows that are decoded together,
`sampler` draws groups of answers. Chat, sample answers and training by rewards decode with them. Torch.

Imports: as core.engine.
"""
