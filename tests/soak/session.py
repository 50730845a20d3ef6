"""One training in a pseudo-terminal, and what it says there: every line is either expected or told as strange."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TextIO

import pexpect  # type: ignore[import-untyped]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_END = re.compile(r"(\r*\n|\r+(?=[^\r\n]))")  # what follows a \r decides: half an end waits for the rest
_MORE = r"(\[(avg [^\]]+|data \d+%|\S+ (it/s|s/it)|[\d:d ]+ left|[\d.]+ GB)\])*"
STEP = re.compile(r"\[\d\d:\d\d:\d\d\]\[#(\d+)\]\[[\d.]+m?s\](\[(\d+\.\d{4}|nan|inf)\])*" + _MORE + r"( Saved\.)?")
SUMMARY = re.compile(r"==\s+Current iteration: (\d+)\s+==")
EXPECTED = [
    re.compile(pattern)
    for pattern in (
        r"Running trainer\.",
        r"(src|dst): \d+ faces: .*",
        r"Loading soak_SAEHD model\.\.\.",
        r"The same run again: .*",
        r"\w+_loss has hardly moved for .*",
        r"Press enter in \d+ seconds to override model settings\..*",  # and what was drawn anew of it
        r"(Loading|Initializing|Starting|First) [\w ]+\.\.\.( \d+\.\d s)?",
        r"Faces kept in memory: .*\.",
        r"==.*==",
        r'Starting\. Press "Enter" to stop training and save model\.',
        r"Saving\.\.\.\. *",
        r"Backup made: .*",
        r"Done\.",
        # after a kill
        r"The save of iteration [\d,]+ was interrupted; all its files are there, so it is completed\.",
        r"A save was interrupted before all its files were there: it is undone, the save before it stays\.",
        # switched on
        r"(GAN|code_discriminator), \w+: not saved with the model yet, so fresh\.",
        # what is done to it
        r"Warning: SIG(TERM|HUP): saving and leaving within \d+ s\. The save of iteration [\d,]+ stands in .*",
        r"Warning: a sample worker \(process \d+\) ended unexpectedly \(SIGKILL\); another takes over its work",
        r"Warning: The preview window('s process ended \(SIGKILL\)| was closed)\. Previews go to JPG files in .*",
        r"Enter takes the value in brackets, .*",
    )
]


class Heard:
    """What a trainer says, line by line. iteration: the last that was shown; stored: of the model that was loaded;
    saved: the last that was told to be on the disk; strange: lines that nobody expects; running: it trains; done: it
    said so at the end."""

    def __init__(self, log: TextIO) -> None:
        self._log, self._rest = log, ""
        self.iteration = self.stored = self.saved = self.backups = self.deaths = 0
        self.judging, self.running, self.done = True, False, False
        self.strange: list[str] = []

    def write(self, text: str) -> None:
        self._log.write(text)
        *pairs, self._rest = _END.split(self._rest + text)
        for line, end in zip(pairs[::2], pairs[1::2], strict=True):
            self._take(_ANSI.sub("", line).rstrip(), "\n" in end)

    def flush(self) -> None:
        self._log.flush()

    def _take(self, line: str, stays: bool) -> None:
        if found := STEP.fullmatch(line):
            self.iteration = int(found[1])
            if stays:
                self.saved = self.iteration
        elif found := SUMMARY.fullmatch(line):
            self.stored = int(found[1])
        elif self.judging and line and not any(pattern.fullmatch(line) for pattern in EXPECTED):
            self.strange.append(line[:300])
        self.running |= line.startswith("Starting.")
        self.done |= line == "Done."
        self.backups += line.startswith("Backup made:")
        self.deaths += "ended unexpectedly" in line


class Session(Heard):
    """A trainer in a terminal of its own."""

    def __init__(self, words: list[str], environ: dict[str, str], log: TextIO, cwd: Path) -> None:
        super().__init__(log)
        self.child = pexpect.spawn(
            words[0], words[1:], cwd=str(cwd), env=environ, encoding="utf-8", codec_errors="replace", timeout=60,
            dimensions=(40, 200), echo=False,
        )  # fmt: skip
        self.child.logfile_read = self

    def pump(self, seconds: float) -> None:
        """Reads what comes for so long."""
        end = time.monotonic() + seconds
        with contextlib.suppress(pexpect.EOF):
            while (left := end - time.monotonic()) > 0:
                with contextlib.suppress(pexpect.TIMEOUT):
                    self.child.read_nonblocking(65536, left)

    def hang_up(self) -> None:
        """Closes the terminal under it."""
        self.child.ptyproc.fileobj.close()
        self.child.ptyproc.closed = self.child.closed = True
        self.child.ptyproc.fd = self.child.child_fd = -1

    def ended(self, seconds: float) -> bool:
        """Whether it ends within so long."""
        end = time.monotonic() + seconds
        while self.child.isalive() and time.monotonic() < end:
            if self.child.closed:
                time.sleep(0.1)
            else:
                self.pump(0.1)
        return not self.child.isalive()

    def code(self) -> int:
        """Of the ended process: its exit code, or the number of the signal, negative."""
        exit_, signal_ = self.child.ptyproc.exitstatus, self.child.ptyproc.signalstatus
        return exit_ if exit_ is not None else -signal_
