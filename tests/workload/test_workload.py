from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.workload.reading import load_workload, read_yaml
from fedsim.workload.superseded import superseded

FILES = sorted((Path(__file__).parents[2] / "workloads").glob("*.yaml"))
WORKLOADS = [path for path in FILES if "kind" not in read_yaml(path)]  # the others are studies
MINIMAL = """
name: tiny
federation:
  sites:
    - name: A
      source: {format: phantom}
"""


@pytest.fixture
def load(tmp_path: Path):  # noqa: ANN201
    def load(text: str = MINIMAL, *overrides: str):  # noqa: ANN202
        (tmp_path / "w.yaml").write_text(text)
        return load_workload(tmp_path / "w.yaml", overrides)

    return load


@pytest.mark.parametrize("path", WORKLOADS, ids=lambda p: p.stem)
def test_every_workload_is_valid(path: Path) -> None:
    assert load_workload(path).name == path.stem


def test_the_papers_scenarios() -> None:
    one, two = (load_workload(Path(WORKLOADS[0].parent / f"paper-scenario-{n}.yaml")) for n in (1, 2))
    assert [one.training_of(site).lr for site in one.federation.sites] == [1e-4, 1e-4, 1e-2, 1e-3]
    assert (one.training.rounds, one.training.local_epochs, one.training.batch_size) == (80, 1, 32)
    assert (two.training.rounds, two.training.local_epochs, two.training.batch_size) == (50, 10, 8)
    assert [two.training.lr_in(round_) for round_ in (1, 40, 41)] == pytest.approx([1e-4, 1e-4, 1e-5])
    assert [site.source.contrast for site in one.federation.sites[1:]] == [["t1", "t2"], ["T1", "T2"], ["T1", "T2"]]


def test_defaults_are_the_contracts(load) -> None:  # noqa: ANN001
    w = load()
    assert (w.federation.matrix, w.federation.normalise, w.federation.clients) == ((128, 128), "std", None)
    assert w.federation.split.shares == (0.7, 0.15, 0.15)
    assert (w.model.name, w.model.domain, w.model.channels, w.model.pools) == ("unet", "image", 32, 4)
    assert (w.algorithm.name, w.algorithm.beta, w.algorithm.weighting) == ("fedmri", 100, "uniform")
    t = w.training
    assert (t.rounds, t.local_epochs, t.batch_size, t.optimizer, t.lr) == (50, 1, 8, "rmsprop", 1e-4)
    assert (t.lr_step, t.lr_gamma, t.participation) == (0, 0.1, 1.0)
    e = w.engine
    assert (e.backend, e.clients_per_actor, e.threads, e.device) == ("ray", 1, 1, "auto")
    assert (e.checkpoint_every, e.keep_last, e.on_lost_process) == (1, 2, "replay")
    assert (w.metrics.protocol, w.metrics.every) == ("fastmri", 1)


def test_overrides_are_yaml(load) -> None:  # noqa: ANN001
    w = load(MINIMAL, "training.lr=1e-3", "federation.matrix=[64, 64]", "federation.sites.0.source.contrast=[t1, t2]")
    assert w.training.lr == 1e-3
    assert w.federation.matrix == (64, 64)
    assert w.federation.sites[0].source.contrast == ["t1", "t2"]


def test_keys_of_another_method_may_stay(load, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ANN001
    w = load(MINIMAL + "algorithm: {name: fedmri, beta: 5}", "algorithm.name=fedavg")
    assert w.algorithm.name == "fedavg"
    assert "algorithm.beta is not a key of fedavg: unused" in caplog.text


def test_count_makes_sites(load) -> None:  # noqa: ANN001
    w = load(MINIMAL.replace("name: A", "name: A\n      count: 100"))
    names = [site.name for site in w.federation.expanded_sites()]
    assert (names[0], names[-1], len(names)) == ("A-001", "A-100", 100)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainning.rounds=3", "trainning: unknown key; did you mean 'training'?"),
        ("training.round=3", "training.round: unknown key; did you mean 'rounds'?"),
        ("algorithm.betta=3", "algorithm.betta: unknown key; did you mean 'beta'?"),
        (
            "federation.sites.0.source.subjcts=3",
            "federation.sites.0.source.subjcts: unknown key; did you mean 'subjects'?",
        ),
        ("federation.sites.0.source.field_t=99", "sites.0.source.field_t: Input should be less than or equal to 11.7"),
        ("federation.sites.0.source.field_t=[3, 1]", "sites.0.source.field_t: [low, high] must ascend"),
        ("nonsense=1", "nonsense: unknown key; known here: name, "),
        ("training.learning_rate=1", "training.learning_rate: unknown key; did you mean 'lr'?"),
        ("training.LearningRate=1", "training.LearningRate: unknown key; did you mean 'lr'?"),
        ("training.num_epochs=1", "training.num_epochs: unknown key; did you mean 'local_epochs'?"),
        ("training.batch=1", "training.batch: unknown key; did you mean 'batch_size'?"),
        ("training.batchSize=1", "training.batchSize: unknown key; did you mean 'batch_size'?"),
        ("training.client-fraction=1", "unknown key; did you mean 'participation'?"),
        ("federation.n_clients=3", "federation.n_clients: unknown key; did you mean 'clients'?"),
        ("federation.image_size=64", "federation.image_size: unknown key; did you mean 'matrix'?"),
        ("lr=1", "lr: unknown key; did you mean 'training.lr'?"),
        ("epochs=1", "epochs: unknown key; did you mean 'training.local_epochs'?"),
        (
            "federation.sites.0.name=007",
            "sites.0.name: must be text, and YAML takes this for the number 7; put it between quotation marks",
        ),
        ("name=1e3", "name: must be text, and YAML takes this for the number 1000.0; put it between quotation marks"),
        ("name=true", "name: must be text, and YAML takes this for true; put it between quotation marks"),
        (
            "federation.sites.B.count=2",
            "--set federation.sites.B.count: 'B' must be a number from 0 to 0, the place in "
            "the list, or a name; known: A",
        ),
        (
            "federation.cache=$NOWHERE_AT_ALL/x",
            "federation.cache: $NOWHERE_AT_ALL: the environment has no variable "
            "NOWHERE_AT_ALL; export it, or write the folder",
        ),
        ("engine.scratch=/x/${NOWHERE_AT_ALL}", "engine.scratch: ${NOWHERE_AT_ALL}: the environment has no variable"),
        ("federation.sites.0.source={format: tiff, path: $NOWHERE_AT_ALL}", "the environment has no variable"),
        ("federation.sites.0.mask={kind: radial, acceleratoin: 3}", "mask.acceleratoin: unknown key; did you mean"),
        ("training.rounds=0", "training.rounds: Input should be greater than or equal to 1, got 0"),
        ("training.rounds=true", "training.rounds: must be a number, not true or false"),
        ("training.lr=true", "training.lr: must be a number, not true or false"),
        ("federation.sites.0.source.field_t=[true, 3]", "source.field_t: must be a number, not true or false"),
        ("metrics.clients=0", "metrics.clients: must be 'all' or 'cohort', or a number of at least 1, not 0"),
        ("metrics.clients=2.5", "metrics.clients: must be 'all' or 'cohort', or a whole number, not 2.5"),
        ("engine.clients_per_actor=many", "clients_per_actor: must be 'auto', or a whole number, not 'many'"),
        ("training.rounds=many", "training.rounds: must be a whole number, not 'many'"),
        (
            "algorithm.name=zebra",
            "algorithm.name: unknown 'zebra'; known: fedmri, single, transfer, centralised, fedavg",
        ),
        ("federation.sites.0.source.format=jpeg", "sites.0.source.format: unknown 'jpeg'; known: fastmri, m4raw, mrd"),
        ("federation.sites.0.mask={kind: random, acceleration: 20}", "impossible mask"),
        ("algorithm.name=fedavgg", "algorithm.name: unknown 'fedavgg'; did you mean 'fedavg'?"),
        ("federation.sites=[]", "federation.sites: Tuple should have at least 1 item"),
        ("federation.matrix=[100, 100]", "federation.matrix: [100, 100] must be multiples of 16"),
        (
            "federation.matrix=[16, 16]",
            "must be multiples of 16 (2^model.pools), at least 32: every pool halves the matrix, "
            "and the lowest level needs 2 x 2 pixels to be normalised; set model.pools to at most 3, or take [32, 32]",
        ),
        (
            "federation.matrix=[33, 48]",
            "at least 32: every pool halves the matrix, and the lowest level needs 2 x 2 pixels "
            "to be normalised; take [48, 48]",
        ),
        ("federation.split={train: 0.5}", "must be 1, they are 0.8"),
        ("metrics.references=[sense]", "metrics.references: sense needs several coils; set federation.coils to keep"),
        ("metrics.references=[tv, tv]", "metrics.references: tv is listed twice; list each once"),
        ("metrics.references=[grappa]", "metrics.references.0: Input should be 'conjugate', 'sense' or 'tv'"),
        ("metrics.boxes=/brain.csv", "metrics.boxes: must be a path inside federation.root"),
        (
            "federation.sites.0.name=../x",
            "sites.0.name: must be letters, digits, '_' and '-', at most 64, not '../x'",
        ),
        ("federation.sites.0.source={format: tiff, path: ../x}", "must be a path inside federation.root"),
        ("federation.sites.0.source={format: tiff, path: /etc}", "must be a path inside federation.root"),
        ("federation.sites.0={name: A, count: 2, source: {format: tiff, path: x}}", "count is for phantom sites"),
        ("name=", "name: Input should be a valid string"),
        ("training.lr=.nan", "training.lr: Input should be"),
        ("federation.sites.7.name=x", "--set federation.sites.7.name: '7' must be a number from 0 to 0"),
        ("name.x=3", "--set name.x: name is not a section"),
        ("training.rounds", "--set training.rounds: must be KEY=VALUE"),
        ("training.rounds=[", "--set training.rounds: the value is not valid YAML"),
    ],
)
def test_wrong_keys_and_values_get_one_clear_line(load, override: str, message: str) -> None:  # noqa: ANN001
    with pytest.raises(InputError) as caught:
        load(MINIMAL, override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a mapping"),
        ("- a", "must hold a mapping"),
        ("a: [", "is not valid YAML: line 1"),
        ("name: a\nname: b", "is not valid YAML"),
        ("name: x", "federation: is required"),
        (MINIMAL + "    - name: a\n      source: {format: phantom}", "two sites are named 'A'"),
    ],
)
def test_wrong_files_get_one_clear_line(load, text: str, message: str) -> None:  # noqa: ANN001
    with pytest.raises(InputError) as caught:
        load(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


def test_root_is_looked_up_beside_the_workload(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(MINIMAL, "federation.root=data").federation.root == tmp_path / "data"
    (tmp_path / "elsewhere" / "data").mkdir()
    assert load(MINIMAL, "federation.root=data").federation.root == tmp_path / "elsewhere" / "data"


def test_a_site_is_found_by_its_name(load) -> None:  # noqa: ANN001
    two = MINIMAL + "    - {name: '007', source: {format: phantom}}\n"
    for key in ("federation.sites.007", "sites.007", "sites.1"):
        w = load(two, f"{key}.mask.kind=radial", f"{key}.mask.acceleration=3")
        assert [site.mask.kind for site in w.federation.sites] == ["equispaced", "radial"]
        assert w.federation.sites[1].mask.acceleration == 3


def test_variables_of_the_environment_are_in_paths(load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("MINE", str(tmp_path))
    monkeypatch.setenv("PART", "CS")
    monkeypatch.setenv("HOME", str(tmp_path))
    w = load(MINIMAL, "federation.root=${MINE}/data", "federation.cache=$MINE/cache", "engine.scratch=~/scratch",
             "federation.sites.0.source={format: tiff, path: 'tcga/${PART}x'}")  # fmt: skip
    assert (w.federation.root, w.federation.cache) == (tmp_path / "data", tmp_path / "cache")
    assert w.engine.scratch == tmp_path / "scratch"
    assert w.federation.sites[0].source.path == "tcga/CSx"
    monkeypatch.setenv("PART", "../x")
    with pytest.raises(InputError, match="must be a path inside"):
        load(MINIMAL, "federation.sites.0.source={format: tiff, path: 'tcga/$PART'}")
    assert load(MINIMAL, "federation.cache=/a$/b").federation.cache == Path("/a$/b")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["training.lr_gamma=0.5"], "training.lr_gamma is superseded by lr_step=0 and has no effect"),
        (
            ["training.lr=0.5", "sites.A.training.lr=0.1"],
            "training.lr is superseded by lr of every site and has no effect",
        ),
        (
            ["federation.matrix=[64, 64]", "sites.A.matrix=[32, 32]"],
            "federation.matrix is superseded by matrix of every site",
        ),
        (["engine.backend=serial", "engine.cores=2"], "engine.cores is superseded by backend=serial and has no effect"),
        (["engine.nodes_timeout_s=9"], "engine.nodes_timeout_s is superseded by nodes=null and has no effect"),
        (["algorithm.negatives=exact", "algorithm.exact_up_to=9"], "algorithm.exact_up_to is superseded by negatives"),
        (["algorithm.beta=0", "algorithm.own=false"], "algorithm.own is superseded by beta=0 and has no effect"),
        (["federation.split.gap=3"], "federation.split.gap is superseded by by=subject and has no effect"),
        (
            ["sites.A.resources.gpus=1", "engine.device=cpu"],
            "federation.sites.A.resources.gpus is superseded by engine.device",
        ),
    ],
)
def test_a_key_that_another_supersedes_is_named(load, overrides: list[str], line: str) -> None:  # noqa: ANN001
    (said,) = superseded(load(MINIMAL, *overrides), overrides)
    assert line in said


def test_an_override_that_a_site_does_not_follow_is_named(load) -> None:  # noqa: ANN001
    two = MINIMAL + "    - {name: B, source: {format: phantom}, training: {lr: 0.5}}\n"
    assert list(superseded(load(two, "training.rounds=2"), ["training.rounds=2"])) == []
    (said,) = superseded(load(two, "training.lr=0.1"), ["training.lr=0.1"])
    assert said == "training.lr is superseded by separate lr at B"


def test_the_projects_own_workloads_have_no_idle_keys() -> None:
    assert [line for path in WORKLOADS for line in superseded(load_workload(path))] == []
