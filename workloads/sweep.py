"""Submit a sweep from Python, wait for it, and put its scores into one table.

    python workloads/sweep.py [--cluster local] [--workload FILE] [--out runs/sweep] [--beta 0 0.1 1]

Every value of beta is a job of its own. Running the script again submits nothing twice: what runs is waited for, what
is done is read, what failed or was stopped goes on from its last checkpoint. Run folders must be visible from here, as
they are for the local cluster and for SLURM; from another cluster `fedsim jobs fetch` brings them.
"""

import argparse
from pathlib import Path

import pandas as pd

from fedsim import Run
from fedsim.jobs.sending import send
from fedsim.jobs.submission import prepare
from fedsim.jobs.targets import find_target


def main() -> None:
    """Submit, wait, collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--workload", type=Path, default=Path("workloads/quickstart.yaml"))
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--beta", nargs="+", type=float, default=[0, 0.1, 1])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    target, tables = find_target(given.cluster), []
    for beta in given.beta:
        overrides = [*given.overrides, f"algorithm.beta={beta:g}"]
        job = prepare(given.workload, overrides, given.out / f"beta-{beta:g}", target.out)
        send(target, job, print)
        status = target.wait(job.submission.id)  # in turn: a Ray cluster has no queue, and a run takes all of it
        if status.state != "succeeded":
            raise SystemExit(f"{job.submission.id}: {status.state} {status.reason}")
        tables.append(Run(job.submission.out).evaluation.assign(beta=beta))
    scores = pd.concat(tables)
    scores.to_parquet(given.out / "sweep.parquet")
    print(scores.pivot_table(index="beta", columns="client", values="psnr").round(2))


if __name__ == "__main__":
    main()
