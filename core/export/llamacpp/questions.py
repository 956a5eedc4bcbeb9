"""Prompts real llama.cpp in a separate process that `child.ask` starts: tokenizes texts with one file and compares its
probabilities with those of another. Files are named relative to the current folder.

    NAME.logs   float32 (positions, words), nothing else: log probabilities of the adapter or of another file
"""

from __future__ import annotations

import math
import os
import sys
from io import FileIO
from pathlib import Path

import numpy as np

from core.export.llamacpp import child
from core.export.llamacpp.child import Refused
from core.export.llamacpp.convert import NAMED
from core.export.llamacpp.library import Library, LlamaError
from core.export.llamacpp.runtime import LoadedGguf
from core.files import JsonObject

AT_ONCE = 32  # positions


def work(request: JsonObject) -> JsonObject:
    """Answer one request (`ask`) in this process, in request's folder. Raises Refused for an error of llama.cpp."""
    os.chdir(request["folder"])
    library = Library(Path(request["runtime"]))
    try:
        return ask(library, request)
    except LlamaError as error:
        raise Refused("llama_error", reason=str(error)[:300]) from error


def ask(library: Library, request: JsonObject) -> JsonObject:
    """Compare file with kept probabilities (`compare`), and test whether each text becomes its expected ids (alike),
    whether each stop ends an answer (ends), and the greedy answers to the first prompts (greedy).

    request: file, texts, rows (ids and positions to compare), stops, words, against and keep (names of .logs), length,
    threads, counted (a file that gets a byte for each finished row and answer).
    """
    with (
        LoadedGguf(library, request["file"], request["length"], request["threads"]) as model,
        open(request["counted"], "wb", buffering=0) as counted,
    ):
        alike = [model.tokenize(text) == ids for text, ids in zip(request["texts"], request["prompts"], strict=True)]
        return compare(model, request, counted) | {
            "alike": alike,
            "named": model.meta(NAMED) is not None,
            "ends": [model.ends(token) for token in request["stops"]],
            "greedy": [generate(model, ids, request, counted) for ids in request["prompts"][: request["answers"]]],
        }


def generate(model: LoadedGguf, ids: list[int], request: JsonObject, counted: FileIO) -> list[int]:
    """Return the ids of the model's greedy answer to a prompt, and write one byte to counted, the progress."""
    tokens = model.greedy(ids, request["answer"])
    counted.write(b".")
    return tokens


def compare(model: LoadedGguf, request: JsonObject, counted: FileIO) -> JsonObject:
    """Return the Kullback-Leibler divergence from the probabilities in request["against"], and losses and first tokens
    of each row; write this file's probabilities to request["keep"], and a byte a row to counted, the progress.

    The divergence is averaged over all positions, and over the closest nine tenths of them. Raises LlamaError for a
    smaller vocabulary.
    """
    words = request["words"]
    if model.words < words:
        raise LlamaError(f"{model.words} words in the file, {words} in the model")
    rows, divergences = [], []
    with open(request["against"], "rb") as reference_file, open(request["keep"] or os.devnull, "wb") as kept_file:
        for row in request["rows"]:
            # A file may pad the vocabulary beyond the model's words.
            log_probs = log_probabilities(model.logits(row["ids"])[:, :words])
            chosen = log_probs[row["positions"]]
            reference = np.fromfile(reference_file, np.float32, chosen.size).reshape(chosen.shape).astype(np.float64)
            # Sum of p (log p - log q) over the words; p: the reference, q: this file.
            divergences.append((np.exp(reference) * (reference - chosen)).sum(-1))
            kept_file.write(chosen.data)
            rows.append(measured(log_probs, row))
            counted.write(b".")
    by_position = np.concatenate(divergences)
    return {"divergence": float(by_position.mean()), "closest_divergence": mean_of_closest(by_position), "rows": rows}


def mean_of_closest(divergences: np.ndarray, share: float = 0.9) -> float:
    """Mean of the smallest share of the divergences; NaN if any of all is not finite."""
    if not np.isfinite(divergences).all():
        return float("nan")
    return float(np.sort(divergences)[: math.ceil(share * len(divergences))].mean())


def measured(logs: np.ndarray, row: JsonObject) -> JsonObject:
    """Return a row's likeliest first token, its log probability and that of the adapter's first token, and the summed
    losses and token counts of the answer and of the row. logs: log probabilities (T, words)."""
    ids, start = np.asarray(row["ids"]), row["start"]
    losses = -logs[np.arange(len(ids) - 1), ids[1:]].astype(np.float64)  # a position predicts the next token
    best = np.argsort(logs[start - 1])[-2:]
    learned = np.asarray(row["learned"][1:], bool)
    return {
        "first": int(best[1]),
        "first_log": float(logs[start - 1, best[1]]),
        "expected_log": float(logs[start - 1, row["first"]]),
        "answer_loss": float(losses[learned].sum()),
        "answer_tokens": int(learned.sum()),
        "text_loss": float(losses.sum()),
        "text_tokens": len(losses),
    }


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Replace logits (T, words) by log probabilities in place, and return them.

    Computed in float64 (sums of 150,000 small numbers), AT_ONCE positions at a time: a whole row took three times its
    logits.
    """
    for start in range(0, len(logits), AT_ONCE):
        wide = logits[start : start + AT_ONCE].astype(np.float64)
        wide -= wide.max(-1, keepdims=True)
        wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
        logits[start : start + AT_ONCE] = wide
    return logits


if __name__ == "__main__":
    sys.exit(child.answer(work))
