"""Bad arguments, damaged run directories, bad study files."""

import atexit
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from .bad_inputs import Bad, run, settings
from .conftest import SMALL

ARGUMENTS: list[tuple[tuple[str, ...], str]] = [
    (("run",), "WORKLOAD"), (("fly",), "fly"), (("run", "none.yaml"), "none.yaml"), (("run", "data"), "data"),
    (("run", "."), "."),
    (("run", "/dev/zero"), "/dev/zero"), (("run", "small.yaml", "extra"), "extra"),
    (("run", "--x", "small.yaml"), "--x"),
    (("run", "small.yaml", "--resume"), "--resume"), (("run", "small.yaml", "--out"), "--out"),
    (("run", "small.yaml", "--out", "small.yaml"), "small.yaml"),
    (("run", "small.yaml", "--out", "data"), "--out data"),
    (("run", "small.yaml", "--out", "small.yaml/x"), "small.yaml/x"),
    (("run", "small.yaml", "--address", "127.0.0.1:9"), "--address"), (("run", f"{'x' * 300}.yaml"), "xxx"),
    (("run", "a\0b"), "b"),
    (("plan", "small.yaml", "--nodes", "0"), "--nodes"), (("plan", "small.yaml", "--nodes", "-4"), "--nodes"),
    (("plan", "small.yaml", "--nodes", "9" * 5000), "--nodes"), (("plan", "small.yaml", "--nodes", "2.5"), "--nodes"),
    (("plan", "small.yaml", "--nodes", "2", "--cores", "0"), "--cores"),
    (("plan", "small.yaml", "--nodes", "2", "--cores", "1000001"), "--cores"),
    (("plan", "small.yaml", "--nodes", "2", "--gbit", "0"), "--gbit"),
    (("plan", "small.yaml", "--nodes", "2", "--gbit", "nan"), "--gbit"),
    (("plan", "small.yaml", "--nodes", "2", "--gbit", "inf"), "--gbit"),
    (("plan", "small.yaml", "--gbit", "5"), "--gbit"),
    (("data", "cache", "--clean", "--older-than", "nan"), "--older-than"), (("checkpoints",), "RUN"),
    (("checkpoints", "none"), "none"), (("checkpoints", "data"), "data"), (("checkpoints", "small.yaml"), "small.yaml"),
    (("plan",), "WORKLOAD"), (("plan", "none.yaml"), "none.yaml"), (("evaluate",), "RUN"),
    (("evaluate", "none"), "none"), (("evaluate", "data"), "data"),
    (("evaluate", "small.yaml"), "small.yaml"), (("report", "none"), "none"), (("report", "data"), "data"),
    (("compare",), "RUN"), (("compare", "data"), "compare"),
    (("compare", "none", "data"), "none"), (("compare", "data", "data"), "data"), (("reconstruct", "none"), "FILE"),
    (("reconstruct", "none", "small.yaml"), "--client"),
    (("reconstruct", "none", "small.yaml", "--client", "A"), "none"), (("unseen", "none"), "none"),
    (("unseen", "data", "--slices", "x"), "--slices"),
    (("study",), "STUDY"), (("study", "none.yaml"), "none.yaml"), (("study", "small.yaml"), "small.yaml"),
    (("data", "fly"), "fly"),
    (("data", "inspect"), "PATH"), (("data", "inspect", "none"), "none"), (("data", "inspect", "data"), "data"),
    (("data", "inspect", "small.yaml"), "small.yaml"),
    (("data", "import", "none.yaml"), "none.yaml"), (("data", "phantom"), "DIR"),
    (("data", "phantom", "data"), "data"), (("data", "phantom", "new", "--seed", "x"), "--seed"),
    (("schema", "x"), "x"),
]  # fmt: skip
OVERRIDES: list[tuple[str, str]] = [
    ("training.rounds", "must be KEY=VALUE"), ("=3", "must be KEY=VALUE"), ("", "must be KEY=VALUE"),
    ("a\nb=3", "must be KEY=VALUE"), ("x" * 5000 + "=1", "must be KEY=VALUE"),
    ("training.rounds=[", "training.rounds"), ("training.rounds='3", "training.rounds"),
    ("seed=" + "9" * 5000, "seed"), ("name=!!python/object:os.x a", "name"),
    ("training=&x {a: *x}", "training"), ("training=" + "[" * 3000, "training"),
    ("federation.sites.2.name=x", "federation.sites.2"), ("federation.sites.-1.name=x", "federation.sites.-1"),
    ("federation.sites.\u00b2.name=x", "federation.sites"),
    ("federation.sites." + "9" * 150 + ".name=x", "federation.sites"),
    ("federation.sites.Z.name=x", "federation.sites.Z"),
    ("name.first=x", "name.first"), ("training.rounds.max=3", "training.rounds.max"), ("..=1", "''"),
    (".training=1", "''"), ("training.=1", "training"), (".".join("a" * 90) + "=1", "a"),
]  # fmt: skip
PHANTOMS = [
    "subjects=0", "subjects=[1, 2]", "slices=129", "contrast=ct", "contrast=[]", "field_t=[3, 1]", "tr=0", "te=1e9",
    "noise=.nan", "colour=red", "seed=-1", "ti=5", "format=tiff", "size=16",
]  # fmt: skip

STUDY = "name: tiny\nworkload: small.yaml\nseeds: [1, 2]\nreference: fedavg\nmethods: {single: null, fedavg: {}}\n"
GRID = ", ".join(f"training.k{i}: [1, 2]" for i in range(20))
STUDIES: dict[str, tuple[str, str]] = {
    "no name": (STUDY.replace("name: tiny\n", ""), "name"), "no seeds": (STUDY.replace("[1, 2]", "[]"), "seeds"),
    "a seed twice": (STUDY.replace("[1, 2]", "[1, 1]"), "seeds"),
    "a seed of -1": (STUDY.replace("[1, 2]", "[-1]"), "seeds"),
    "a seed too large": (STUDY.replace("[1, 2]", "[9223372036854775808]"), "seeds"),
    "a seed in words": (STUDY.replace("[1, 2]", "[one]"), "seeds"),
    "an unknown reference": (STUDY.replace("reference: fedavg", "reference: fedmri"), "reference"),
    "no methods": (STUDY.replace("{single: null, fedavg: {}}", "{}"), "methods"),
    "methods as a list": (STUDY.replace("{single: null, fedavg: {}}", "[single]"), "methods"),
    "a method with a path for a name": (STUDY.replace("single: null", "../x: {}"), "methods"),
    "an unknown method": (STUDY.replace("single: null", "fedx: {}"), "fedx"),
    "an unknown key of a method": (STUDY.replace("single: null", "single: {algorithm.nu: 1}"), "algorithm.nu"),
    "no base": (STUDY.replace("small.yaml", "none.yaml"), "none.yaml"),
    "a base that is a folder": (STUDY.replace("small.yaml", "data"), "data"),
    "itself for a base": (STUDY.replace("small.yaml", "bad.yaml"), "bad.yaml"),
    "a base with NUL": (STUDY.replace("small.yaml", '"a\\0"'), "workload"),
    "an unknown key": (STUDY + "methid: {}\n", "methid"),
    "a whole section": (STUDY + "set: {training: {rounds: 2}}\n", "training"),
    "a seed among overrides": (STUDY + "set: {seed: 3}\n", "seed"),
    "an unknown key in set": (STUDY + "set: {training.round: 2}\n", "training.round"),
    "a wrong value in a regime": (STUDY + "regimes: {r: {training.rounds: 0}}\n", "training.rounds"),
    "a regime with a slash": (STUDY + "regimes: {a/b: {}}\n", "regimes"),
    "no regimes": (STUDY + "regimes: {}\n", "regimes"),
    "a mode in which no round ends": (
        STUDY + "set: {time.latency_s: 7, time.deadline_s: 9}\n"
        "regimes: {s: {}, d: {time.mode: deadline, time.available.share: 1.0e-6}}\n",
        "d/single/seed-1: time: round 1: no client finishes its turn any more; raise time.available.share",
    ),
    "a tuning seed of the study's": (STUDY + "tune: {seed: 1}\n", "tune.seed"),
    "tuning without a seed": (STUDY + "tune: {grid: {}}\n", "tune.seed"),
    "an axis without values": (STUDY + "tune: {seed: 9, grid: {training.lr: []}}\n", "tune.grid"),
    "an unknown regime to tune in": (STUDY + "tune: {seed: 9, regime: x}\n", "tune.regime"),
    "tuning of an unknown method": (STUDY + "tune: {seed: 9, methods: {x: {}}}\n", "tune.methods"),
    "a grid of a million points": (STUDY + f"tune: {{seed: 9, grid: {{{GRID}}}}}\n",
        "tune"),
    "ten thousand seeds": (STUDY.replace("[1, 2]", f"[{', '.join(map(str, range(6000)))}]"), "seeds"),
    "a key that is a list": (STUDY + "set: {training.lr: {[a]: 1}}\n", "bad.yaml"),
    "another kind": (STUDY + "kind: race\n", "kind"),
}  # fmt: skip


@cache
def _template() -> Path:
    """A folder with two finished runs, made once."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    (folder / "data").mkdir()
    (folder / "small.yaml").write_text(SMALL.format(cache=folder / "cache", root="data"))
    for name, method in (("one", "fedavg"), ("two", "single")):
        arguments = (
            "run",
            "small.yaml",
            "--out",
            name,
            "--set",
            f"algorithm.name={method}",
            "--set",
            "training.rounds=1",
        )
        done = run(Bad("", "", arguments, ""), folder, folder / "cache")
        assert done.status == 0, done.error
    return folder


def with_runs(damage: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for name in ("one", "two"):
            shutil.copytree(_template() / name, folder / name)
        damage(folder / "one")

    return prepare


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda run_: (run_ / name).write_bytes(content)


def cut(name: str, share: float) -> Callable[[Path], object]:
    def damage(run_: Path) -> None:
        content = (run_ / name).read_bytes()
        (run_ / name).write_bytes(content[: int(len(content) * share)])

    return damage


def append(text: str) -> Callable[[Path], object]:
    def damage(run_: Path) -> None:
        with (run_ / "workload.yaml").open("a") as file:
            file.write(text)

    return damage


def other_table() -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"x": [1]}).to_parquet(buffer)
    return buffer.getvalue()


EVALUATE, REPORT, COMPARE = ("evaluate", "one"), ("report", "one"), ("compare", "one", "two")
UNSEEN = ("unseen", "one")
RESUME = ("run", "small.yaml", "--out", "one", "--set", "algorithm.name=fedavg", "--resume")
RECONSTRUCT = ("reconstruct", "one", "none.h5", "--client", "A")
RUNS: list[tuple[str, tuple[str, ...], str, Callable[[Path], object]]] = [
    ("no workload.yaml", REPORT, "one", lambda p: (p / "workload.yaml").unlink()),
    ("an empty workload.yaml", EVALUATE, "workload.yaml", write("workload.yaml", b"")),
    ("half a workload.yaml", COMPARE, "workload.yaml", cut("workload.yaml", 0.5)),
    ("a binary workload.yaml", REPORT, "workload.yaml", write("workload.yaml", bytes(range(256)))),
    ("a workload.yaml that is a list", RECONSTRUCT, "workload.yaml", write("workload.yaml", b"- a\n")),
    ("an unknown key", UNSEEN, "colour", append("colour: red\n")),
    ("a key twice", RESUME, "workload.yaml", append("name: again\n")),
    ("an alias of itself", EVALUATE, "workload.yaml", append("x: &x [*x]\n")),
    ("a folder for a workload.yaml", COMPARE, "one",
        lambda p: ((p / "workload.yaml").unlink(), (p / "workload.yaml").mkdir())),
    ("half a manifest", EVALUATE, "manifest.parquet", cut("manifest.parquet", 0.5)),
    ("an empty manifest", RESUME, "manifest.parquet", write("manifest.parquet", b"")),
    ("a manifest of noise", EVALUATE, "manifest.parquet", write("manifest.parquet", bytes(5000))),
    ("a manifest of text", COMPARE, "manifest.parquet", write("manifest.parquet", b"site,volume\n")),
    ("another table for a manifest", EVALUATE, "manifest.parquet", write("manifest.parquet", other_table())),
    ("half of rounds", COMPARE, "rounds.parquet", cut("rounds.parquet", 0.6)),
    ("no rounds", COMPARE, "rounds.parquet", lambda p: (p / "rounds.parquet").unlink()),
    ("another table for rounds", COMPARE, "rounds.parquet", write("rounds.parquet", other_table())),
    ("half of clients", COMPARE, "clients.parquet", cut("clients.parquet", 0.6)),
    ("no checkpoints", EVALUATE, "checkpoint", lambda p: shutil.rmtree(p / "checkpoints")),
]  # fmt: skip
OF_RUNS: list[tuple[tuple[str, ...], str]] = [
    ((*EVALUATE, "--round", "9"), "--round 9"), ((*EVALUATE, "--round", "-1"), "--round -1"),
    ((*EVALUATE, "--round", "9" * 5000), "--round"), ((*EVALUATE, "--round", "1.0"), "--round 1.0"),
    (("reconstruct", "one", "small.yaml", "--client", "A." + "9" * 5000), "--client"),
    (("debug", "one", "--client", "A." + "9" * 5000, "--round", "1"), "--client"),
    ((*UNSEEN, "--slices", "9" * 5000), "--slices"),
    ((*EVALUATE, "--split", "all"), "--split"),
    ((*EVALUATE, "--cross", "--save-images"), "--cross"), ((*EVALUATE, "--set", "training.lr=1"), "training.lr"),
    ((*EVALUATE, "--set", "federation.matrix=[64, 64]"), "federation.matrix"),
    ((*EVALUATE, "--cross", "--set", "seed=5"), "seed"), ((*COMPARE, "--reference", "fedmri"), "--reference"),
    (("compare", "one", "one"), "one"), (("compare", "one"), "compare"),
    (("reconstruct", "one", "small.yaml", "--client", "A"), "small.yaml"),
    (("reconstruct", "one", "data", "--client", "A"), "data"), (RECONSTRUCT, "none.h5"),
    (("reconstruct", "one", "small.yaml", "--client", "C"), "--client C"),
    (("reconstruct", "one", "small.yaml", "--client", "../A"), "--client"), ((*UNSEEN, "--slices", "-1"), "--slices"),
    (UNSEEN, "unseen"), (RESUME[:-1], "--out one"), ((*RESUME, "--set", "training.lr=1"), "training.lr"),
    ((*RESUME, "--set", "algorithm.name=fedprox"), "algorithm"), ((*RESUME, "--set", "name=other"), "name"),
]  # fmt: skip


def bad_runs() -> Iterator[Bad]:
    for arguments, names in ARGUMENTS:
        yield Bad("arguments", " ".join(arguments)[:80], arguments, names)
    yield from settings("overrides", OVERRIDES)
    for setting in PHANTOMS:
        yield Bad("phantom settings", setting, ("data", "phantom", "new", "--set", setting), setting.partition("=")[0])
    for what, (text, names) in STUDIES.items():
        yield Bad(
            "study files",
            what,
            ("study", "bad.yaml"),
            names,
            lambda folder, t=text: (folder / "bad.yaml").write_text(t),
        )
    for what, arguments, names, damage in RUNS:
        yield Bad("damaged run directories", what, arguments, names, with_runs(damage))
    for arguments, names in OF_RUNS:
        yield Bad("arguments about runs", " ".join(arguments), arguments, names, with_runs(lambda _: None))
