"""Tokenizers for tiny models as llama.cpp's converter requires them of a family: the starter's with the family's token
names, or one of sentencepiece, made on the spot by the sentencepiece of the converter's tools."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from core.export.llamacpp.judgement import AWKWARD
from core.export.llamacpp.tools import Tools

NAMED = {
    "glm": {
        "<repo_name>": "<|user|>",
        "<reponame>": "<|system|>",
        "<file_sep>": "<|observation|>",
        "<filename>": "[gMASK]",
    },
    "mistral3": {"<repo_name>": "[IMG]", "<reponame>": "[IMG_BREAK]", "<file_sep>": "[IMG_END]"},
}
SPACE = "\u2581"
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>")
TRAIN = """
import io, json, sys
import sentencepiece
made = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(json.load(open("texts.json"))), model_writer=made, model_type="bpe", vocab_size=700,
    byte_fallback=True,
    normalization_rule_name="identity", add_dummy_prefix=PREFIX, remove_extra_whitespaces=False, split_digits=True,
    character_coverage=0.98, pad_id=0, eos_id=1, bos_id=2, unk_id=3, control_symbols=["<|im_start|>", "<|im_end|>"],
    pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>", hard_vocab_limit=False, minloglevel=2)
open("tokenizer.model", "wb").write(made.getvalue())
there = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
json.dump([there.IdToPiece(i) for i in range(there.vocab_size())], open("pieces.json", "w"))
"""


def name_tokens(folder: Path, family: str) -> None:
    """Rename unused tokens of the starter to those that the converter looks for."""
    file = folder / "tokenizer.json"
    words = file.read_text("utf-8")
    for ours, theirs in NAMED[family].items():
        words = words.replace(json.dumps(ours), json.dumps(theirs))
    file.write_text(words, "utf-8")


def by_sentencepiece(folder: Path, tools: Tools, prefix: bool, vocabulary: int) -> None:
    """Write tokenizer.model and tokenizer.json as Gemma's (or, with prefix, Llama 2's), filled up to vocabulary with
    tokens that no text has."""
    texts = [
        *[line for text in AWKWARD for line in text.splitlines() if line],
        *["The quick brown fox jumps over the lazy dog, and then it is said again. "] * 300,
    ]
    (folder / "texts.json").write_text(json.dumps(texts))
    code = f"import sys; sys.path.insert(0, {str(tools.runtime)!r})\n" + TRAIN.replace("PREFIX", str(prefix))
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    pieces: list[str] = json.loads((folder / "pieces.json").read_text())
    for made in ("texts.json", "pieces.json"):
        (folder / made).unlink()
    ids = {piece: i for i, piece in enumerate(pieces)}
    ids |= {f"<unused{i}>": i for i in range(len(pieces), vocabulary)}
    pairs = [(ids[piece], at, piece) for piece in pieces[len(SPECIAL) + 256 :] for at in range(1, len(piece))]
    merges = [[piece[:at], piece[at:]] for _, at, piece in sorted(pairs) if piece[:at] in ids and piece[at:] in ids]
    change = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    change += [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    back = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    added = [
        {
            "id": i,
            "content": word,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, word in enumerate(SPECIAL)
    ]
    tokenizer = {
        "version": "1.0", "added_tokens": added, "normalizer": {"type": "Sequence", "normalizers": change},
        "pre_tokenizer": None,
        "post_processor": None, "decoder": {"type": "Sequence", "decoders": back},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": ids,
            "merges": merges},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    said = {f"{role}_token": f"<{role}>" for role in ("bos", "eos", "unk", "pad")} | {
        "extra_special_tokens": list(SPECIAL[-2:])
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(said | {"tokenizer_class": "PreTrainedTokenizerFast"}), "utf-8"
    )
