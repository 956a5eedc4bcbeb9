"""Download progress of pip and uv, parsed from their output: pip's lines, uv's lines and its terminal bars."""

import re

from launcher.sentences import say_text

SIZES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
CONTROL = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
BAR = re.compile(r"(\w[\w.-]*) +-* *([\d.]+) ([KMG]?i?B)/([\d.]+) ([KMG]?i?B)")
BEGUN = re.compile(r"Downloading (\S+) \(([\d.]+)([KMG]?i?B)\)")


class Progress:
    """Collects the progress of downloads; `describe` returns it as a sentence.

    files: from uv's bars, name -> (bytes done, of how many).
    """

    def __init__(self):
        # first: when these files were first seen, at which byte, of how many
        self.file, self.files, self.first = "", {}, (0, 0, 0)

    def draw(self, text):
        """Store the progress of uv's bars in text; return its other lines."""
        plain = CONTROL.sub("", text)
        for name, done, unit, total, unit_of_total in BAR.findall(plain):
            self.files[name] = float(done) * SIZES[unit], float(total) * SIZES[unit_of_total]
        lines = (line.rpartition("\r")[2] for line in plain.replace("\r\n", "\n").split("\n")[:-1])
        return "".join(line + "\n" for line in lines)

    def describe(self, lines, now):
        """Return the progress as a sentence; the bare file name or "" when nothing is left to download. lines: the
        newest output of pip or uv; now: monotonic seconds."""
        done = total = 0
        begun = {}
        for line in lines:
            words, uv = line.split(), BEGUN.match(line)
            if uv:
                begun[uv[1]] = 0, float(uv[2]) * SIZES[uv[3]]
            elif words[:1] == ["Downloaded"] and words[1:] and words[1] in begun:
                begun[words[1]] = begun[words[1]][1], begun[words[1]][1]
            elif words[:1] == ["Downloading"] and len(words) > 1:
                self.file, done, total = words[1].rsplit("/", 1)[-1].split("-")[0], 0, 0
            elif words[:1] == ["Progress"] and len(words) == 4 and words[1].isdigit() and words[3].isdigit():
                done, total = int(words[1]), int(words[3])
        files = self.files or begun
        if files:
            self.file = max(files, key=lambda name: files[name][1] - files[name][0])  # of which most is missing
            done, total = map(sum, zip(*files.values(), strict=True))
        if total - done < 5e5:  # what is left is unpacked: a bar of uv's goes before it is full
            return "" if files else self.file
        if self.first[2] != total:
            self.first = now, done, total
        since, at, _ = self.first
        left = "%d:%02d" % divmod((total - done) * (now - since) / (done - at), 60) if done > at else "?"
        return say_text("how_far", file=self.file, done="%.0f" % (done / 1e6), total="%.0f" % (total / 1e6), left=left)
