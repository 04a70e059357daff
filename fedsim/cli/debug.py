"""fedsim debug: repeat one client's training in one round, in the foreground."""

import pdb
from typing import Annotated

import typer

from fedsim.cli.common import OfRun, RunFolder, Trust, out
from fedsim.core.errors import ClientError
from fedsim.engine.record.run_folder import check_run


def debug(
    run_dir: RunFolder,
    client: Annotated[str, typer.Option(help="Client that trains again.")],
    round_: Annotated[int, typer.Option("--round", min=1, help="Round to repeat; needs the checkpoint before it.")],
    debugger: Annotated[bool, typer.Option("--pdb", help="Stop in the debugger where the client fails.")] = False,
    overrides: OfRun = None,
    trust: Trust = False,
) -> None:
    """Repeat one client's training in one round, in this process, from the checkpoint before it; writes nothing."""
    check_run(run_dir)
    from fedsim.engine.record.run_directory import Run
    from fedsim.engine.simulation import Simulation

    here = [*(overrides or []), "engine.backend=serial", "engine.client_timeout_s=null"]
    opened = Run(run_dir, here, trust=trust or None)
    with Simulation(opened.runnable, run_dir, resume=True, writes=False) as simulation:
        try:
            row = simulation.debug(client, round_)
        except ClientError as error:
            if debugger:
                pdb.post_mortem((error.__cause__ or error).__traceback__)
            raise
    before = ""
    if (opened.path / "clients.parquet").exists():
        rows = opened.clients.query("client == @client and round == @round_ and outcome == 'trained'")
        before = f" (in the run: {rows['loss'].iloc[0]:.6g})" if len(rows) else ""
    out.print(
        f"client {client}, round {round_}: {row['steps']} steps in {row['train_seconds']:.2f} s, "
        f"loss {row['loss']:.6g}{before}", soft_wrap=True, highlight=False,
    )  # fmt: skip
