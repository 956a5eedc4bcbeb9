"""Ollama: a TEMPLATE in Go's language (`go_template`) derived from the training template (`deriving`), the Modelfile
beside a GGUF file.

Imports: what core.export imports. What Ollama hands a template, and what it looks for in one: ollama/ollama, template/
and thinking/.
"""
