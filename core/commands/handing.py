"""`export --to ollama` and `--to lmstudio`: finds the program before the export and gives it the file afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from core.commands.terminal import say
from core.errors import GarageError
from core.export import lmstudio, other_programs
from core.export.ollama import program
from core.export.records import ExportResult
from core.messages import Message, msg
from core.models.library import Models
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace


@dataclass(frozen=True)
class Receiver:
    """The program that receives the file of an export."""

    to: str
    lmstudio: Path | None = None
    ollama: Path | None = None

    @classmethod
    def find(cls, to: str, space: Workspace, run: RunFolder) -> Receiver:
        """Return the receiver of an export to `to`, with the place of LM Studio's folder or of the Ollama program;
        without either for other targets, or if Ollama is not installed. Raises ExportError if LM Studio's folder is
        missing, or Ollama is too old for this model family."""
        if to == "lmstudio":
            return cls(to, lmstudio=lmstudio.require_folder())
        ollama = program.find() if to == "ollama" else None
        if ollama:
            try:
                model_type = Models(space).shape(run.recipe().model.id).model_type
            except GarageError:  # the export itself reports it
                return cls(to, ollama=ollama)
            program.check_version(ollama, model_type)
        return cls(to, ollama=ollama)

    def hand_over(self, result: ExportResult, folder: Path, quiet: bool) -> dict[str, object]:
        """Give the exported file to the program, or print the commands that use it elsewhere, and return what --json
        prints. Raises ExportError; the file always stays."""
        file = folder / result.gguf
        if self.lmstudio:
            placed = lmstudio.place(file, result.run_name, self.lmstudio)
            self._say(quiet, msg("gguf.in_lmstudio", file=placed))
            return {"lmstudio": str(placed)}
        if self.ollama:
            return {"ollama": self._give(self.ollama, result, folder, quiet)}
        commands = other_programs.commands(result, folder)
        if self.to == "ollama":
            self._say(quiet, msg("ollama.not_there", file=file, command=commands[0][1].partition("\n")[0]))
        for key, command in commands:
            self._say(quiet, msg(f"elsewhere.{key}"), *(f"  {line}" for line in command.splitlines()))
        return {"commands": {key.removeprefix("in_"): command for key, command in commands}}

    def _give(self, ollama: Path, result: ExportResult, folder: Path, quiet: bool) -> dict[str, object]:
        """Create the model in Ollama, print its first answer and return both. Ctrl-C ends the command with code 3."""
        name = other_programs.ollama_name(result)
        try:
            given = program.create_model(
                ollama, name, folder / "Modelfile", lambda stage: self._say(quiet, msg(f"ollama.{stage}"))
            )
        except KeyboardInterrupt:
            say(msg("ollama.cancelled"))
            raise typer.Exit(3) from None
        if given.replaced:
            self._say(quiet, msg("ollama.replaced", name=name))
        self._say(quiet, msg("ollama.answered", name=name, question=program.QUESTION, answer=given.answer))
        self._say(quiet, msg("ollama.talk", command=f"ollama run {name}"))
        return {"name": name, "question": program.QUESTION, "answer": given.answer, "replaced": given.replaced}

    def _say(self, quiet: bool, *words: Message | str) -> None:
        """Print each of words on stderr, unless quiet."""
        if not quiet:
            for each in words:
                say(each)
