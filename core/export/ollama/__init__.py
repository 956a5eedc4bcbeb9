"""Ollama: its program, and the Modelfile beside a GGUF file, whose chat template Ollama renders itself.

Imports: what core.export imports. How Ollama reads a GGUF file and a Modelfile: ollama/ollama, server/.
"""
