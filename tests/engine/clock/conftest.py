"""A federation for which simulated time is computed; nothing is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.clock.turns import Step
from fedsim.engine.federation import assemble
from fedsim.workload.reading import load_workload

FEDERATION = """
name: clocked
seed: 5
model: {{channels: 2, pools: 1}}
algorithm: {{name: fedavg}}
federation:
  split: {{train: 0.5, val: 0.25, test: 0.25}}
  matrix: [32, 32]
  cache: {cache}
  sites:
"""
"""A workload whose sites, training and time follow; with a folder for `cache`."""
UP, DOWN = 1.25e6, 2.5e6
HOSPITALS = (
    FEDERATION
    + """
    - {{name: A, source: &images {{format: phantom, subjects: 4, slices: 5, size: 32}}}}
    - {{name: B, source: *images, time: {{compute: {{samples_per_s: 5}}}}}}
    - {{name: C, source: *images, time: {{compute: {{samples_per_s: 2}}}}}}
training: {{rounds: 9}}
time: {{compute: {{samples_per_s: 10}}, uplink_mbps: 10, downlink_mbps: 20}}
"""
)
Make = Callable[..., Timetable]
Told = list[tuple[str, float, float, int, str]]


@pytest.fixture
def make(tmp_path: Path, cache: Path) -> Make:
    """Makes the timetable of the three hospitals, with overrides."""
    (tmp_path / "paper.yaml").write_text(HOSPITALS.format(cache=cache))

    def make(*overrides: str) -> Timetable:
        workload = load_workload(tmp_path / "paper.yaml", overrides).settled()
        return Timetable(workload, assemble(workload).clients, UP, DOWN)

    return make


def told(step: Step) -> Told:
    """Client, begin, end, staleness and outcome of each turn."""
    return [(turn.client, turn.begin_s, turn.end_s, turn.staleness, turn.outcome) for turn in step.turns]


def steps(timetable: Timetable, rounds: int) -> list[Step]:
    return [timetable.step(round_) for round_ in range(1, rounds + 1)]
