"""The reader: every kind of file gives the same rows, and every bad one a sentence with its row."""

import codecs
import json
import re
import tracemalloc

import pytest

from core.data.reading import json_text
from core.data.reading.file_rows import DEFAULT_LIMITS, Limits, Problem, Row
from core.data.reading.reader import read_rows
from core.data.reading.sniff import probe
from core.data.reading.table_rows import MAX_CHARACTERS
from core.errors import DataError

ROWS = [
    {"question": "What is a crèpe?", "answer": 'A thin "pancake", of course'},
    {"question": "天空是什么颜色？", "answer": "蓝色\n有时是灰色"},
    {"question": "=cmd|'/C calc'!A0", "answer": "1;2\t3"},
]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path, limits=DEFAULT_LIMITS):
    items = list(read_rows(path, limits))
    return [item for item in items if isinstance(item, Row)], [item for item in items if isinstance(item, Problem)]


def refused(path, limits=DEFAULT_LIMITS):
    with pytest.raises(DataError) as caught:
        list(read_rows(path, limits))
    assert caught.value.message.render("zh") != str(caught.value)
    return str(caught.value)


def as_csv(rows, delimiter=","):
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "\r\n".join(delimiter.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines) + "\r\n"


def as_jsonl(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def as_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


ENCODINGS = [
    ("", "utf-8"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]


@pytest.mark.parametrize("bom, encoding", ENCODINGS, ids=["utf-8", "utf-8-bom", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "name, content",
    [
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.json", json.dumps({"train": ROWS}, ensure_ascii=False)),
        ("a.json", as_jsonl(ROWS)),
        ("a.jsonl", as_jsonl(ROWS)),
        ("a.jsonl", "\r\n\r\n".join(as_jsonl(ROWS).split("\n")) + "\r\n\r\n"),
        ("a.jsonl", json.dumps(ROWS)),
        ("a.txt", as_jsonl(ROWS)),
        ("a.csv", as_csv(ROWS)),
        ("a.csv", as_csv(ROWS, ";")),
        ("a.tsv", as_csv(ROWS, "\t")),
        ("a.csv", "sep=;\r\n" + as_csv(ROWS, ";")),
        ("a", json.dumps(ROWS)),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_every_kind_and_encoding_gives_the_same_rows(tmp_path, name, content, bom, encoding):
    rows, problems = read(write(tmp_path, name, (bom or b"") + content.encode(encoding)))
    assert [row.values for row in rows] == ROWS
    assert [row.number for row in rows] == [1, 2, 3]
    assert problems == []


def test_parquet_gives_the_same_rows(tmp_path):
    rows, problems = read(as_parquet(tmp_path / "a.parquet", ROWS))
    assert [row.values for row in rows] == ROWS and problems == []
    assert [row.number for row in rows] == [1, 2, 3]


def test_parquet_reads_an_empty_number_of_pandas_as_nothing(tmp_path):
    rows, problems = read(as_parquet(tmp_path / "a.parquet", [{"text": "a", "score": float("nan")}]))
    assert rows[0].values == {"text": "a", "score": None} and problems == []


@pytest.mark.parametrize("piece", [1, 3, 1000])
@pytest.mark.parametrize("form", ["{}", '{{"version": -1.25e-7, "data": {}, "more": [3.25, {{}}]}}'])
def test_a_json_array_streams_the_same_through_any_buffer(tmp_path, monkeypatch, piece, form):
    rows = [{"question": f"q{i}é\n😀" * (i % 7), "answer": "a" * (i % 50), "n": i / 7, "b": None} for i in range(200)]
    limits = Limits(row_bytes=300 + piece)
    monkeypatch.setattr(json_text, "_CHUNK", piece)
    rows_read, _ = read(write(tmp_path, "a.json", form.format(json.dumps(rows, ensure_ascii=piece == 3))), limits)
    assert [row.values for row in rows_read] == rows


def test_lines_are_physical_lines_and_rows_are_rows(tmp_path):
    rows, _ = read(write(tmp_path, "a.jsonl", '\n{"text": "a"}\n\n\n{"text": "b"}\n'))
    assert [(row.number, row.line) for row in rows] == [(1, 2), (2, 5)]
    rows, _ = read(write(tmp_path, "a.csv", 'text,label\n"a\nb",x\nc,y\n'))
    assert [(row.number, row.line) for row in rows] == [(1, 2), (2, 4)]
    rows, _ = read(write(tmp_path, "a.json", '[\n{"text": "a"},\n\n{"text": "b"}]'))
    assert [(row.number, row.line) for row in rows] == [(1, 2), (2, 4)]


def test_plain_text_is_one_example_a_paragraph_and_says_so(tmp_path):
    path = write(tmp_path, "a.txt", "[Verse 1]\r\nline two\r\n  \r\n\r\n\r\nsecond\n")
    assert [str(note) for note in probe(path).notes] == [
        (
            "Plain text: each paragraph (up to the next empty line) is one row, and for training the paragraphs of a "
            "file are joined up to max_length."
        )
    ]
    rows, problems = read(path)
    assert [(row.number, row.line, row.values["text"]) for row in rows] == [
        (1, 1, "[Verse 1]\nline two"),
        (2, 6, "second"),
    ]
    assert problems == []


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_a_line_inside_a_cell_ends_as_everywhere(tmp_path, end):
    """Seen on Windows: a cell of two lines kept its carriage return, which is another token."""
    written = 'text,label\n"a\nb",x\nc,y\n'
    rows, problems = read(write(tmp_path, "a.csv", written.replace("\n", end)))
    assert rows == read(write(tmp_path, "b.csv", written))[0] and not problems


def test_a_chinese_excel_csv_is_read_as_gb18030_with_a_note(tmp_path):
    rows = [
        {"question": "天空是什么颜色？", "answer": "蓝色。"},
        {"question": "一年有几个季节？", "answer": "四个：春夏秋冬。"},
    ]
    path = write(tmp_path, "a.csv", as_csv(rows).encode("gb18030"))
    assert [row.values for row in read(path)[0]] == rows
    assert "GB18030" in str(probe(path).notes[0])


def test_a_formula_in_a_csv_stays_the_text_it_is(tmp_path):
    rows, _ = read(write(tmp_path, "a.csv", "text,label\n=cmd|' /C calc'!A0,spam\n"))
    assert rows[0].values["text"] == "=cmd|' /C calc'!A0"


# --- files that are refused ------------------------------------------------------------------------------------------

DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.jsonl", b"", r"a.jsonl is empty \(0 bytes\)"),
        ("a.csv", b" \n\t\r\n \n", "only spaces and empty lines"),
        ("a.txt", codecs.BOM_UTF8 + b"\n\n", "only spaces and empty lines"),
        ("a.jsonl", b"MZ\x90\x00\x03\x00\x00\x00", "is a program, whatever its name says"),
        ("a.jsonl", b"\x7fELF\x02\x01\x01", "is a program"),
        ("a.jsonl", b"PK\x03\x04\x14\x00", "is damaged or was not fully downloaded"),
        ("a.xlsx", b"PK\x03\x04\x14\x00", "is damaged or was not fully downloaded"),
        ("a.json", b"\x89PNG\r\n", "is an image"),
        ("a.parquet", b"\x80\x04\x95\x10", "is a Python pickle"),
        ("a.csv", b"\x1f\x8b\x08\x00", "is damaged or incomplete"),
        ("a.txt", b"From a@b.org Mon Jan  1 10:00:00 2024\nFrom: Jo\n\nHi\n", "is a mailbox"),
        ("a.txt", codecs.BOM_UTF8 + b"[LINE] Chat history with Jo\n", "is a chat of LINE"),
        ("Inbox.mbox", b"From here on prose", "Inbox.mbox"),
        ("a.json", b"<!DOCTYPE html>\n<html>", "is a web page"),
        ("a.json", b"version https://git-lfs.github.com/spec/v1\n", "only a Git LFS pointer"),
        ("a.parquet", b"PAR1 but nothing else PAR1", "is a damaged Parquet file"),
        ("a.parquet", b"text,label\n", "named .parquet but begins with “text,label”"),
        ("a.json", b"text,label\na,b\n", "named .json but begins with “text,label”"),
        ("a.bin", b"hello there\n", "is not a known kind of data"),
        ("a.txt", bytes(range(256)) * 4 + b"\0" * 300, r"is not text \(byte 0 is 0\)"),
        ("a.csv", b"text,label\ncaf\xe9,\xc3\xa9\n", "not valid UTF-8: byte 14 does not belong"),
        ("a.csv", codecs.BOM_UTF8 + b"text,label\ncaf\xe9,x\n", "byte 17 does not belong"),
        ("a.json", b'[{"text": "caf\xe9 \xc3\xa9"}]', "not valid UTF-8: byte 14 does not belong"),
        (
            "a.json",
            b'[{"text": "a"},\n{"text": "b"\n{"text": "c"}]',
            "broken at row 2, line 3: a comma or a closing bracket",
        ),
        ("a.json", b'[{"text": "a"}\n,{"text": "b"}', "broken at row 3, line 2: found “the end of the file”"),
        ("a.json", b'[{"text": "a"},]', "broken at row 2, line 1: expected a value"),
        ("a.json", b'[{"text": "a"}]\n[]', "continues with “\\[” at line 2"),
        (
            "a.json",
            b'[{"text": ' + b"9" * 5000 + b"}]",
            "broken at row 1, line 1: a number with more than 4,300 digits",
        ),
        ("a.json", b'[{"text": "a\0b"}]', "row 1, line 1: a NUL"),
    ],
)
def test_a_file_that_is_no_data_is_refused_in_a_sentence(tmp_path, name, content, said):
    assert re.search(said, refused(write(tmp_path, name, content)))


def test_limits_are_said_with_both_numbers(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n' * 20)
    assert refused(path, Limits(rows=10)) == (
        "a.jsonl has more than 10 rows, which is the limit: split it, or use a part of it."
    )
    big = write(tmp_path, "b.jsonl", b" " * (3 << 20))
    assert "3 MiB; the limit is 2 MiB" in refused(big, Limits(bytes=2 << 20))


def test_what_is_not_there_or_no_file_is_refused(tmp_path):
    assert "no data file gone.json" in refused(tmp_path / "gone.json")
    assert "no data file" in refused("a\0b.json")
    assert "contains no supported file" in refused(tmp_path)
    assert "is a pipe or a device" in refused("/dev/zero")
    assert refused(tmp_path / ("x" * 5000 + ".json"))


def test_json_nested_5000_deep_is_a_sentence(tmp_path):
    path = write(tmp_path, "a.json", '[{"text": "a"}, {"text": ' + DEEP + "}]")
    try:
        _, problems = read(path)
        message, row = str(problems[0].text), problems[0].row
    except DataError as error:  # where the parser itself gives up
        message, row = str(error), error.message.params["row"]
    assert "more than 64 levels deep" in message and row == 2
    assert refused(write(tmp_path, "b.json", "[" * 5000))


# --- rows that are refused while reading goes on ---------------------------------------------------------------------

GOOD = '{"text": "good"}'


@pytest.mark.parametrize(
    "line, said",
    [
        ('{"text": "a"', "broken JSON at character 13: a comma or a closing bracket is missing"),
        ('{"text": "a}', "a text is missing its closing double quote"),
        ("{'text': 'a'}", "column names must be in double quotes"),
        ('{"text": "a", }', "a comma too many|no comma after the last one"),
        ('{"text": a}', "expected a value"),
        ('{"text": "a\tb"}', r"must be written as \\n or \\t"),
        (GOOD + GOOD, "a second value begins at character 17"),
        ('["a", 1]', "found a list, expected an object"),
        ('"a"', "found text, expected an object"),
        ("null", r"found nothing \(null\), expected an object"),
        ("7", "found a number, expected an object"),
        ('{"text": NaN}', "found nan, which is not valid JSON"),
        ('{"text": "a", "x": [-Infinity]}', "found -inf, which is not valid JSON"),
        ('{"text": 1e999}', "found inf"),
        (r'{"text": "half \ud83d emoji"}', "half a character .* in “text”"),
        (r'{"messages": [{"role": "user", "content": "\udc00"}]}', "half a character .* in “messages”"),
        (r'{"\ud83d": "x"}', "half a character"),
        ('{"text": "a\0b"}', "a NUL character"),
        (r'{"text": "a\u0000b"}', "a NUL character"),
        ('{"text": ' + DEEP + "}", "nested more than 64 levels deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested more than 64 levels deep"),
        ('{"text": ' + "9" * 5000 + "}", "a number with more than 4,300 digits"),
        (b'{"text": "caf\xe9 \xc3\xa9"}', "this line is not valid UTF-8"),
    ],
)
def test_a_broken_line_is_a_problem_with_its_number_and_reading_goes_on(tmp_path, line, said):
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path, "a.jsonl", b"\n".join([GOOD.encode(), b"", line, GOOD.encode(), b""]))
    rows, problems = read(path)
    assert [(row.number, row.line) for row in rows] == [(1, 1), (3, 4)]
    assert [(problem.row, problem.line, problem.severity) for problem in problems] == [(2, 3, "error")]
    assert re.search(said, str(problems[0].text))
    assert str(problems[0].sentence).startswith("Row 2 (line 3): ")
    assert problems[0].sentence.render("zh").startswith("第 2 条（文件第 3 行）：")


def test_a_broken_first_line_costs_only_that_line(tmp_path):
    rows, problems = read(write(tmp_path, "a.jsonl", f"oops\n{GOOD}\n{GOOD}"))
    assert [row.number for row in rows] == [2, 3] and problems[0].row == 1


def test_a_line_of_100_mb_is_a_problem_and_not_held_in_memory(tmp_path):
    huge = b'{"text": "' + b"x" * 100_000_000 + b'"}'
    path = write(tmp_path, "a.jsonl", GOOD.encode() + b"\n" + huge + b"\n" + GOOD.encode())
    tracemalloc.start()
    try:
        rows, problems = read(path)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20 < path.stat().st_size
    finally:
        tracemalloc.stop()
    assert [row.number for row in rows] == [1, 3]
    assert str(problems[0].sentence) == (
        "Row 2 (line 2): 95.4 MiB in one row; the limit is 4 MiB: split it into several rows, or check for a missing "
        "line break."
    )


def test_the_row_limit_counts_bytes_and_not_characters(tmp_path):
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "天" * 400}, ensure_ascii=False))
    assert read(path, Limits(row_bytes=1000))[1] and not read(path, Limits(row_bytes=1300))[1]


@pytest.mark.parametrize(
    "text, ends",
    [
        ("x" * 5_000_000, "x"),  # larger than a row of any other kind may be
        ("It rained. The cat slept; " * 9_000, "."),
        ("Line without a mark\n" * 9_000, "k"),
        ("下雨了。猫睡着了，" * 9_000, "。"),
        ("word " * 9_000, "d"),
        ("x" * (MAX_CHARACTERS - 1) + "\n" + "y" * MAX_CHARACTERS + "\n\nend", "x"),
    ],
)
def test_a_book_without_empty_lines_is_rows_that_end_with_a_sentence_and_lose_nothing(tmp_path, text, ends):
    """Seen: one row of which the first 512 tokens were learned, or none at all from 4 MiB on."""
    rows_read, problems = read(write(tmp_path, "a.txt", text))
    assert not problems and len(rows_read) > 1 and [row.number for row in rows_read] == [*range(1, len(rows_read) + 1)]
    assert "".join(row.values["text"] for row in rows_read).replace("\n", "") == text.replace("\n", "")
    assert all(len(row.values["text"]) <= MAX_CHARACTERS for row in rows_read)
    assert {row.values["text"].rstrip()[-1] for row in rows_read[:-1]} <= {ends, "y"}
    lines = text.split("\n")
    assert all(
        lines[row.line - 1].startswith(row.values["text"].split("\n")[0][:5])
        for row in rows_read
        if "\n" in row.values["text"]
    )


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet"])
def test_a_huge_row_is_refused_in_every_kind(tmp_path, name):
    rows = [{"text": "a"}, {"text": "x" * 5_000_000}, {"text": "b"}]
    if name == "a.json":
        assert "Row 2 of a.json (line 1) is larger than 4 MiB" in refused(write(tmp_path, name, json.dumps(rows)))
        return
    path = as_parquet(tmp_path / name, rows) if name == "a.parquet" else write(tmp_path, name, as_csv(rows))
    rows_read, problems = read(path)
    assert [row.number for row in rows_read] == [1, 3]
    assert problems[0].row == 2 and "4.8 MiB in one row; the limit is 4 MiB" in str(problems[0].text)


@pytest.mark.parametrize(
    "record, sentence, left",
    [
        ("a,b,c", "3 cells, expected 2 (text, label)", 2),
        ("a", "1 cells, expected 2 (text, label)", 2),
        ('"a"b,c', "a quote inside a quoted cell", 2),
        ('"a,b', "a quote opens here and never closes", 1),
        ("a\0b,c", "a NUL character", 2),
    ],
)
def test_a_broken_csv_record_is_a_problem_with_its_row(tmp_path, record, sentence, left):
    rows, problems = read(write(tmp_path, "a.csv", f"text,label\ngood,x\n{record}\ngood,y\n"))
    assert len(rows) == left
    assert [(problem.row, problem.line) for problem in problems] == [(2, 3)]
    assert sentence in str(problems[0].text)


def test_empty_cells_that_excel_pads_with_are_not_ragged(tmp_path):
    rows, problems = read(write(tmp_path, "a.csv", "text,label,,\na,b,,\n\n,,,\nc,d\n"))
    assert [row.values for row in rows if row.values["text"]] == [
        {"text": "a", "label": "b"},
        {"text": "c", "label": "d"},
    ]
    assert all(problem.row == 2 for problem in problems)


def test_a_second_list_of_rows_is_named_and_not_silently_lost(tmp_path):
    rows, problems = read(write(tmp_path, "a.json", json.dumps({"data": ROWS, "others": ROWS})))
    assert len(rows) == 3
    assert (problems[0].row, problems[0].severity) == (0, "warning")
    assert str(problems[0].sentence).startswith("Only the list “data” was read; skipped: others.")


@pytest.mark.parametrize(
    "before, after",
    [({"version": 2, "license": "MIT", "note": ""}, {}), ({}, {"version": 2, "license": {"name": "MIT"}})],
)
def test_what_stands_beside_the_rows_is_named(tmp_path, before, after):
    rows, problems = read(write(tmp_path, "a.json", json.dumps({**before, "rows": ROWS, **after})))
    assert [row.values for row in rows] == ROWS and problems == []
    assert {(omission.place, omission.name) for row in rows for omission in row.omissions} == {
        ("beside", "version"),
        ("beside", "license"),
    }


def test_what_stands_behind_rows_of_which_the_last_is_broken_is_still_named(tmp_path):
    _, problems = read(write(tmp_path, "a.json", json.dumps({"rows": [*ROWS, 3], "version": 2})))
    assert [problem.row for problem in problems] == [4, 0] and "“version” outside the rows (1)" in str(problems[1].text)


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e999", "1e99999999999999999999", r'"half \ud83d"', "[" * 70 + "]" * 70]
)
@pytest.mark.parametrize("form", ["[{}]", '{{"version": 1, "data": [{}], "more": [{{}}]}}'])
def test_a_row_that_no_json_has_costs_that_row_alone(tmp_path, form, value):
    """Half a character would be written as "?" by the parser, which gives up at NaN."""
    good = '{"text": "a"}'
    rows, problems = read(
        write(tmp_path, "a.json", form.format(f'{good},\n{{"text": {value}, "more": [{{}}]}},\n\n{good}'))
    )
    assert [(row.number, row.line) for row in rows] == [(1, 1), (3, 4)]
    assert [(problem.row, problem.line) for problem in problems if problem.row] == [(2, 2)]


def test_emoji_written_in_halves_stay_what_they_are(tmp_path):
    content = json.dumps([{"text": "😀 天"}, {"text": "b"}]) + "\n"
    assert [row.values["text"] for row in read(write(tmp_path, "a.json", content))[0]] == ["😀 天", "b"]
    one = json.dumps({"text": ["😀", "b"], "label": ["x", "\ud83d"]})
    rows, problems = read(write(tmp_path, "b.json", one))
    assert [row.values["text"] for row in rows] == ["😀"] and "half a character" in str(problems[0].text)


def test_a_json_array_takes_no_more_memory_than_a_few_rows(tmp_path):
    """Seen: 8 MiB were read ahead for each row."""
    path = write(tmp_path, "a.json", json.dumps([{"text": "word " * 200, "n": i} for i in range(10_000)]))
    source = probe(path)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(source)) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 2 << 20 < path.stat().st_size
    finally:
        tracemalloc.stop()


def test_one_conversation_alone_in_a_file_is_one_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    rows, _ = read(write(tmp_path, "a.json", json.dumps(row, indent=1)))
    assert [r.values for r in rows] == [row]
