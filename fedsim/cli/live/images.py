"""The newest reconstruction that a run directory holds, as markup of the page."""

from fedsim.cli.live.subject import reason
from fedsim.core.errors import InputError
from fedsim.engine.record.run_directory import Run
from fedsim.report.page import part
from fedsim.report.saved import newest_panel, newest_volume, panel_of_saved, stack_of_saved

_WRITTEN_AFTER_IMAGES = ("evaluation.parquet", "report.html")


class NewestImage:
    """A saved volume in the image viewer, or a panel of the report, whichever is newer."""

    def __init__(self) -> None:
        self.markup = ""
        """Empty if the run has no images yet."""
        self.unreadable = ""
        """Why they cannot be shown."""
        self._stamps: list[int] | None = None

    def look(self, run: Run) -> None:
        """Search again if an evaluation or a report was written since the last look."""
        files = (run.path / name for name in _WRITTEN_AFTER_IMAGES)
        stamps = [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self.markup, self.unreadable = _markup(run), ""
        except (InputError, OSError) as error:
            self.unreadable = reason(error)


def _markup(run: Run) -> str:
    volume, panel = newest_volume(run.path), newest_panel(run.path)
    if volume and (panel is None or volume.stat().st_mtime >= panel.stat().st_mtime):
        return part("viewer", [stack_of_saved(run, volume)])
    if panel is None:
        return ""
    shown = panel_of_saved(panel)
    return part(
        "picture", {**shown, "caption": f"{shown['title']}; the report shows every site: {run.path / 'report.html'}"}
    )
