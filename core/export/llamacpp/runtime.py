"""A GGUF file loaded by llama.cpp's own library, and all its logits. Only in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from core.export.llamacpp.library import Library

AT_ONCE = 256  # tokens computed at once: all logits of a long row take gigabytes


class LoadedGguf:
    """A loaded file, for rows of up to length tokens. Use as a context manager."""

    def __init__(self, library: Library, file: str, length: int, threads: int):
        """Load the file on the CPU and create a context for length tokens. Raises LlamaError."""
        self._library, self._ffi, self._lib = library, library.ffi, library.lib
        library.log.clear()
        params = self._lib.llama_model_default_params()
        # Memory-mapped, not repacked for this processor, which would hold a second copy of the file in memory.
        params.n_gpu_layers, params.use_extra_bufts = 0, False
        self._model = self._lib.llama_model_load_from_file(file.encode(), params)
        if self._model == self._ffi.NULL:
            raise library.error(f"cannot load {file}")
        self._vocabulary = self._lib.llama_model_get_vocab(self._model)
        self.words = int(self._lib.llama_vocab_n_tokens(self._vocabulary))
        self._context = self._lib.llama_init_from_model(self._model, self._settings(length, threads))
        if self._context == self._ffi.NULL:
            raise library.error(f"no context for {file}")

    def _settings(self, length: int, threads: int) -> Any:
        """Settings for exact results: cache and attention compute in float32 (flash attention alone moves logits by
        0.3)."""
        settings = self._lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = length
        settings.n_ubatch = min(length, AT_ONCE)
        settings.n_threads = settings.n_threads_batch = threads
        settings.no_perf, settings.swa_full = True, True
        settings.op_offload = settings.offload_kqv = False  # on the CPU alone
        settings.type_k = settings.type_v = self._lib.GGML_TYPE_F32
        settings.flash_attn_type = self._lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Free the context and the model."""
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def meta(self, key: str) -> str | None:
        """Return a value of the file's metadata as text; None if it has no such key."""
        buffer = self._ffi.new("char[4096]")
        length = self._lib.llama_model_meta_val_str(self._model, key.encode(), buffer, 4096)
        return self._ffi.string(buffer).decode("utf-8", "replace") if length >= 0 else None

    def ends(self, token: int) -> bool:
        """Return whether token ends an answer."""
        return bool(self._lib.llama_vocab_is_eog(self._vocabulary, token))

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text that a chat template has rendered: without a BOS of its own, special tokens
        recognized. Raises LlamaError."""
        raw = text.encode()
        room = len(raw) + 16  # no token is shorter than a byte
        tokens = self._ffi.new("llama_token[]", room)
        # Without a begin token of its own, and with special tokens: the template has rendered both.
        count = self._lib.llama_tokenize(self._vocabulary, raw, len(raw), tokens, room, False, True)
        if count < 0:
            raise self._library.error("cannot read a text")
        return list(tokens[0:count])

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits of all positions of ids, (T, words) float32, from an empty cache."""
        # Otherwise the row would continue the one before.
        memory = self._lib.llama_get_memory(self._context)
        if memory != self._ffi.NULL:
            self._lib.llama_memory_clear(memory, True)
        return self._decode(ids, 0)

    def greedy(self, ids: Sequence[int], most: int) -> list[int]:
        """Return the greedy answer to ids: up to `most` tokens, the end token included."""
        tokens: list[int] = []
        row = self.logits(ids)[-1]
        while len(tokens) < most:
            token = int(row.argmax())
            tokens.append(token)
            if self.ends(token):
                break
            row = self._decode([token], len(ids) + len(tokens) - 1)[-1]
        return tokens

    def _decode(self, ids: Sequence[int], first: int) -> np.ndarray:
        """Decode ids after what the cache holds and return their logits, (T, words); first: position of the first one.
        Raises LlamaError."""
        with self._batch(ids, first) as batch:
            if self._lib.llama_decode(self._context, batch):
                raise self._library.error("cannot compute")
        logits = np.empty((len(ids), self.words), np.float32)
        for i in range(len(ids)):
            row = self._lib.llama_get_logits_ith(self._context, i)
            logits[i] = np.frombuffer(self._ffi.buffer(row, self.words * 4), np.float32)
        return logits

    @contextmanager
    def _batch(self, ids: Sequence[int], first: int) -> Iterator[Any]:
        """Context manager: a llama_batch of these tokens at positions from first on, with logits of each; freed
        afterwards."""
        batch = self._lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                # One sequence, with the number 0: rows are computed one after the other.
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, first + i, 1, 0
                batch.logits[i] = 1
            yield batch
        finally:
            self._lib.llama_batch_free(batch)
