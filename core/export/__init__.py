"""Take a run home, as an adapter, a merged model or a GGUF file, and prove that what was written answers as it should.

Imports: engine (in the files that the worker runs), runs, data, models, system, workspace and the ground.
Add a kind of export: `records.ExportKind`, a branch in `worker`, a comparison in `proof`. Add a GGUF family: `gguf`. Published: `hub`.
"""
