"""Reads a document as text: `python -m core.data.reading.document_worker FILE MEMBER KIND ENCODING`.

It prints JSON lines. A line is a text, one block of the document (a paragraph, a heading with "# ", a row of a table),
"" between blocks; {"page": n} where page n of a PDF begins; {"pages": n} for pages without any text; or {"error": ...,
"reason": ...}. MEMBER: a file in FILE, if that is a zip. ENCODING: of a text. Libraries of the extra `documents` do the
reading. They read untrusted files, so this process may use up its memory or crash without the app; any other exception
ends it. It imports nothing of ours.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    import lxml.etree
    import lxml.html


MAX_BYTES = 256 << 20  # of a document
_BLOCKS = {"p", "div", "li", "tr", "pre", "blockquote", "section", "article", "header", "footer", "main", "aside", "dt",
    "dd", "figure", "figcaption", "summary", "details", "ul", "ol", "table", "body", "br", "hr", "h1", "h2", "h3", "h4",
    "h5", "h6"}  # fmt: skip
_UNSEEN = {
    "script",
    "style",
    "nav",
    "template",
    "noscript",
    "head",
    "svg",
    "math",
    "iframe",
    "button",
    "form",
    "select",
}
_BESIDE = ("navigation", "banner", "contentinfo", "dialog", "alertdialog", "search", "complementary", "menu")
_MARKS = re.compile(
    r"(?:^|[-_\s])(?:cookies?|consent|gdpr|nav|navbar|navigation|menu|breadcrumbs?|sidebar|footer|skip-link|share"
    r"|social"
    r"|newsletter|pagination|popup|modal)(?:$|[-_\s])",
    re.IGNORECASE,
)
_MIN_OWN = 0.3  # of a page's characters
# Tags of a template, which begin before any code; a translated text stays, a comment goes with its content.
_IS_TEMPLATE = re.compile(r"(?:(?!<pre|<code).)*?\{%[-+]?\s*\w", re.DOTALL | re.IGNORECASE)
_TEMPLATE = re.compile(
    r"\{%-?\s*comment\b[^{}]{0,200}%\}.{0,2000}?\{%-?\s*endcomment[^{}]{0,20}%\}"
    r"|\{%-?\s*trans(?:late)?\s+(?P<quote>[\"'])(?P<text>[^{}]{0,1000}?)(?P=quote)[^{}]{0,200}%\}"
    r"|\{%[^{}]{0,1000}?%\}|\{#[^{}]{0,1000}?#\}",
    re.DOTALL,
)
_SPACE = re.compile(r"[ \t\r\n\f\u00a0]+")
_ENDS = re.compile(r"[.!?:…。！？][\"'”’»)\]]*$")
_SILENCE_MS = 4_000  # a longer silence between subtitles begins a paragraph
_PARAGRAPH = 800  # characters of subtitles after which the next sentence begins a paragraph


def read_document(path: str, member: str, kind: str, encoding: str) -> Iterator[object]:
    """Yield a document's lines, its pages ({"page"}), what is left out ({"pages"}, {"around"}) or goes wrong
    ({"error"}: a missing package, a password). encoding: of text kinds, "" for others."""
    try:
        file = _bytes_of(path, member)
        yield from _TEXTS[kind](file.read(MAX_BYTES).decode(encoding)) if encoding else _READERS[kind](file)
    except ModuleNotFoundError as error:
        yield {"error": "missing", "reason": error.name}
    except _Locked:
        yield {"error": "password"}


class _Locked(Exception):
    pass


def _bytes_of(path: str, member: str) -> IO[bytes]:
    """Open a document as a stream of bytes: the file at path or, if member is not "", that file in the zip at path.

    Only the file in a zip is read into memory; it is truncated after MAX_BYTES, without an error.
    """
    import io

    if not member:
        return open(path, "rb")
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        return io.BytesIO(file.read(MAX_BYTES))


# ---- Word ----------------------------------------------------------------------------------------
def _docx(file: IO[bytes]) -> Iterator[object]:
    """Yield the lines of a Word document: headings and list items as Markdown, the rows of tables with " | " between
    cells. An empty line follows each paragraph and table, but no heading."""
    import docx
    from docx.table import Table

    for block in docx.Document(file).iter_inner_content():
        if isinstance(block, Table):
            for row in block.rows:
                yield " | ".join(_SPACE.sub(" ", cell.text).strip() for cell in row.cells)
            yield ""
            continue
        text, style = block.text.strip(), (block.style.name or "") if block.style is not None else ""
        if not text:
            continue
        level = re.match(r"Heading (\d)", style)
        if level or style == "Title":
            yield f"{'#' * (int(level[1]) if level else 1)} {text}"
        else:
            yield f"- {text}" if style.startswith("List") else text
            yield ""


# ---- PDF -----------------------------------------------------------------------------------------
def _pdf(file: IO[bytes]) -> Iterator[object]:
    """Yield {"page": its number} for each page of a PDF, then its paragraphs without page numbers, an empty line after
    each; last {"pages": how many have no text}, if any. Raises _Locked."""
    from pypdf.errors import DependencyError

    try:
        yield from _pages(file)
    except DependencyError:  # AES needs a package that is not installed
        raise _Locked from None


def _pages(file: IO[bytes]) -> Iterator[object]:
    """Yield the lines of a PDF, as _pdf. Raises _Locked, and pypdf's DependencyError for AES."""
    import pypdf

    reader = pypdf.PdfReader(file)
    if reader.is_encrypted and not reader.decrypt(""):
        raise _Locked
    empty_pages = 0
    for number, page in enumerate(reader.pages, 1):
        yield {"page": number}
        lines = [line.strip() for line in page.extract_text().split("\n")]
        lines = [line for line in lines if not line.isdecimal()]  # the page's number
        empty_pages += not any(lines)
        yield from _paragraphs(lines)
    if empty_pages:
        yield {"pages": empty_pages, "of": len(reader.pages)}


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Join a page's lines to paragraphs and yield each with an empty line after it. A paragraph ends at an empty line,
    or at a sentence's end in a line shorter than 80 % of the longest. Words divided at a line's end are joined."""
    longest = max(map(len, lines), default=0)
    text = ""
    for line in lines:
        if text.endswith("-") and line[:1].islower():
            text = text[:-1] + line
        else:
            text = f"{text} {line}".strip()
        if text and (not line or (_ENDS.search(line) and len(line) < 0.8 * longest)):
            yield from (text, "")
            text = ""
    if text:
        yield from (text, "")


# ---- web pages and books -------------------------------------------------------------------------
def _body(content: bytes) -> lxml.html.HtmlElement | None:
    """Return the body of a page; None if it has none. content: in UTF-8."""
    import lxml.html

    parser = lxml.html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    return lxml.html.document_fromstring(content, parser=parser).find("body") if content.strip() else None


def _page(text: str) -> Iterator[object]:
    """Yield the blocks of a web page's own text (of all of it but footers, if that is too little), then {"around": how
    many others it has}: navigation, cookie notices, footers, tags of a template."""
    tags = 0
    if _IS_TEMPLATE.match(text):
        text, tags = _TEMPLATE.subn(lambda tag: tag["text"] or " ", text)
    body = _body(text.encode("utf-8", "replace"))
    if body is None:
        return
    # A page's own text is what its author marked as main; what is beside it repeats on every page of the site.
    whole = sum(map(bool, _blocks(body)))
    for foot in body.xpath("//footer | //*[@role='contentinfo']"):
        foot.drop_tree()
    every = list(_blocks(body))
    mains = body.xpath("//main | //*[@role='main']") or body.xpath("//article")
    main = mains[0] if len(mains) == 1 else body
    beside = [each for each in main.iterdescendants() if isinstance(each.tag, str) and _is_beside(each)]
    for each in beside:
        if each.getparent() is not None:
            each.drop_tree()
    own = list(_blocks(main))
    if sum(map(len, own)) < _MIN_OWN * sum(map(len, every)):  # a page that marks its parts otherwise
        own = every
    own = [block for block in own if not _is_lone_sign(block)]
    yield from own
    yield {"around": tags + whole - sum(map(bool, own))}


def _is_lone_sign(block: str) -> bool:
    """Return True for a block of one sign, such as the + that opens an answer."""
    return len(block) == 1 and not block.isalnum()


def _is_beside(element: lxml.html.HtmlElement) -> bool:
    """Return True for an element beside a page's own text: hidden, navigation, notices, footers."""
    names = f"{element.get('class') or ''} {element.get('id') or ''}"
    is_hidden = element.get("hidden") is not None or element.get("aria-hidden") == "true"
    return (
        element.tag in ("footer", "aside") or is_hidden or element.get("role") in _BESIDE or bool(_MARKS.search(names))
    )


def _blocks(body: lxml.etree._Element | None) -> Iterator[str]:
    """Yield the blocks of text that a browser shows of a page: headings and list items as Markdown, the title of a
    fold-out that is a question as a heading. An empty line follows each block but headings. Nothing for None."""
    texts: list[str] = []
    for kind, name, text in _walk(body) if body is not None else ():
        if kind == "text":
            texts.append(text)
        elif name in _BLOCKS:
            block = _SPACE.sub(" ", "".join(texts)).strip()
            texts = []
            if block and kind == "end" and re.fullmatch(r"h[1-6]", name):
                yield f"{'#' * int(name[1])} {block}"
            elif block and kind == "end" and name in ("summary", "dt") and block.endswith(("?", "？")):
                yield f"###### {block}"
            elif block:
                yield from (f"- {block}" if name == "li" and kind == "end" else block, "")
        elif name in ("td", "th") and kind == "end":
            texts.append(" ")


def _walk(top: lxml.etree._Element) -> Iterator[tuple[str, str, str]]:
    """Yield (begin | text | end, name of the element, text), without recursion and without elements that are not shown
    (script, nav). Text after an element has the name ""."""
    stack: list[tuple[lxml.etree._Element, bool]] = [(top, False)]
    while stack:
        element, is_done = stack.pop()
        name = element.tag if isinstance(element.tag, str) else ""
        if is_done:
            yield "end", name, ""
        elif name and name not in _UNSEEN:
            yield "begin", name, ""
            if element.text:
                yield "text", name, element.text
            stack.append((element, True))
            stack += [(child, False) for child in reversed(element)]
            continue
        if element is not top and element.tail:
            yield "text", "", element.tail


def _odt(file: IO[bytes]) -> Iterator[object]:
    """Yield the headings and paragraphs of an OpenDocument text, those of lists and tables among them, without notes,
    as _blocks. Raises _Locked for an encrypted one."""
    import lxml.etree

    parser = lxml.etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    with zipfile.ZipFile(file) as book:
        if b"encryption-data" in book.read("META-INF/manifest.xml"):
            raise _Locked
        root = lxml.etree.fromstring(book.read("content.xml"), parser)
    lxml.etree.strip_elements(root, "{*}annotation", "{*}note", "{*}tracked-changes", with_tail=False)
    for space in root.iter("{*}s", "{*}tab", "{*}line-break"):
        space.text = " "
    for element in root.iter("{*}h", "{*}p"):
        if any(True for _ in element.iterancestors("{*}p")):  # of a text box, which its paragraph's text includes
            continue
        text = _SPACE.sub(" ", "".join(element.itertext())).strip()
        level = next((int(value) for name, value in element.items() if name.endswith("}outline-level")), 1)
        if text and lxml.etree.QName(element).localname == "h":
            yield f"{'#' * min(level, 6)} {text}"
        elif text:
            yield from (text, "")


def _epub(file: IO[bytes]) -> Iterator[object]:
    """Yield the chapters in reading order without the table of contents, as _blocks. Raises _Locked for encrypted ones,
    ValueError for a broken book."""
    import lxml.etree

    # The file may come from anyone: entities could grow without end, or read files of this computer.
    parser = lxml.etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    with zipfile.ZipFile(file) as book:
        rootfile = lxml.etree.fromstring(book.read("META-INF/container.xml"), parser).find(".//{*}rootfile")
        if rootfile is None:
            raise ValueError("no rootfile")
        package_path = rootfile.get("full-path")
        package = lxml.etree.fromstring(book.read(package_path), parser)
        items = package.iterfind(".//{*}manifest/{*}item")
        files = {item.get("id"): item.get("href") for item in items if not _is_contents(item)}
        chapters = [files.get(item.get("idref")) for item in package.iterfind(".//{*}spine/{*}itemref")]
        names = [
            posixpath.normpath(posixpath.join(posixpath.dirname(package_path), unquote(chapter)))
            for chapter in chapters
            if chapter
        ]
        if _locked(book, names):
            raise _Locked
        for name in names:
            yield from _blocks(_body(book.read(name)))


def _is_contents(item: lxml.etree._Element) -> bool:
    """Return True if an item of an EPUB's manifest is a table of contents or a cover, by its properties or its file
    name."""
    name = posixpath.splitext(posixpath.basename(unquote(item.get("href") or "")))[0].lower()
    return "nav" in (item.get("properties") or "").split() or name in ("nav", "toc", "cover", "coverpage", "contents")


def _locked(book: zipfile.ZipFile, names: Iterable[str]) -> bool:
    """Return True if a book's encryption.xml lists any of these files, its chapters. Encrypted fonts alone, and a book
    without that file, give False."""
    try:
        about = book.read("META-INF/encryption.xml").decode("utf-8", "replace")
    except KeyError:
        return False
    return any(name in unquote(about) for name in names)


# ---- subtitles -----------------------------------------------------------------------------------
_COMMA = re.compile(r"(?<=:\d\d),(?=\d{3}\b)")  # of a time


def _subtitles(content: str) -> Iterator[object]:
    """Yield the spoken text without times, an empty line between paragraphs, which end at a silence, or at a sentence's
    end once they are long; a line that repeats the end is dropped."""
    import pysubs2

    text, before = "", 0
    content = content.lstrip("\ufeff")
    kind = "vtt" if content.startswith("WEBVTT") else None  # in which a line of speech may look like another format
    if kind:
        content = _COMMA.sub(".", content)  # as in .srt
    for event in pysubs2.SSAFile.from_string(content, kind):
        line = _SPACE.sub(" ", event.plaintext).strip()
        if not line or event.is_comment:
            continue
        if text and (event.start - before > _SILENCE_MS or (len(text) > _PARAGRAPH and _ENDS.search(text))):
            yield from (text, "")
            text = ""
        # Some files repeat the previous line, so that it scrolls up.
        text = text if text.endswith(line) else f"{text} {line}".strip()
        before = event.end
    if text:
        yield text


_READERS: dict[str, Callable[[IO[bytes]], Iterator[object]]] = {"docx": _docx, "pdf": _pdf, "epub": _epub, "odt": _odt}
_TEXTS: dict[str, Callable[[str], Iterator[object]]] = {
    "html": _page,
    "srt": _subtitles,
}

if __name__ == "__main__":
    # Some libraries write to stdout, which is for our lines only.
    out, sys.stdout = sys.stdout, sys.stderr
    for each in read_document(*sys.argv[1:5]):
        out.write(json.dumps(each) + "\n")
