"""The commands that use a run: evaluate, unseen, reconstruct and report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedsim.cli.common import Address, OfRun, Round, RunFolder, Trust, out
from fedsim.core.errors import InputError
from fedsim.core.terminal import print_whole
from fedsim.engine.record.run_folder import check_run, is_run

if TYPE_CHECKING:
    from fedsim.data.split import Part
    from fedsim.engine.record.run_directory import Run


def evaluate(
    run_dir: RunFolder,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Part of the data.")] = "test",
    which: Round = "best",
    save_images: Annotated[bool, typer.Option("--save-images", help="Write images/<client>/<volume>.h5.")] = False,
    cross: Annotated[
        bool, typer.Option("--cross", help="Score every client's model on every site's data, into cross.parquet.")
    ] = False,
    overrides: OfRun = None,
    trust: Trust = False,
    address: Address = None,
) -> None:
    """Score every client of a run, volume by volume, into evaluation.parquet."""
    check_run(run_dir)
    from fedsim.engine.record.claim import Claim

    if cross:
        if save_images or address:
            raise InputError("--cross: runs in this process and saves no images; leave out --save-images and --address")
        opened = _opened(run_dir, overrides, trust)
        with Claim(run_dir):
            _evaluate_across(opened, split, which)
        return
    from fedsim.cli.tables import evaluation_tables
    from fedsim.engine.record.run_directory import Run
    from fedsim.engine.simulation import Simulation

    loaded = Run(run_dir, overrides or [], trust=trust or None).runnable
    with Simulation(loaded, run_dir, resume=True, address=address) as simulation:
        frame = simulation.evaluate(split, which, save_images)
    if not len(frame):
        raise InputError(f"{run_dir}: no client has data in the {split} split")
    for table in evaluation_tables(frame):
        print_whole(table, out)
    if save_images:
        from fedsim.analysis.reconstruct import beside_fastmri

        out.print(f"images: {run_dir / 'images'}", soft_wrap=True, highlight=False)
        if note := beside_fastmri(loaded):
            out.print(note, soft_wrap=True, highlight=False)


def unseen(
    run_dir: RunFolder,
    slices: Annotated[
        str, typer.Option(help="Numbers of slices of the site to adapt with, separated by commas; all for every slice.")
    ] = "0,4,16",
    which: Round = "best",
    out_file: Annotated[Path | None, typer.Option("--out", help="Table to write; default RUN/unseen.parquet.")] = None,
    overrides: OfRun = None,
    trust: Trust = False,
) -> None:
    """Score a run on the sites that took no part in it: as it is, and after adapting to a few of their slices."""
    from fedsim.analysis.budgets import parse_budgets

    budgets = parse_budgets(slices)
    check_run(run_dir)
    from fedsim.analysis.unseen import line_of, unseen_table
    from fedsim.analysis.unseen import unseen as serve
    from fedsim.engine.record.claim import Claim
    from fedsim.engine.record.ledger import write_table

    opened = _opened(run_dir, overrides, trust)
    path = out_file or run_dir / "unseen.parquet"
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--out {path}: must be a file in a folder that exists")
    with Claim(run_dir):
        frame = serve(
            opened, budgets, which, tell=lambda served: out.print(line_of(served), soft_wrap=True, highlight=False)
        )
        write_table(path, frame)
    print_whole(unseen_table(frame), out)
    out.print(f"table: {path}", soft_wrap=True, highlight=False)


def reconstruct(
    run_dir: RunFolder,
    file: Annotated[Path, typer.Argument(help="File or folder with images or k-space.", metavar="FILE")],
    client: Annotated[str, typer.Option(help="Client whose model to use.")],
    which: Round = "best",
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for <volume>.h5.")] = Path("reconstructed"),
    trust: Trust = False,
) -> None:
    """Reconstruct a file with a client's model, using the client's mask, or the file's own if it is undersampled."""
    check_run(run_dir)
    from fedsim.analysis.reconstruct import reconstruct_file

    for path, result in reconstruct_file(_opened(run_dir, None, trust), client, file, which, out_dir):
        out.print(f"{path}: {result}", soft_wrap=True, highlight=False)


def report(
    run_dir: Annotated[
        Path, typer.Argument(help="Run directory, a study's folder, or a folder of them.", metavar="RUN|STUDY|FOLDER")
    ],
    trust: Trust = False,
) -> None:
    """Draw a run's figures and write its report.html, a study's tables and figures, or a page over a folder of runs.

    Runs none of the code that they hold, unless --trust is given.
    """
    if not run_dir.is_dir():
        check_run(run_dir)
    from fedsim.report.conclude import conclude
    from fedsim.report.report import write_report

    if (run_dir / "study.yaml").is_file():
        conclude(run_dir, out, trust=trust)
        return
    if not is_run(run_dir):
        from fedsim.report.runs_page import write_runs_page

        out.print(f"page: {write_runs_page(run_dir)}", soft_wrap=True, highlight=False)
        return
    out.print(f"report: {write_report(run_dir, trust=trust)}", soft_wrap=True, highlight=False)


def _opened(run_dir: Path, overrides: list[str] | None, trust: bool) -> "Run":
    """Open a run with overrides of keys that a resumed run may change."""
    from fedsim.engine.record.resuming import check_goes_on
    from fedsim.engine.record.run_directory import Run

    opened = Run(run_dir, overrides or [], trust=trust or None)
    check_goes_on(run_dir, opened.workload.settled())
    return opened


def _evaluate_across(opened: "Run", split: "Part", which: str) -> None:
    from fedsim.analysis.cross_site import cross_evaluate
    from fedsim.report.cross_view import cross_table, write_cross

    frame = cross_evaluate(opened, which, split)
    picture = write_cross(opened, frame)
    print_whole(cross_table(frame), out)
    out.print(f"table: {opened.path / 'cross.parquet'}\npicture: {picture}", soft_wrap=True, highlight=False)
