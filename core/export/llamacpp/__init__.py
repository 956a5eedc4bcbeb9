"""GGUF files made and verified with llama.cpp itself: its tools are downloaded into the workspace (`tools`), its
converter, quantizer and runtime run in processes of their own.

Imports: what core.export imports. `runtime` and `convert` run only inside a process that `child` starts, because a
damaged file can crash it.
"""
