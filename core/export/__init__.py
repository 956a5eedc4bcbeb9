"""Exports a run as an adapter, a merged model or a GGUF file, and verifies that the result answers as it should.

Imports: engine (in the files that the worker runs), runs, data, models, system, workspace and the ground.
Add a kind of export: `records.ExportKind`, a line in `export_worker.BUILDERS`. Add a GGUF family: `llamacpp`. The
verification of all kinds: `verification`. Publishing on the Hub: `hub`.
"""
