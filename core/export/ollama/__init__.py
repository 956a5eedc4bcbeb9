"""Ollama: the Modelfile beside a GGUF file, whose chat template Ollama renders itself, and its program.

Imports: what core.export imports. What Ollama makes of a file and of a Modelfile: ollama/ollama, server/.
"""
