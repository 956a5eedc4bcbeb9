"""Names of pre-tokenizers for llama.cpp, told from the structure of tokenizer.json and proven by ids in real llama.cpp:
files of a vocabulary alone, each of a small tokenizer that splits as a family's does. One process of llama.cpp for
all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from core.errors import ExportError
from core.export.llamacpp import pre_tokenizers as named
from core.export.llamacpp import tools as gguf_tools
from core.export.llamacpp.judgement import AWKWARD
from core.workspace.folder import Workspace
from tests.kit.durations import cache

SPLIT_OTHERWISE = ("tekken", "gpt-4o")  # by llama.cpp b11739: letters with marks, capitals after an accented one
TEXTS = [*AWKWARD, "HTTPServer's McDonald camelCase ÉCOLE x1y22z333 4444 a/b//c\n/d naïvety", "هذا ١٢٣ ทดสอบ क्या है"]
ASK = """
import json, sys
from pathlib import Path
from core.export.llamacpp.library import Library
library = Library(Path(sys.argv[1]))
texts, found = json.loads(sys.argv[2]), {}
for file in sys.argv[3:]:
    params = library.lib.llama_model_default_params()
    params.vocab_only = True
    model = library.lib.llama_model_load_from_file(file.encode(), params)
    assert model != library.ffi.NULL, "".join(library.said)
    vocabulary, found[Path(file).stem] = library.lib.llama_model_get_vocab(model), []
    for text in texts:
        ids = library.ffi.new("llama_token[]", 1000)
        count = library.lib.llama_tokenize(vocabulary, text.encode(), len(text.encode()), ids, 1000, False, True)
        found[Path(file).stem].append(list(ids[0:count]))
print("FOUND" + json.dumps(found))
"""


def tokenizer_of(pattern: str, whole_words: bool) -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=whole_words))
    made.normalizer, made.decoder = normalizers.NFC(), decoders.ByteLevel()
    steps = [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([*TEXTS * 2], trainer)
    made.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return made


def write(tokenizer: Tokenizer, pre: str, file: Path) -> Path:
    words = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token == "<|im_end|>" else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(pair) for pair in words["merges"]])
    for number in (
        writer.add_block_count,
        writer.add_context_length,
        writer.add_embedding_length,
        writer.add_head_count,
    ):
        number(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


def test_a_pre_tokenizer_that_is_named_by_its_structure_gives_the_same_ids_in_llama_cpp(tmp_path: Path) -> None:
    try:
        tools = gguf_tools.obtain(Workspace.open(cache()))
    except ExportError as error:
        pytest.skip(str(error))
    made = {name: tokenizer_of(*named.NAMES[name]) for name in named.NAMES}
    for name, tokenizer in made.items():
        (tmp_path / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
        assert named.name_of(tmp_path) == name
    files = [write(tokenizer, name, tmp_path / f"{name}.gguf") for name, tokenizer in made.items()]
    files.append(write(made["qwen2"], "gpt-2", tmp_path / "wrong.gguf"))
    process = subprocess.run(
        [sys.executable, "-c", ASK, str(tools.runtime), json.dumps(TEXTS), *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
    )
    ids_by_name = json.loads(process.stdout.partition("FOUND")[2])
    for name, tokenizer in made.items():
        odd = [text for text, ids in zip(TEXTS, ids_by_name[name], strict=True) if ids != tokenizer.encode(text).ids]
        known = {
            text for text in TEXTS if name in SPLIT_OTHERWISE and any(word in text for word in ("हि", "ÉCOLE", "क्या"))
        }
        assert set(odd) == known, name
    assert ids_by_name["wrong"] != [made["qwen2"].encode(text).ids for text in TEXTS], "a wrong name shows"


def test_a_tokenizer_that_byte_level_splits_has_its_name_and_the_starter_counts_digits_one_by_one(
    tmp_path: Path,
) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    known = json.loads(tokenizer_of(*named.NAMES["qwen2"]).to_str()) | {"normalizer": None}

    def name_of(**change: object) -> str | None:
        (tmp_path / "tokenizer.json").write_text(json.dumps(known | change), "utf-8")
        return named.name_of(tmp_path)

    assert name_of(pre_tokenizer=byte_level) == "gpt-2"
    assert name_of(pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, byte_level]}) == "smollm"
    for unknown in (byte_level | {"add_prefix_space": True}, {"type": "Sequence", "pretokenizers": [digits]}, {}):
        assert name_of(pre_tokenizer=unknown) is None
    assert name_of(pre_tokenizer=byte_level, normalizer={"type": "NFC"}) is None
    (tmp_path / "starter.json").touch()
    assert name_of(pre_tokenizer=byte_level) == "smollm"


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": None},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel", "use_regex": False}],
            }
        },
        {"normalizer": {"type": "Lowercase"}},
        {"model": {"ignore_merges": True}},
    ],
)
def test_a_structure_that_is_none_of_those_has_no_name(change: dict) -> None:
    known = json.loads(tokenizer_of(*named.NAMES["qwen2"]).to_str())
    assert named.by_structure(known) == "qwen2"
    assert named.by_structure(known | change) is None
