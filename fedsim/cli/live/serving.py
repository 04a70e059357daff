"""fedsim watch --web: the page of a folder, until Ctrl-C."""

from pathlib import Path

from rich.console import Console

from fedsim.cli.live.overview import LiveFolder, LiveStudy
from fedsim.cli.live.run import LiveRun
from fedsim.cli.live.server import LiveServer, tunnel
from fedsim.cli.live.subject import Subject
from fedsim.engine.record.run_directory import Run
from fedsim.engine.record.run_folder import is_run
from fedsim.study.frozen import open_study


def subject_of(path: Path) -> Subject:
    """What is in a folder that exists: a run, a study, or runs and studies below it.

    Raises:
        InputError: none of these.
    """
    name = path.resolve().name
    if (path / "study.yaml").is_file():
        open_study(path)
        return LiveStudy(path, name)
    if is_run(path):
        Run(path)
        return LiveRun(path, name)
    return LiveFolder(path)


def serve(path: Path, console: Console) -> None:
    """Serve the page of a folder until Ctrl-C, which is its ordinary end.

    Raises:
        InputError: the folder holds neither a run nor a study.
    """
    server = LiveServer(subject_of(path))
    try:
        lines = (f"page: {server.address}", f"from another machine: {tunnel(server.server_port)}",
                 "the address is for you alone; Ctrl-C closes the page and leaves the run running")  # fmt: skip
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("closed the page; the run or study itself keeps running")
    finally:
        server.close()
