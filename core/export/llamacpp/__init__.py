"""GGUF by llama.cpp itself: its tools fetched into the workspace (`tools`), its converter, quantiser and runtime in
processes of their own.

Imports: what core.export imports. `runtime` and `convert` are only run inside a process that `child` starts: a damaged
file can end it.
"""
