"""A run or a study as a tracker sees it: its folder, and what the tracker has noted there."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from fedsim.core.files import write_json
from fedsim.core.yaml import flat, read_yaml

FOLDER = "trackers"
"""Folder of a run or a study with a file for each tracker."""


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A run or a study, and the file in its folder in which a tracker notes what it needs to continue later."""

    folder: Path
    """Run directory, or folder of a study."""
    tracker: str
    """The tracker's name in the workload."""

    @property
    def study(self) -> "Tracked | None":
        """The study that the run belongs to: the folder above runs/REGIME/METHOD/POINT, if study.yaml is there."""
        *above, runs, _, _, _ = ("", "", "", *self._place.parts)
        study = Path(*above)
        is_point = runs == "runs" and (study / "study.yaml").is_file()
        return Tracked(folder=study, tracker=self.tracker) if is_point else None

    @property
    def name(self) -> str:
        """The folder's name; of a point its label, such as all/fedmri/seed-1."""
        return "/".join(self._place.parts[-3:]) if self.study else self._place.name

    @property
    def experiment(self) -> str:
        """What it belongs with: the name of its study, or of its own workload."""
        return str(read_yaml((self.study or self).file)["name"])

    @property
    def file(self) -> Path:
        """The workload or the study as resolved."""
        return self.folder / ("study.yaml" if self.is_study else "workload.yaml")

    @property
    def params(self) -> dict[str, str]:
        """Its keys joined by dots, with their values, without the machine and the versions."""
        content = read_yaml(self.file)
        return {key: str(value) for key, value in flat(content) if not key.startswith("provenance.")}

    @property
    def store(self) -> Path:
        """A folder for what many runs share: that of the study, or the one that the run directory lies in."""
        return self.study.folder if self.study else self.folder if self.is_study else self.folder.absolute().parent

    @property
    def is_study(self) -> bool:
        """Whether it is a study, which has no rounds of its own."""
        return (self.folder / "study.yaml").exists()

    @property
    def notes(self) -> dict[str, str | int]:
        """What was noted last; nothing at first."""
        found: dict[str, str | int] = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        return found

    def note(self, **facts: str | int) -> None:
        """Add to the notes."""
        self._file.parent.mkdir(exist_ok=True)
        write_json(self._file, {**self.notes, **facts})

    @property
    def _place(self) -> Path:
        """The folder's absolute path without `..`, so that its parents are what they seem."""
        return Path(os.path.normpath(self.folder.absolute()))

    @property
    def _file(self) -> Path:
        return self.folder / FOLDER / f"{self.tracker.replace(':', '.')}.json"
