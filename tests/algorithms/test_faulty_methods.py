"""Whatever a user's method does wrong is shown as the method's: its hook, the round, one line, status 1."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsim.cli import app as cli
from fedsim.core.errors import ClientError, MethodError
from fedsim.engine.federation import assemble
from fedsim.engine.host.diverged import COLUMNS
from fedsim.engine.host.training import make_learner
from fedsim.engine.place.machine import machine_of
from fedsim.engine.plan.calibration import calibrate
from fedsim.engine.plan.fits import plan_run
from fedsim.engine.plan.plan import make_plan
from fedsim.engine.record.run_directory import setup_of
from fedsim.engine.simulation import run
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload
from fedsim.workload.time import Hierarchy, Time
from tests.conftest import every
from tests.engine.plans import parts

from .conftest import assert_equal, load, small

HEAD = """
import sys
import numpy as np
import torch
from fedsim.algorithms.base import Algorithm, Phase, Upload

class Stop(BaseException):
    pass

class Mine(Algorithm):
"""
HOOKS = {
    "settled": "settled(self, cohort)", "shares": "shares(self, parameter)",
    "phases": "phases(self, cohort, round_, seed)",
    "uploads": "uploads(self, phase)", "broadcast": "broadcast(self, server, phase)",
    "downlink": "downlink(self, client, broadcast, phase)", "update": "update(self, server, received)",
    "train": "train(self, learner, received, phase)", "regulariser": "regulariser(self, learner, received)",
    "receive": "receive(self, learner, received)", "deploy": "deploy(self, learner, received)",
    "warnings": "warnings(self, steps_per_epoch, parameters)",
}  # fmt: skip
RAISES = ("raise ValueError('boom')", "sys.exit(0)", "raise Stop('boom')", "raise GeneratorExit")
NONSENSE = {
    "settled": ("None", "3"),
    "shares": ("None", "'yes'", "torch.ones(2)"),
    "phases": (
        "None", "[]", "['train']", "[Phase(())]", "[Phase(('nobody',))]", "[Phase(cohort, '')]", "Phase(cohort)",
    ),
    "uploads": (
        "None", "['shared']", "[Upload('shared'), Upload('shared')]", "[Upload('buffers')]", "[Upload('other')]",
    ),
    "broadcast": (
        "None", "[1]", "{'shared': torch.ones(3)}", "{'shared': [1.0]}", "{3: server['shared']}",
        "{'shared': server['shared'] * np.nan}", "{'shared': server['shared'].astype(int)}",
        "{'other': server['shared']}", "{'shared': server['shared'][:3]}",
        "server['shared'].__imul__(0.9) is None or {'shared': server['shared']}",
    ),
    "downlink": ("None", "['nothing']", "3"),
    "update": (
        "None", "[1]", "{}", "{'shared': None}", "{'shared': received.mean('shared')[:3]}", "{'shared': torch.ones(3)}",
        "{'shared': received.mean('shared') * np.nan}", "{'shared': received.mean('shared').astype(int)}",
        "{**server, 'mine': 'text'}", "{**server, 3: server['shared']}", "{'other': server['shared']}",
        "{'shared': received.mean('other')}", "{'shared': np.float32(3)}", "{'shared': received.mean('shared')[None]}",
    ),
    "train": (
        "None", "[1]", "{}", "{'shared': None}", "{'shared': learner.shared.numpy()}",
        "{'shared': learner.shared[None]}",
        "{'shared': learner.shared.int()}", "{'shared': learner.shared * torch.nan}", "{'shared': torch.ones(())}",
        "learner.private.update(mine=3) or {'shared': learner.shared}",
        "{'shared': torch.full_like(learner.shared, 1e38)}",
        "received.clear() or {'shared': learner.shared}", "received.update(extra=3) or {'shared': learner.shared}",
        "learner.note('loss', 'x') or {'shared': learner.shared}",
        "learner.private.clear() or {'shared': learner.shared}",
        "{'shared': torch.ones(3 + int(learner.client == 'B'))}",
    ),
    "regulariser": ("3", "lambda: 1 / 0", "lambda: sys.exit(0)", "lambda wrong: None"),
    "receive": ("learner.shared.copy_(received['other'])", "learner.shared.copy_(torch.ones(3))"),
    "deploy": ("learner.shared.copy_(received['other'])", "learner.shared.fill_(torch.nan)"),
    "warnings": ("None", "'text'", "[3]"),
}  # fmt: skip
SURFACES = {"uploads": "train", "broadcast": "receive"}
"""Where a value that only others can find wrong is found wrong."""
CASES = [(hook, body) for hook in HOOKS for body in RAISES]
CASES += [(hook, f"return {value}") for hook, values in NONSENSE.items() for value in values]


@pytest.fixture
def mine(tmp_path: Path, cache: Path) -> Callable[..., Workload]:
    """A workload whose method overrides one hook."""

    def make(hook: str, body: str, *overrides: str) -> Workload:
        sys.modules.pop("mine", None)
        (tmp_path / "mine.py").write_text(f"{HEAD}    def {HOOKS[hook]}:\n        {body}\n")
        (tmp_path / "w.yaml").write_text(write_yaml({**small(cache), "algorithm": {"name": "mine:Mine"}}))
        return load_workload(tmp_path / "w.yaml", ["training.rounds=1", *overrides])

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("hook", "body"), every(5, CASES))
def test_a_fault_is_shown_as_the_methods(mine: Callable[..., Workload], tmp_path: Path, hook: str, body: str) -> None:
    with pytest.raises((MethodError, ClientError)) as error:
        run(mine(hook, body), tmp_path / "run")
    said = str(error.value)
    assert "\n" not in said
    assert re.search(rf"\b({hook}|{SURFACES.get(hook, hook)})\b", said), said
    assert "mine:Mine" in said or "train returned 4 values where other clients returned 3" in said
    assert "Traceback" in error.value.trace or "values" in said or "finite" in said


NORMED = """mean = received.mean('shared')
        return {'shared': mean / np.abs(mean).max(), 'kept': np.ones(7, np.float32)}"""


@pytest.mark.slow
def test_a_method_that_cannot_be_told_from_zeros_is_planned_from_what_a_client_sends(
    mine: Callable[..., Workload], tmp_path: Path
) -> None:
    """Zeros have no norm: the plan of FedAvg, without the vector that this server keeps, would be another method's."""
    workload = mine("update", NORMED).settled()
    learner = make_learner(setup_of(workload))
    machine = machine_of(workload, tmp_path / "run")
    untold = make_plan(workload, assemble(workload), learner, None, machine).traffic
    assert not untold.phases
    assert "in update of mine:Mine" in untold.unknown
    told = plan_run(workload, tmp_path / "run").traffic
    assert (told.unknown, told.server) == ("", learner.shared.nbytes + 4 * 7)
    assert told.phases["train"].up == learner.shared.nbytes


def test_an_exception_on_what_a_client_sent_is_no_plan(mine: Callable[..., Workload], tmp_path: Path) -> None:
    workload = mine("update", "raise ValueError('boom')").settled()
    calibration = calibrate(mine("deploy", "self.receive(learner, received)").settled(), assemble(workload).clients)
    with pytest.raises(MethodError, match=r"round 1: ValueError: boom \(in update of mine:Mine\)"):
        make_plan(workload, *parts(workload), machine_of(workload, tmp_path), calibration)


ON_RAY = [("train", "sys.exit(0)"), ("downlink", "raise Stop('boom')"), ("train", f"return {NONSENSE['train'][-1]}")]


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("hook", "body"), ON_RAY)
def test_it_is_shown_on_ray(mine: Callable[..., Workload], tmp_path: Path, hook: str, body: str) -> None:
    found = r"mine:Mine|returned [34] values where other clients returned [34]"  # whoever answers first
    with pytest.raises((MethodError, ClientError), match=found) as error:
        run(mine(hook, body, "engine.backend=ray", "engine.clients_per_actor=2"), tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_it_is_shown_on_the_command_line(
    mine: Callable[..., Workload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for hook, where in (("update", "round 1"), ("train", "client A.1, round 1, seed 3")):
        mine(hook, "sys.exit(0)")
        for command in (["run", "--out", str(tmp_path / hook)], ["plan"]):
            sys.modules.pop("mine", None)
            monkeypatch.setattr(sys, "argv", ["fedsim", *command, str(tmp_path / "w.yaml")])
            with pytest.raises(SystemExit) as exit_:
                cli.main()
            err = capsys.readouterr().err
            assert exit_.value.code == 1
            last = err.strip().splitlines()[-1]
            assert last.startswith("fedsim: ")
            assert f"SystemExit: 0 (in {hook} of mine:Mine)" in last
            assert "Traceback (most recent call last)" in err
            assert 'mine.py", line' in err
            if command[0] == "run":
                assert where in last


CHANGES = {
    "train": ("received['shared'].mul_(0.5)", "received['shared'].data.mul_(0.5)", "received['shared'].numpy()[:] = 0",
              "received['shared'][3:5] = 0", "torch.add(received['shared'], 1, out=received['shared'])"),
    "receive": ("learner.shared.copy_(received['shared'].add_(1))",),
    "regulariser": ("received['shared'].zero_()",),
    "deploy": ("learner.shared.copy_(received['shared'].add_(1))",),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["serial", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long])])
def test_what_was_received_is_not_changed(mine: Callable[..., Workload], tmp_path: Path, backend: str) -> None:
    keys = [f"engine.backend={backend}", "engine.clients_per_actor=2", "engine.on_client_error=drop"]
    cases = [(hook, change) for hook, changes in CHANGES.items() for change in changes]
    for number, (hook, change) in enumerate(cases if backend == "serial" else cases[:3]):
        body = f"{change}; return super().{hook}(*[v for k, v in locals().items() if k not in ('self', '__class__')])"
        with pytest.raises(MethodError, match=r"round 1: mine:Mine changed what it received, 'shared', in place"):
            run(mine(hook, body, *keys), tmp_path / f"run-{number}")


def test_what_is_left_on_the_learner_is_not_there_for_the_next_client(
    mine: Callable[..., Workload], tmp_path: Path
) -> None:
    """Or the bits would depend on which clients share an actor."""
    body = "before = getattr(learner, 'mine', 0.0); learner.mine = 1.0; return {'shared': learner.shared.fill_(before)}"
    shared = load(run(mine("train", body), tmp_path / "run"), 1, "shared")
    assert shared
    assert not any(values.any() for values in shared.values())


@pytest.mark.slow
def test_an_update_of_another_precision_is_made_float32(mine: Callable[..., Workload], tmp_path: Path) -> None:
    """By the server and by clients; a resumed run could not tell otherwise."""
    same = run(mine("update", "return {'shared': received.mean('shared')}"), tmp_path / "same")
    double = mine("update", "return {'shared': received.mean('shared').astype(np.float64)}")
    assert_equal(load(same, 1, "shared"), load(run(double, tmp_path / "double"), 1, "shared"))


def test_clients_that_train_as_one_network_are_not_blamed_by_name(
    mine: Callable[..., Workload], tmp_path: Path
) -> None:
    """While one changes what all of them read, another may end first."""
    body = "received['shared'].mul_(0.5); return super().train(learner, received, phase)"
    with pytest.raises(MethodError, match=r"^round 1: mine:Mine changed what it received, 'shared', in place"):
        run(mine("train", body, "training.fuse=2"), tmp_path / "run")


@pytest.mark.parametrize("name", ["round", "steps", "psnr"])
def test_a_note_takes_no_column_of_the_ledger(mine: Callable[..., Workload], tmp_path: Path, name: str) -> None:
    body = f"learner.note({name!r}, 3); return super().train(learner, received, phase)"
    said = rf"^client A\.1, round 1: train of mine:Mine noted '{name}', which is a column of the ledger already; choose"
    with pytest.raises(MethodError, match=said):
        run(mine("train", body), tmp_path / "run")


def test_every_column_is_known_to_be_one(mine: Callable[..., Workload], tmp_path: Path) -> None:
    body = "learner.note('own', 3); return super().train(learner, received, phase)"
    timed = mine("train", body).model_copy(update={"time": Time(latency_s=1.0, hierarchy=Hierarchy(regions=2))})
    assert {*run(timed, tmp_path / "run").clients} == COLUMNS | {"loss", "own"}


@pytest.mark.parametrize("fuse", [1, 2])
@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.')",
            "the GPU has no memory left; lower training.batch_size, training.fuse or engine.device_memory",
        ),
        (
            "RuntimeError('put_ does not have a deterministic implementation, but you set ...')",
            "torch has no deterministic put_; set engine.deterministic to false",
        ),
    ],
)
def test_what_a_gpu_cannot_do_names_the_key_to_change(
    mine: Callable[..., Workload], tmp_path: Path, raised: str, said: str, fuse: int
) -> None:
    with pytest.raises(ClientError) as error:
        run(mine("train", f"raise {raised}", f"training.fuse={fuse}"), tmp_path / "run")
    assert re.match(rf"client [\w.]+, round 1, seed 3: {re.escape(said)}; to reproduce it: ", str(error.value))
