"""Folders and zips as one set: which files are read, by what, and what happens to hostile ones."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from core.data.reading import spreadsheets, workbook
from core.data.reading.choices import Choices
from core.data.reading.file_rows import Limits
from core.data.sets import gathered
from core.data.sets.inspection import DataReport, inspect_file
from core.data.store import DatasetStore
from core.errors import DataError
from core.presets import PRESETS
from tests.kit.office import xlsx, zipped
from tests.kit.read_examples import examples_of

QA = [{"question": "Why?", "answer": "So."}, {"question": "How?", "answer": "Thus."}]
CHAT = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}]
FILES = {
    "b/chapter 10.txt": "ten",
    "b/chapter 2.txt": "two",
    "a.csv": "Frage;Antwort\nWas?;Das.\n",
    "c.json": json.dumps(CHAT),
}


@pytest.fixture(params=["folder", "zip"])
def put(request: pytest.FixtureRequest, tmp_path: Path):
    """Files as a folder, and as a zip of it."""

    def written(files: dict[str, str | bytes]) -> Path:
        if request.param == "zip":
            (tmp_path / "set.zip").write_bytes(zipped(files))
            return tmp_path / "set.zip"
        for name, content in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "set"

    return written


def notes(report: DataReport) -> str:
    return " ".join(map(str, report.notes))


def test_files_of_several_formats_are_one_set_in_the_order_of_their_names(put) -> None:
    path = put(
        FILES
        | {"README.md": "about", "photo.jpg": b"\xff\xd8\xff", ".hidden.csv": "a\nb\n", "__MACOSX/a.csv": "x\ny\n"}
    )
    report = inspect_file(path)
    assert (report.kind, report.rows, report.good_rows, report.error_count) == ("zip", 4, 4, 0)
    examples = list(examples_of(path))
    assert [row for row, _ in examples] == [1, 2, 3, 4]
    assert [example.text or example.messages[-1].content for _, example in examples] == ["Das.", "two", "ten", "ho"]
    assert (
        "consists of 4 files, with these rows: a.csv (1), b/chapter 2.txt (1), b/chapter 10.txt (1), c.json (1)"
        in notes(report)
    )
    assert "Files that are not read: 2, with the extensions .jpg (1), .md (1)." in notes(
        report
    ) and "a.csv: Columns are separated" in notes(report)


def test_a_problem_names_the_file_that_it_stands_in(put) -> None:
    report = inspect_file(
        put(
            {
                "a.jsonl": json.dumps(QA[0]) + "\n",
                "b.jsonl": json.dumps(QA[1]) + "\noops\n" + json.dumps({"question": "x", "answer": ""}) + "\n",
            }
        )
    )
    assert [str(problem.sentence)[:27] for problem in report.problems] == [
        "Row 3 (b.jsonl, line 2): br",
        "Row 4 (b.jsonl, line 3): th",
    ]
    assert (report.rows, report.good_rows) == (4, 2)


def test_one_file_that_cannot_be_read_costs_that_file_alone(put) -> None:
    report = inspect_file(
        put(
            {
                "a.json": json.dumps(QA),
                "b.json": '[{"question": "a", "answer": "b"},',
                "c.csv": "x,y,z,v\n1,2,3,4\n",
                "d.json": b"\x89PNG",
            }
        )
    )
    assert report.good_rows == 2 and "d.json is an image" in notes(report)
    sentences = " ".join(str(problem.text) for problem in report.problems)
    assert "b.json is broken at row 2" in sentences and "no text to learn in the columns x, y, z, v" in sentences


def test_nothing_to_read_is_one_sentence(put) -> None:
    with pytest.raises(DataError, match="contains no supported file"):
        inspect_file(put({"a.jpg": b"\xff\xd8\xff", "b": "x"}))
    with pytest.raises(DataError, match="a.json is an image"):
        inspect_file(put({"a.json": b"\x89PNG"}))


def test_writing_is_read_where_nothing_else_is(put) -> None:
    assert inspect_file(put({"note.md": "One.\n\nTwo.", "README.md": "about"})).good_rows == 2


def test_data_that_begins_as_what_tells_of_data_is_read(put) -> None:
    data = (
        "State of the Union 1990.txt",
        "state_2020.txt",
        "License plates.txt",
        "license_plates.txt",
        "package tours.txt",
        "license-ccna.txt",
        "state.2020.txt",
    )
    about = (
        "config.json",
        "config (1).json",
        "LICENSE (1).txt",
        "LICENSE-APACHE-2.0.txt",
        "README (2).txt",
        "state_dict.txt",
        "config.dev.txt",
    )
    path = put({name: name for name in (*data, *about)})
    assert sorted(example.text for _, example in examples_of(path)) == sorted(data)
    assert f"Files that are not read: {len(about)}" in notes(inspect_file(path))


def test_an_archive_of_chatgpt_is_its_conversations(put) -> None:
    def node(id: str, parent: str | None, role: str, text: str) -> dict:
        message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}, "create_time": 1.0}
        return {"id": id, "parent": parent, "children": [], "message": message}

    talk = {
        "title": "t",
        "mapping": {"1": node("1", None, "user", "Hi?"), "2": node("2", "1", "assistant", "Ho.")},
        "current_node": "2",
    }
    report = inspect_file(
        put({"conversations.json": json.dumps([talk]), "user.json": '[{"id": 1}]', "chat.html": "<html>"})
    )
    assert report.chat and report.chat.app == "ChatGPT" and report.good_rows == 1
    assert "Of the files inside, only the rows of conversations.json are read." in notes(report)
    assert "not read: 2" in notes(report)


def test_a_whatsapp_zip_is_its_chat_whatever_lies_beside_it(put) -> None:
    chat = "[12.03.25, 21:14:10] Maria: Hallo?\n[12.03.25, 21:15:10] Tom: Hallo!\n[12.03.25, 21:16:10] Maria: Na?\n"
    path = put({"_chat.txt": chat, "00000012-PHOTO.jpg": b"\xff\xd8\xff"})
    report = inspect_file(path, choices=Choices(voice="Tom"))
    assert report.chat and report.chat.voice == "Tom" and [p.name for p in report.chat.people] == ["Maria", "Tom"]


def test_a_slack_export_is_its_channels_and_one_voice(put) -> None:
    def day(name: str, ts: int) -> str:
        messages = [("U1", "Question?"), ("U2", name)]
        return json.dumps(
            [
                {
                    "type": "message",
                    "user": user,
                    "text": text,
                    "ts": f"{ts + i}.0",
                    "user_profile": {"real_name": {"U1": "Eva", "U2": "Max"}[user]},
                }
                for i, (user, text) in enumerate(messages)
            ]
        )

    path = put(
        {
            "general/2025-01-01.json": day("One.", 1735689600),
            "general/2025-01-02.json": day("Two.", 1735776000),
            "users.json": "[]",
            "channels.json": '[{"id": "C1", "name": "general"}]',
        }
    )
    report = inspect_file(path, choices=Choices(voice="Max"))
    assert report.chat and report.chat.voice == "Max" and report.good_rows == 2 and report.chat.conversations == 2
    assert [example.messages[-1].content for _, example in examples_of(path, choices=Choices(voice="Max"))] == [
        "One.",
        "Two.",
    ]


def test_slacks_people_go_by_their_names_in_users_json_which_an_added_folder_keeps(tmp_path: Path) -> None:
    """Seen: a voice had to be chosen among ids, and who had a profile in one day's file alone was two people."""
    folder = tmp_path / "export"
    (folder / "general").mkdir(parents=True)
    messages = [{"type": "message", "user": f"U{i}", "text": "Well?", "ts": f"{1735689600 + i}.0"} for i in (1, 2)]
    (folder / "general" / "2025-01-01.json").write_text(json.dumps(messages))
    (folder / "users.json").write_text(
        json.dumps([{"id": "U1", "name": "eva"}, {"id": "U2", "profile": {"real_name": "Max"}}])
    )
    store = DatasetStore(tmp_path / "datasets", PRESETS)
    info = gathered.add(store, [folder], choices=Choices(voice="Max"))
    for chat in (inspect_file(folder).chat, store.report(info.id).chat):
        assert chat and [person.name for person in chat.people] == ["eva", "Max"]


def test_dataset_info_says_what_columns_are(put) -> None:
    about = {
        "mine": {"file_name": "mine.json", "columns": {"prompt": "q", "query": "more", "response": "a", "system": "s"}},
        "talk": {"file_name": "talk.json", "formatting": "sharegpt", "columns": {"messages": "msgs"},
            "tags": {"role_tag": "role", "content_tag": "text", "user_tag": "U", "assistant_tag": "B"}},
        "elsewhere": {"hf_hub_url": "a/b"},
    }  # fmt: skip
    talk = [{"msgs": [{"role": "U", "text": "Hi?"}, {"role": "B", "text": "Ho."}], "id": 3}]
    path = put(
        {
            "dataset_info.json": json.dumps(about),
            "mine.json": json.dumps([{"q": "Q", "more": "M", "a": "A", "s": "S"}]),
            "talk.json": json.dumps(talk),
            "other.json": json.dumps(QA),
        }
    )
    report = inspect_file(path)
    examples = [example for _, example in examples_of(path)]
    assert [[m.content for m in example.messages] for example in examples] == [["S", "Q\n\nM", "A"], ["Hi?", "Ho."]]
    assert [str(left.what) for left in report.left_out] == ["The column “id”"] and "not read: 2" in notes(report)
    with pytest.raises(DataError, match="does not describe the columns: it is not JSON"):
        inspect_file(put({"dataset_info.json": "{", "mine.json": "[]"}))


def test_a_sheet_and_a_parquet_file_inside_are_read(put, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setattr(
        spreadsheets,
        "listen",
        lambda path, sheet, most: workbook.read_workbook(
            str(getattr(path, "archive", path)), path.name if hasattr(path, "archive") else "", sheet, most
        ),
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(QA), buffer)
    report = inspect_file(
        put({"a.xlsx": xlsx({"S": [["question", "answer"], ["a?", "b."]]}), "b.parquet": buffer.getvalue()})
    )
    assert (report.rows, report.good_rows, report.problem_count) == (3, 3, 0)


def test_added_files_and_folders_are_one_set_that_is_found_again(tmp_path: Path) -> None:
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps(QA[name == "b.jsonl"]) + "\n")
    first = gathered.add(store, [tmp_path / "b.jsonl", tmp_path / "a.jsonl"], "both")
    assert (first.name, first.good_rows) == ("both", 2) and store.path(first.id).name == "source.zip"
    assert gathered.add(store, [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]).id == first.id
    assert [row for row, _ in examples_of(store.path(first.id))] == [1, 2] and "a.jsonl (1), b.jsonl (1)" in notes(
        store.report(first.id)
    )
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "c.csv").write_text("question,answer\na,b\n")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff" * 9)
    second = gathered.add(store, [folder])
    assert second.good_rows == 1 and zipfile.ZipFile(store.path(second.id)).namelist() == ["in/c.csv"]
    assert sorted(path.name for path in (tmp_path / "datasets").iterdir() if path.name.startswith(".p")) == []


# --- hostile archives ------------------------------------------------------------------------------------------------


def hostile(folder: Path, content: bytes, limits: Limits | None = None) -> str:
    (folder / "a.zip").write_bytes(content)
    with pytest.raises(DataError) as caught:
        inspect_file(folder / "a.zip", limits=limits or Limits())
    assert [path.name for path in folder.iterdir()] == ["a.zip"]
    return str(caught.value)


def lying(size: int) -> bytes:
    """An archive whose directory says that its file has another size than it has."""
    content = bytearray(zipped({"a.jsonl": json.dumps(QA[0]) * 4000}))
    at = content.rfind(b"PK\x01\x02") + 24
    content[at : at + 4] = size.to_bytes(4, "little")
    return bytes(content)


def test_a_bomb_is_refused_by_its_directory_and_one_that_lies_while_it_is_read(tmp_path: Path) -> None:
    assert "the limit is 1 MiB" in hostile(tmp_path, zipped({"a.jsonl": b"0" * (3 << 20)}), Limits(bytes=1 << 20))
    assert "a.jsonl is damaged" in hostile(tmp_path, lying(10))


def test_names_that_lead_out_links_passwords_and_archives_inside_are_sentences(tmp_path: Path) -> None:
    for name in ("../a.jsonl", "/etc/a.jsonl", "a/../../b.jsonl", "C:/a.jsonl", "..\\a.jsonl"):
        assert "a path outside its archive" in hostile(tmp_path, zipped({name: json.dumps(QA[0])}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("a.jsonl")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "is a link to another file" in hostile(tmp_path, buffer.getvalue())
    locked = bytearray(zipped({"a.jsonl": json.dumps(QA[0])}))
    locked[locked.rfind(b"PK\x01\x02") + 8] |= 1
    assert "a.jsonl is password-protected" in hostile(tmp_path, bytes(locked))
    assert "inner.zip is a zip archive" in hostile(
        tmp_path, zipped({"inner.zip": zipped({"a.jsonl": json.dumps(QA[0])})})
    )


def test_a_damaged_member_is_a_sentence_and_its_neighbours_are_read(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.jsonl": json.dumps(QA[0]) * 50, "b.jsonl": json.dumps(QA[1]) + "\n"}))
    content[45:60] = bytes(15)
    (tmp_path / "a.zip").write_bytes(bytes(content))
    report = inspect_file(tmp_path / "a.zip")
    assert report.good_rows == 1 and "a.jsonl is damaged" in notes(report) + str(report.problems)


def test_more_files_than_are_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.data.reading.folders.MAX_FILES", 2)
    assert "more than 2 files" in hostile(tmp_path, zipped({f"{i}.txt": "x" for i in range(3)}))


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.txt").write_text("own")
    (folder / "b.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "c").symlink_to(tmp_path)
    assert [example.text for _, example in examples_of(folder)] == ["own"]


def test_results_of_a_batch_are_read_with_their_requests(tmp_path: Path) -> None:
    def lines(*rows: object) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    question = [{"role": "user", "content": "2 + 2?"}]
    answer = {"role": "assistant", "content": "4"}
    formats = {
        "openai": ({"body": {"messages": question}}, {"response": {"body": {"choices": [{"message": answer}]}}}),
        "anthropic": (
            {"params": {"messages": question, "system": "Count."}},
            {"result": {"type": "x", "message": answer}},
        ),
    }
    for name, (request, result) in formats.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "input.jsonl").write_text(lines(*({"custom_id": id, **request} for id in ("a", "b"))), "utf-8")
        (folder / "output.jsonl").write_text(lines(*({"custom_id": id, **result} for id in ("b", "a", "c"))), "utf-8")
        examples = [[message.content for message in example.messages] for _, example in examples_of(folder)]
        assert examples == [[*(["Count."] if name == "anthropic" else []), "2 + 2?", "4"]] * 2
        assert any(note.key == "data.note_batch" for note in inspect_file(folder).notes)
        for file, lacks in (("input", "output file"), ("output", "the file that was sent")):
            with pytest.raises(DataError, match=lacks):
                inspect_file(folder / f"{file}.jsonl")


def test_rows_that_another_file_has_in_a_form_that_says_more_are_read_once(tmp_path: Path) -> None:
    heads = [(f"The title of story {at}", f"Once there was a story, number {at}.") for at in range(4)]
    table = [{"headline": head, "text": body, "label": "x"} for head, body in heads]
    talks = [
        {"messages": [{"role": "user", "content": body}, {"role": "assistant", "content": head}]}
        for head, body in heads
    ]
    for name, rows in {"table": table, "talks": talks}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    report = inspect_file(tmp_path)
    assert (report.format, report.good_rows) == ("messages", 4)
    assert any(str(note).startswith("table.jsonl is not read") for note in report.notes)
    other = "".join(json.dumps(row | {"text": f"Another story of {at}."}) + "\n" for at, row in enumerate(table))
    (tmp_path / "table.jsonl").write_text(other, "utf-8")
    assert inspect_file(tmp_path).good_rows == 8
