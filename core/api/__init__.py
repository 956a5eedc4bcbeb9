"""The Python API, which the wheel offers as `lora_garage`: what `inspect`, `plan`, `train`, `chat` and `evaluate` do,
as functions. The commands call the same ones and print what they return.

Nothing here prints. A refusal is an error of core/errors, whose text is its sentence. Imports: every room but engine,
training and commands. torch stays in the processes that these functions start.
"""
