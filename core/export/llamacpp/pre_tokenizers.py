"""llama.cpp's name for how a byte-level tokenizer splits text, derived from the structure of tokenizer.json.

For a tokenizer whose hash its converter does not know, such as one with a changed vocabulary. Nothing is guessed: an
unknown structure has no name, and a name is verified with the ids of difficult texts (core.export.llamacpp.judgement).
"""

from __future__ import annotations

from pathlib import Path

from core import files
from core.files import JsonObject

_ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_THREE_DIGITS = _ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_BY_CASE = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
# llama.cpp's name -> Hugging Face's split pattern (llama.cpp src/llama-vocab.cpp), and whether a word that is in the
# vocabulary is used without merges.
NAMES = {
    "qwen2": (_ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES, False),
    "qwen35": (_ENDS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES, False),
    "dbrx": (_THREE_DIGITS, False),
    "llama-bpe": (_THREE_DIGITS, True),
    "tekken": ("|".join(_BY_CASE) + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES, True),
    "gpt-4o": (
        "|".join(each + _ENDS + "?" for each in _BY_CASE) + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES,
        False,
    ),
}


_BYTES = {"type": "ByteLevel", "use_regex": True}
# The same for tokenizers that use the GPT-2 pattern built into Hugging Face's ByteLevel.
STEPS = {"gpt-2": [_BYTES], "smollm": [{"type": "Digits", "individual_digits": True}, _BYTES]}


def name_of(folder: Path) -> str | None:
    """Return llama.cpp's name for the way in which the tokenizer of the base in folder splits text before it is
    tokenized, from the structure of tokenizer.json; None if that is no known one. The app's starter model has
    SmolLM's."""
    tokenizer = files.read_json(folder / "tokenizer.json")
    if not isinstance(tokenizer, dict) or not isinstance(tokenizer.get("model"), dict):
        return None
    name = by_steps(tokenizer) or by_structure(tokenizer)
    # The starter comes from a GGUF of type "smollm" (digits one by one); transformers' reader of GGUF drops that
    # step. The vocabulary has no token of two digits, so only spaces before a digit can differ.
    return "smollm" if name == "gpt-2" and (folder / "starter.json").exists() else name


def by_steps(tokenizer: JsonObject) -> str | None:
    """Return llama.cpp's name ("gpt-2" or "smollm") for a tokenizer.json whose list of splitting steps equals one in
    STEPS; None for other steps, or if it normalizes text, adds a leading space, or takes whole words without
    merging."""
    pre_tokenizer = tokenizer.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    if (
        tokenizer.get("normalizer")
        or tokenizer["model"].get("ignore_merges")
        or any(step.get("add_prefix_space") for step in steps)
    ):
        return None
    for name, expected in STEPS.items():
        # A step may have further fields.
        if len(steps) == len(expected) and all(
            e.items() <= step.items() for step, e in zip(steps, expected, strict=True)
        ):
            return name
    return None


def by_structure(tokenizer: JsonObject) -> str | None:
    """Return llama.cpp's name for a tokenizer.json that splits text by one of the regular expressions in NAMES,
    followed by bytes; None for any other.

    Qwen's tokenizers normalize to NFC and llama.cpp does not: nearly all text is in NFC already.
    """
    steps: list[JsonObject] = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if len(steps) != 2 or (tokenizer.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        return None
    split, byte_level = steps
    if (
        split.get("behavior") != "Isolated"
        or split.get("invert")
        or byte_level.get("use_regex")
        or byte_level.get("add_prefix_space")
    ):
        return None
    key = (split.get("pattern") or {}).get("Regex"), bool(tokenizer["model"].get("ignore_merges"))
    return next((name for name, known in NAMES.items() if known == key), None)
