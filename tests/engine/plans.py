"""A machine made of numbers, and the plan of a workload on it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedsim.algorithms.learner import Learner
from fedsim.engine.clock.timetable import Timetable
from fedsim.engine.federation import Federation, assemble
from fedsim.engine.host.training import make_learner
from fedsim.engine.place.machine import Machine
from fedsim.engine.place.node import Disk, Node
from fedsim.engine.plan.calibration import Calibration
from fedsim.engine.plan.fits import check_fits
from fedsim.engine.plan.plan import Plan, make_plan
from fedsim.engine.plan.times import Times, expected
from fedsim.engine.record.run_directory import setup_of
from fedsim.workload.schema import Workload

MakeWorkload = Callable[..., Workload]
GB = 1e9

TINY = ("model={name: unet, channels: 2, pools: 1}", "federation.sites.1.matrix=null")
P, Q = 270, 143
"""Parameters of the tiny network. Encoder: 3x3 convolutions 1-2, 2-2, 2-4, 4-4 have 18 + 36 + 72 + 144; decoder: 2x2
from 4 to 2, 3x3 4-2 and 2-2, 1x1 to 1 with a bias have 32 + 72 + 36 + 3."""


def disk(folder: str, free: float, number: int) -> Disk:
    return Disk(Path(folder), free, number)


def node(name: str, cpus: float = 4, **changes: Any) -> Node:
    """A node with 16 GB, of which Ray counts ten."""
    given = {"actor_memory": 10 * GB, "total_memory": 16 * GB}
    return Node(id=name, name=name, cpus=cpus, **{**given, **changes})


def machine(**changes: Any) -> Machine:
    """Two nodes with four cores and 16 GB, of which Ray counts ten; every folder has a disk of its own."""
    size = changes.pop("gpu_memory", math.inf)
    nodes = tuple(
        node(name, gpus=changes.pop(f"gpus_{name}", 0), gpu_memory=size, scratch=disk("/scratch", 100 * GB, 1))
        for name in ("one", "two")
    )
    given: dict[str, Any] = {
        "nodes": nodes, "cache": disk("/cache", 100 * GB, 2), "out": disk("/runs/x", 100 * GB, 3), "out_bytes": 0.0,
        "open_files": 1024,
    }  # fmt: skip
    return Machine(**{**given, **changes})


def with_nodes(**changes: Any) -> Machine:
    """The two nodes with other memory or disks."""
    return machine(nodes=tuple(replace(node, **changes) for node in machine().nodes))


def parts(workload: Workload) -> tuple[Federation, Learner, Timetable | None]:
    """What a plan of a settled workload needs beside a machine."""
    federation, learner = assemble(workload), make_learner(setup_of(workload))
    return federation, learner, Timetable.of(workload, federation.clients, learner)


def planned(workload: Workload, on: Machine | None = None) -> Plan:
    workload = workload.settled()
    return make_plan(workload, *parts(workload), on or machine())


def checked(workload: Workload, on: Machine) -> list[str]:
    workload = workload.settled()
    return check_fits(workload, *parts(workload), Path("x"), on)


def calibration(plan: Plan, **changes: Any) -> Calibration:
    """A second of training for every slice of 32 x 32, a tenth for what comes after, and for each validated slice."""
    pixels = 32**2
    given: dict[str, Any] = {
        "client": plan.clients[0], "pace": {"train": 1 / pixels}, "fixed": {"train": 0.1}, "reading_pace": 1 / pixels,
        "validation_pace": 0.1 / pixels, "shard_pace": 0.0, "private_bytes": 0, "growth_bytes": 0, "sent": {},
        "layout": (),
    }  # fmt: skip
    return Calibration(**{**given, **changes})


def times(workload: Workload, on: Machine | None = None) -> Times:
    """Of a plan with this calibration, and checkpoints of 1 GB."""
    plan = planned(workload, on)
    return expected(plan.workload, plan.actors, plan.machine.nodes, calibration(plan), 0.0, 1 * GB, plan.registered)
