"""Bookmarks of a browser: the HTML file that Firefox, Chrome, Edge and Safari write when bookmarks are exported.

Each bookmark becomes a reference: its title, its address and the note that Firefox keeps with it. Folders and
Firefox's own tags become tags, so that `--tag recipes` finds what lay in the folder "Recipes".

The file is read in pieces and never held as a whole. A line that makes no sense is a problem and not the end.
"""

import codecs
import os
from html.parser import HTMLParser

import wit_world
from componentize_py_types import Err
from wit_world.imports.types import Batch, Description, Entry, Kind, Problem

FOLDER = "/in"
# Looked up here, while the component is built: later, Python can load no module that it has not loaded yet.
DECODER = codecs.getincrementaldecoder("utf-8-sig")
# Bytes read at once.
PIECE = 64 * 1024
# Records given at once; the host takes at most 256.
MOST = 200
# The bounds that the host keeps, in bytes of UTF-8.
LONGEST_TAG = 64
LONGEST_TEXT = 16 * 1024
# The latest time that can be meant in seconds: the year 5138. Some programs write microseconds.
LATEST = 100_000_000_000
# Schemes worth remembering: a bookmarklet is a program, and `place:` is Firefox's own.
SCHEMES = ("http://", "https://", "ftp://", "file://", "mailto:")
# Folders that every browser has and that say nothing.
ROOTS = {
    "bookmarks",
    "bookmarks bar",
    "bookmarks menu",
    "bookmarks toolbar",
    "favorites",
    "favorites bar",
    "favourites",
    "mobile bookmarks",
    "other bookmarks",
}


def shortened(text, most):
    """The text, cut at a character so that it has at most `most` bytes."""
    data = text.encode("utf-8", "replace")
    return data[:most].decode("utf-8", "ignore")


def moment(text):
    """Milliseconds since 1970 for what a browser wrote, or None."""
    try:
        number = int(text)
    except (TypeError, ValueError):
        return None
    if number <= 0:
        return None
    while number > LATEST:
        number //= 1000
    return number * 1000


class Reader(HTMLParser):
    """Turns pieces of the file into entries."""

    def __init__(self, file):
        super().__init__(convert_charrefs=True)
        self.file = file
        self.found = []
        self.problems = []
        self.folders = []
        # The name of a folder that was read and whose list has not begun.
        self.folder = None
        self.bookmark = None
        # What the text that comes belongs to: "title", "folder", "note" or nothing.
        self.into = None
        self.words = []

    def handle_starttag(self, tag, attrs):
        if tag in ("dt", "dl", "h3", "h1", "a", "dd", "hr"):
            self.end_text()
        if tag == "dl":
            self.folders.append(self.folder)
            self.folder = None
        elif tag == "h3":
            self.flush()
            self.into = "folder"
        elif tag == "a":
            self.flush()
            self.bookmark = {"attrs": dict(attrs), "title": "", "note": "", "line": self.getpos()[0]}
            self.into = "title"
        elif tag == "dd" and self.bookmark is not None:
            self.into = "note"
        elif tag == "dt":
            self.flush()

    def handle_endtag(self, tag):
        if tag in ("a", "h3"):
            self.end_text()
        elif tag == "dl":
            self.end_text()
            self.flush()
            if self.folders:
                self.folders.pop()

    def handle_data(self, data):
        if self.into and sum(len(word) for word in self.words) < LONGEST_TEXT:
            self.words.append(data)

    def end_text(self):
        text = shortened(" ".join("".join(self.words).split()), LONGEST_TEXT)
        if self.into == "folder":
            self.folder = text
        elif self.into in ("title", "note") and self.bookmark is not None:
            self.bookmark[self.into] = text
        self.words = []
        self.into = None

    def flush(self):
        """What is known of the last bookmark is all there is."""
        bookmark, self.bookmark = self.bookmark, None
        if bookmark is None:
            return
        where = f"{self.file}, line {bookmark['line']}"
        address = (bookmark["attrs"].get("href") or "").strip()
        if not address:
            self.problems.append(Problem(where, "the bookmark has no address"))
            return
        if not address.lower().startswith(SCHEMES):
            return
        lines = [bookmark["title"] or address, shortened(address, LONGEST_TEXT)]
        if bookmark["note"]:
            lines.append(bookmark["note"])
        self.found.append(
            Entry(
                content="\n".join(lines),
                kind=Kind.REFERENCE,
                project=None,
                tags=self.tags(bookmark["attrs"].get("tags") or ""),
                occurred_at=moment(bookmark["attrs"].get("add_date")),
                source=where,
            )
        )

    def tags(self, own):
        names = [name for name in self.folders if name and name.lower() not in ROOTS]
        names += own.split(",")
        tags = ["bookmark"]
        for name in names:
            name = shortened("".join(c for c in name if c.isprintable()).strip().lower(), LONGEST_TAG).strip()
            if name and name not in tags:
                tags.append(name)
        return tags[:64]


class Source:
    """One file, read as far as entries are asked for."""

    def __init__(self, name):
        self.name = name
        self.input = open(os.path.join(FOLDER, name), "rb")
        self.decoder = DECODER("replace")
        self.reader = Reader(name)
        self.over = False

    def fill(self):
        piece = self.input.read(PIECE)
        self.reader.feed(self.decoder.decode(piece, final=not piece))
        if not piece:
            self.reader.close()
            self.reader.end_text()
            self.reader.flush()
            self.input.close()
            self.over = True


def looks_right(name):
    """Whether the file is one of bookmarks: they all begin with the same words."""
    with open(os.path.join(FOLDER, name), "rb") as file:
        return b"netscape-bookmark-file" in file.read(1024).lower()


class Import:
    """What is still to be read. Each call of the host gets a new `WitWorld`, so that nothing can be kept there."""

    names = []
    source = None


class WitWorld(wit_world.WitWorld):
    """The importer."""

    def describe(self):
        return Description(
            name="bookmarks",
            version="0.1.0",
            summary="Bookmarks that Firefox, Chrome, Edge or Safari exported as HTML.",
            licence="Apache-2.0",
        )

    # `open` of the WIT: see the build script for why it is called so here.
    def begin(self, name):
        try:
            if name:
                names = [name]
            else:
                names = sorted(n for n in os.listdir(FOLDER) if n.lower().endswith((".html", ".htm")))
            Import.names = [n for n in names if looks_right(n)]
        except OSError as error:
            raise Err(f"{name or 'the folder'} cannot be read: {error.strerror}") from error
        if not Import.names:
            raise Err("no file of bookmarks is here: export them from the browser as HTML and name that file")

    def next(self):
        found, problems = [], []
        while not found and not problems:
            if Import.source is None:
                if not Import.names:
                    break
                name = Import.names.pop(0)
                try:
                    Import.source = Source(name)
                except OSError as error:
                    problems.append(Problem(name, f"cannot be read: {error.strerror}"))
                    continue
            source, reader = Import.source, Import.source.reader
            while len(reader.found) < MOST and len(reader.problems) < MOST and not source.over:
                source.fill()
            found, reader.found = reader.found[:MOST], reader.found[MOST:]
            problems, reader.problems = reader.problems[:MOST], reader.problems[MOST:]
            if source.over and not reader.found and not reader.problems:
                Import.source = None
        return Batch(entries=found, problems=problems)
