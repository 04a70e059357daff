import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from fedsim import Run, run
from fedsim.analysis.adaptation import adapt, deployed, error_on, few_slices, joined_network, tensors_of
from fedsim.analysis.unseen import unseen
from fedsim.core.errors import InputError
from fedsim.data.evaluation import reconstruct_volumes
from fedsim.engine.federation import assemble
from fedsim.engine.host.client import ClientSpec
from fedsim.models.base import is_encoder
from fedsim.mri.metrics import volume_quality
from fedsim.workload.schema import Workload
from tests.conftest import Fedsim, site

STEPS = (0, 2, 4)
KEYS = ["rule", "asked"]
Train = Callable[..., Run]


SITES = [
    site("A", "t1"),
    site("B", "t2"),
    site("C", "pd"),
    site("X", "flair", unseen=True, training={"batch_size": 2}, split={"train": 0.5, "val": 0.25, "test": 0.25}),
]


@pytest.fixture(scope="module")
def train(make_workload: Callable[..., Workload], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains a method on three sites, a fourth unseen; every set of overrides once."""
    done: dict[tuple[str, ...], Run] = {}

    def train(method: str, *overrides: str) -> Run:
        keys = (f"algorithm.name={method}", *overrides)
        if keys not in done:
            small = ("federation.clients=null", f"federation.sites={json.dumps(SITES)}", "model.channels=2", *keys)
            done[keys] = run(make_workload(*small), tmp_path_factory.mktemp("unseen") / "run")
        return done[keys]

    return train


@pytest.fixture(scope="module")
def fedmri(train: Train) -> Run:
    return train("fedmri")


@pytest.fixture(scope="module")
def rows(fedmri: Run) -> pd.DataFrame:
    return unseen(fedmri, [0, 2, "all"], steps=STEPS)


def newcomer(run: Run) -> ClientSpec:
    (spec,) = assemble(run.workload).unseen
    return spec


def psnr_of(network: torch.nn.Module, spec: ClientSpec) -> float:
    (volume,) = reconstruct_volumes(network, spec.data, "test", spec.training.batch_size)
    return float(volume.score("fastmri")["psnr"])


def saved(run: Run, name: str) -> dict[str, np.ndarray]:
    """A file of the best round's checkpoint."""
    return load_file(run.path / f"checkpoints/round-{run.round('best'):04d}/{name}.safetensors")


def with_tensors(run: Run, tensors: dict[str, np.ndarray]) -> torch.nn.Module:
    network = run.model("A")
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    assert not network.load_state_dict(state, strict=False).unexpected_keys
    return network


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "as_it_is", "learning"),
    [
        ("fedmri", {"mean", "ensemble"}, {"best", "fresh", "tuned"}),
        ("lg_fedavg", {"mean", "ensemble"}, {"best", "fresh", "tuned"}),
        ("fedavg", {"global"}, {"fresh", "tuned"}),
        ("ditto", {"global", "mean", "ensemble"}, {"best", "fresh", "tuned"}),
        ("single", {"mean", "ensemble"}, {"best", "fresh", "tuned"}),
        ("centralised", {"global"}, {"fresh", "tuned"}),
    ],
)
def test_every_rule_has_its_rows(train: Train, method: str, as_it_is: set[str], learning: set[str]) -> None:
    trained = train(method)
    frame = unseen(trained, [0, 2], steps=(0, 1))
    assert set(map(tuple, frame[KEYS].to_numpy())) == {(r, "0") for r in as_it_is} | {(r, "2") for r in learning}
    assert set(frame["site"]) == {"X"}
    assert set(frame["split"]) == {"test"}
    assert set(frame["algorithm"]) == {method}
    assert set(frame["slices"]) == {0, 2}
    assert np.isfinite(frame["psnr"]).all()
    assert frame["zf_psnr"].nunique() == 1


@pytest.mark.slow
def test_rows_are_the_same_every_time(fedmri: Run, rows: pd.DataFrame) -> None:
    files = {path: path.read_bytes() for path in fedmri.path.glob("unseen/X/*.safetensors")}
    names = {"fresh-2.safetensors", "tuned-2.safetensors", "fresh-all.safetensors", "tuned-all.safetensors"}
    assert {path.name for path in files} == names
    pd.testing.assert_frame_equal(unseen(fedmri, [0, 2, "all"], steps=STEPS), rows, check_exact=True)
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.slow
def test_mean_is_the_mean_of_the_clients_files(fedmri: Run, rows: pd.DataFrame) -> None:
    decoders = [saved(fedmri, f"clients/{client}") for client in "ABC"]
    names = [name for name in decoders[0] if not name.startswith("state.")]
    mean = {name: np.mean([d[name] for d in decoders], axis=0, dtype=np.float64).astype(np.float32) for name in names}
    network = with_tensors(fedmri, mean | saved(fedmri, "shared"))
    assert psnr_of(network, newcomer(fedmri)) == rows.set_index("rule").loc["mean", "psnr"]


@pytest.mark.slow
def test_ensemble_is_the_mean_of_the_images(fedmri: Run, rows: pd.DataFrame) -> None:
    data = newcomer(fedmri).data
    volumes = [next(reconstruct_volumes(fedmri.model(client), data, "test", 2)) for client in "ABC"]
    images = np.mean([volume.reconstruction for volume in volumes], axis=0, dtype=np.float64).astype(np.float32)
    quality = volume_quality(images, volumes[0].target)
    assert quality.psnr == rows.set_index("rule").loc["ensemble", "psnr"]
    assert quality.ssim == rows.set_index("rule").loc["ensemble", "ssim"]


def test_best_is_the_client_with_the_lowest_validation_error(fedmri: Run, rows: pd.DataFrame) -> None:
    spec = newcomer(fedmri)
    val = few_slices(spec.data, "val", "all")
    (row,) = rows.query("rule == 'best' and asked == 'all'").to_dict("records")
    errors = {client: error_on(fedmri.model(client), val, "val", 2) for client in "ABC"}
    assert row["client"] == min(errors, key=errors.__getitem__)
    assert row["psnr"] == psnr_of(fedmri.model(row["client"]), spec)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_global_is_the_servers_model(train: Train, norm: str) -> None:
    trained = train("fedavg", f"model.norm={norm}")
    network = trained.workload.model.build(torch.Generator().manual_seed(0))
    tensors = {name: torch.from_numpy(array) for name, array in saved(trained, "shared").items()}
    network.load_state_dict(tensors, strict=False)
    if norm == "batch":
        layout = trained.learner("A")._buffers["shared"]  # the names of the server's flat running statistics
        network.load_state_dict(layout.by_name(torch.from_numpy(saved(trained, "server")["buffers"])), strict=False)
    (row,) = unseen(trained, [0]).to_dict("records")
    assert row["rule"] == "global"
    assert row["psnr"] == psnr_of(network.eval(), newcomer(trained))


@pytest.mark.slow
def test_dittos_global_is_not_a_personal_model(train: Train) -> None:
    trained = train("ditto")
    network = with_tensors(trained, saved(trained, "shared"))
    psnr = unseen(trained, [0]).set_index("rule")["psnr"]
    assert psnr["global"] == psnr_of(network, newcomer(trained))
    assert psnr["global"] != psnr["mean"]


@pytest.mark.parametrize("budget", [1, 2, 5, "all"])
def test_few_slices_are_of_the_part_and_spread(fedmri: Run, budget: int) -> None:
    data = newcomer(fedmri).data
    few = few_slices(data, "train", budget)
    there = {(p.volume, i) for p in data.pieces if p.part == "train" for i in range(p.start, p.stop)}
    chosen = [(piece.volume, piece.start) for piece in few.pieces]
    assert len(chosen) == len(set(chosen)) == few.samples() == (budget if budget != "all" else len(there))
    assert set(chosen) <= there
    assert len({piece.subject for piece in few.pieces}) == min(len(chosen), 2)
    assert few == few_slices(data, "train", budget)
    training = fedmri.manifest.query("site == 'X' and split == 'train'")
    assert {piece.subject for piece in few.pieces} <= set(training["subject"])


def test_few_slices_depend_on_the_seed(fedmri: Run) -> None:
    data = newcomer(fedmri).data
    drawn = {tuple(p.start for p in few_slices(replace(data, seed=seed), "train", 2).pieces) for seed in range(20)}
    assert len(drawn) > 3


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_the_chosen_step_has_the_lowest_validation_error(fedmri: Run, tuned: bool) -> None:
    spec, models = newcomer(fedmri), deployed(fedmri)
    adapted = adapt(models, spec, tuned, 2, STEPS)
    assert tuple(adapted.errors) == (STEPS if tuned else STEPS[1:])
    assert adapted.errors[adapted.steps] == min(adapted.errors.values())
    val = few_slices(spec.data, "val", 2)
    assert error_on(adapted.network, val, "val", 2) == adapted.errors[adapted.steps]
    shorter = adapt(models, spec, tuned, 2, (adapted.steps,) if adapted.steps else (0,))
    for name, tensor in tensors_of(shorter.network).items():
        assert torch.equal(tensor, tensors_of(adapted.network)[name])


def test_validation_error_is_of_normalised_slices(fedmri: Run) -> None:
    data = newcomer(fedmri).data
    (batch,) = (batch for volume in data.volumes("val", 8) for batch in volume.batches)
    with torch.inference_mode():
        expected = torch.nn.functional.mse_loss(fedmri.model("A")(batch.kspace, batch.mask), batch.target)
    assert error_on(fedmri.model("A"), data, "val", 8) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedmri", "fedavg", "lg_fedavg", "fedbn"])
@pytest.mark.parametrize("tuned", [False, True])
def test_what_is_shared_stays(train: Train, method: str, tuned: bool) -> None:
    trained = train(method, "model.norm=batch")
    models = deployed(trained)
    moving = {
        "fedmri": lambda name: not is_encoder(name),
        "fedavg": lambda name: not is_encoder(name),
        "lg_fedavg": is_encoder,
        "fedbn": lambda name: "norm" in name,
    }[method]
    assert models.moving == {name for name in models.mean if moving(name)}
    adapted = tensors_of(adapt(models, newcomer(trained), tuned, 2, (3,)).network)
    start = tensors_of(trained.model("A"))
    moved = {name for name in adapted if not torch.equal(adapted[name], models.mean[name])}
    assert moved == models.moving
    assert all(torch.equal(adapted[name], start[name]) for name in adapted if name not in models.moving)


def test_fresh_begins_with_the_initial_part_and_tuned_with_the_mean(fedmri: Run) -> None:
    models, spec = deployed(fedmri), newcomer(fedmri)
    tuned = tensors_of(adapt(models, spec, True, 2, (0,)).network)
    assert all(torch.equal(tensor, models.mean[name]) for name, tensor in tuned.items())
    fresh, initial = adapt(models, spec, False, 2, (1,)), tensors_of(models.learner().network)
    for name in models.moving:
        assert not torch.equal(initial[name], models.mean[name])
    for name, tensor in tensors_of(fresh.network).items():
        distance = (tensor - (initial if name in models.moving else models.mean)[name]).abs().max()
        assert distance <= 1.001e-2 if name in models.moving else distance == 0  # RMSprop's first step is 10 lr


def test_a_joined_decoder_makes_the_same_numbers(fedmri: Run, rows: pd.DataFrame) -> None:
    for rule, asked in (("fresh", "2"), ("tuned", "all")):
        path = fedmri.path / "unseen" / "X" / f"{rule}-{asked}.safetensors"
        part = load_file(path)
        assert part
        assert not any(map(is_encoder, part))
        (row,) = rows.query("rule == @rule and asked == @asked").to_dict("records")
        assert psnr_of(with_tensors(fedmri, part), newcomer(fedmri)) == row["psnr"]
        with safe_open(path, framework="numpy") as file:
            assert json.loads(file.metadata()["fedsim"]) == {"round": fedmri.round("best"), "steps": row["steps"]}


def test_a_site_that_joined_has_a_network(fedmri: Run, rows: pd.DataFrame) -> None:
    (row,) = rows.query("rule == 'tuned' and asked == 'all'").to_dict("records")
    assert psnr_of(joined_network(fedmri, "X"), newcomer(fedmri)) == row["psnr"]
    with pytest.raises(InputError, match="takes no part in"):
        joined_network(fedmri, "Y")


def test_all_is_every_training_slice(rows: pd.DataFrame) -> None:
    assert set(rows.loc[rows["asked"] == "all", "slices"]) == {6}


def test_more_slices_than_there_are_is_refused_before_anything_is_done(fedmri: Run) -> None:
    with pytest.raises(InputError, match="--slices 7: site X has 6 training slices"):
        unseen(fedmri, [0, 7], tell=lambda served: pytest.fail("too late"))


@pytest.mark.slow
def test_a_site_without_the_data_is_refused(make_workload: Callable[..., Workload], tmp_path: Path) -> None:
    lacking = [*SITES[:3], {**SITES[3], "split": {"train": 0, "val": 0.5, "test": 0.5}}]
    trained = run(make_workload(f"federation.sites={json.dumps(lacking)}", "training.rounds=1"), tmp_path / "run")
    with pytest.raises(InputError, match=r"site X: has no train slices; .* or .* --slices 0"):
        unseen(trained, [0, 1])
    assert len(unseen(trained, [0])) == 2 * 2  # two test volumes, mean and ensemble


def test_on_the_command_line(fedsim: Fedsim, fedmri: Run, finished: Run, tmp_path: Path) -> None:
    keys = "--slices", "0", "--set", "metrics.references=[tv]"
    status, out, err = fedsim("unseen", fedmri.path, *keys, "--out", tmp_path / "table.parquet")
    assert status == 0, err
    assert "ensemble" in out
    assert "PSNR [dB]" in out
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert len(table) == 2
    said = f"{table['zf_psnr'].iloc[0]:.2f} → {table['tv_psnr'].iloc[0]:.2f}"
    assert [said in line for line in out.splitlines() if "total variation" in line] == [True]
    for arguments, words in (
        ((finished.path,), "set `unseen: true` on a site"),
        ((fedmri.path, "--slices", "many"), "--slices many: 'many' must be a number"),
        ((fedmri.path, "--slices", "0", "--out", tmp_path / "no" / "table.parquet"), "must be a file in a folder"),
    ):
        status, out, err = fedsim("unseen", *arguments)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert words in err
