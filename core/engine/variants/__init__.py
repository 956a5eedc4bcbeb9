"""What a step can do without: how an adapter begins (PiSSA), noise on what is read (NEFTune), what lies in RAM meanwhile (offload: activations;
streaming: layers), a base that several ranks hold together (fsdp), another library's functions (Liger), pairs of answers that are compared (preference), attention in 16-bit types on a
processor (blockwise), one attention for all examples (varlen), norm, rotary and gate as one function each (elementwise),
the loss of a chunk (chunk), 4-bit weights that stay unpacked for a backward (kept_weights). Torch.

Imports: as core.engine. A first reading of a step needs none of them.
"""
