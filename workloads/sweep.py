"""Submit a sweep from Python, wait for it, and put its scores into one table.

    python workloads/sweep.py --set-axis algorithm.beta=0,0.1,1
    python workloads/sweep.py --set-axis training.lr=1e-4,1e-3 --set-axis seed=1,2 --cluster slurm --workload FILE

Every combination of the axes' values is a separate job. Running the script again submits nothing twice: what runs is
waited for, what is done is read, what failed or was stopped resumes from its last checkpoint. Run folders must be
visible from here, as they are for the local cluster and for SLURM.
"""

import argparse
import itertools
import logging
import re
from pathlib import Path

import fedsim


def axis(text: str) -> list[str]:
    """KEY=VALUE for each value of KEY=VALUE,VALUE,...; a comma in [ ] or { } divides no values."""
    key, _, values = text.partition("=")
    if not values:
        raise argparse.ArgumentTypeError(f"{text}: must be KEY=VALUE,VALUE,..., for example training.lr=1e-4,1e-3")
    return [f"{key}={value}" for value in re.split(r",(?![^\[{]*[\]}])", values)]


def main() -> None:
    """Submit, wait, collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--workload", type=Path, default=Path("workloads/quickstart.yaml"))
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--set-axis", dest="axes", type=axis, action="append", required=True, metavar="KEY=VALUE,...")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    jobs = []
    for point in itertools.product(*given.axes):
        name = re.sub(r"[^A-Za-z0-9.=_-]+", "-", "_".join(point))
        jobs.append(fedsim.submit(given.workload, given.cluster, [*given.overrides, *point], given.out / name))
    fedsim.wait(jobs)
    scores = fedsim.collect(jobs)
    scores.to_parquet(given.out / "sweep.parquet")
    keys = [settings[0].partition("=")[0] for settings in given.axes]
    print(scores.pivot_table(index=keys, columns="client", values="psnr").round(2))


if __name__ == "__main__":
    main()
