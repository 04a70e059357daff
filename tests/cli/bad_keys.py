"""Bad workload files: keys, types, ranges, YAML, names, paths, and what cannot be divided."""

from collections.abc import Iterator
from pathlib import Path

from .bad_inputs import Bad, settings

SOURCE = "federation.sites.0.source"
HEAD = "name: x\nfederation: {sites: [{name: A, source: {format: phantom}}]}\n"

UNKNOWN = [
    "nmae=x", "federation.client=2", "federation.site=[]", "federation.sites.0.soruce={}", f"{SOURCE}.subject=3",
    "federation.sites.1.mask.accel=3", "federation.split.validation=0.1", "federation.sites.0.split.tran=1",
    "federation.sites.0.training.rounds=3", "federation.sites.0.training.participation=0.5",
    "federation.sites.0.resources.gpu=1", "model.pool=2", "model.depth=4", "algorithm.gamma=1", "training.epochs=3",
    "training.batchsize=4", "training.learning_rate=0.1", "engine.worker=3", "engine.clients_per_worker=2",
    "metrics.protocl=slice", "metrics.psnr=true", "Name=x", "n\u0430me=x", "__class__=x", "model_config={}",
    ("training={1: 2}", "training"),
    ("training.early_stopping=5", "training.early_stopping: must have keys"),
]  # fmt: skip

TYPES = [
    "name=3", "name=null", "name=[a]", "name={a: b}", "seed=one", "seed=1.5", "seed=null", "seed=[1]",
    "seed=2024-01-01",
    "federation=3", "federation=[]", "federation=null", "federation.clients=two", "federation.clients=[2]",
    "federation.clients=2.5", "federation.matrix=32", "federation.matrix=[32]", "federation.matrix=[32, 32, 32]",
    "federation.matrix={h: 32}", "federation.matrix=[a, b]", "federation.matrix=[32.5, 32]", "federation.split=0.5",
    "federation.split.train=most", "federation.split.by=slices", "federation.normalise=1", "federation.root=[a]",
    "federation.cache={a: b}", "federation.sites=A", "federation.sites={A: 1}", "federation.sites.0=A",
    "federation.sites.0.name=1", "federation.sites.0.count=many", "federation.sites.0.unseen=perhaps",
    f"{SOURCE}=phantom",
    f"{SOURCE}.subjects=four", f"{SOURCE}.contrast={{t1: 1}}", f"{SOURCE}.field_t=strong",
    f"{SOURCE}.field_t=[1, 2, 3]",
    f"{SOURCE}.seed=x", "federation.sites.1.mask=radial", "federation.sites.1.mask.acceleration=fast",
    "federation.sites.1.mask.per=slice", "model=unet", "model.channels=wide", "model.residual=5", "model.norm=layer",
    "algorithm=fedavg", "training=fast", "training.rounds=all", "training.lr=small", "training.optimizer=3",
    "training.precision=float16", "engine=ray", "engine.backend=dask", "engine.threads=a",
    "engine.clients_per_actor=some",
    "engine.state_memory=8GB", "engine.on_lost_process=retry", "metrics=psnr", "metrics.every=often", "provenance=[a]",
    ("provenance={a: [b]}", "provenance"), ("name=!!set {a}", "name"),
]  # fmt: skip

RANGES = [
    "seed=-1", "seed=9223372036854775808", "seed=1e300", "seed=.nan", "federation.clients=0", "federation.clients=-3",
    ("federation.clients=1e25", "clients"), "federation.matrix=[8, 32]", "federation.matrix=[32, 4096]",
    ("federation.matrix=[34, 32]", "federation.matrix"), ("federation.sites.0.matrix=[33, 33]", "site A: matrix"),
    "federation.matrix=[-32, 32]", "federation.matrix=[.inf, 32]", "federation.split.train=-0.1",
    "federation.split.train=1.5",
    "federation.split.train=.nan", "federation.split.gap=-1", "federation.split.train_subjects=0",
    "federation.split.train_slices=0", "federation.split.train_slices=1.1",
    "federation.sites=[]", "federation.sites.0.count=0", "federation.sites.0.count=10000001", f"{SOURCE}.subjects=0",
    f"{SOURCE}.subjects=1000000", f"{SOURCE}.slices=0", f"{SOURCE}.slices=1000", f"{SOURCE}.size=8",
    f"{SOURCE}.size=100000",
    f"{SOURCE}.field_t=0", f"{SOURCE}.field_t=100", f"{SOURCE}.field_t=[3, 1]", f"{SOURCE}.field_t=.nan",
    f"{SOURCE}.noise=-1",
    f"{SOURCE}.lesions=2", f"{SOURCE}.contrast=[]", f"{SOURCE}.contrast=[t1, t1]", f"{SOURCE}.contrast=t3",
    (f"{SOURCE}.seed=-1", SOURCE), "federation.sites.1.mask.acceleration=1",
    "federation.sites.1.mask.acceleration=1000",
    "federation.sites.1.mask.acceleration=-.inf", "federation.sites.1.mask.center_fraction=1",
    "federation.sites.1.mask.center_fraction=-0.1", "federation.sites.0.training.lr=0",
    "federation.sites.0.training.batch_size=0",
    "federation.sites.0.resources.cpus=0", "federation.sites.0.resources.gpus=-1",
    "federation.sites.0.resources.memory=1e300",
    "model.channels=0", "model.channels=100000", "model.pools=0", "model.pools=7", "algorithm.beta=-1",
    "algorithm.beta=.inf",
    "training.rounds=0", "training.rounds=-2", ("training.rounds=9223372036854775808", "rounds"),
    "training.local_epochs=0",
    "training.batch_size=0", ("training.batch_size=1e25", "batch_size"), "training.lr=0", "training.lr=-1",
    "training.lr=.nan",
    "training.lr=1e999", "training.lr_gamma=2", "training.lr_step=-1", "training.participation=0",
    "training.participation=1.1",
    "training.cohort=0", "training.cohort=-1", "training.cohort=2.5", "training.cohort=.nan", "training.cohort=many",
    "training.cohort=true", ("training.cohort=1e30", "cohort"), "training.sampler=best", "training.sampler=''",
    ("training.sampler={size: 3}", "training.sampler"), ("training.sampler={name: fixed, seed: 1}", "training.sampler"),
    "metrics.clients=-1", "metrics.clients=1.5", "metrics.clients=.inf", "metrics.clients=some", "metrics.clients=true",
    "engine.clients_per_actor=0", "engine.threads=0", "engine.threads=100000", "engine.state_memory=-1",
    "engine.state_memory=1e300",
    "engine.slice_memory=.inf", "engine.checkpoint_every=-1", "engine.keep_last=0", "metrics.every=-1",
]  # fmt: skip

SYNTAX = {
    "empty": "", "comments alone": "# nothing\n", "a word": "workload", "a number": "3", "a list": "- name: x\n",
    "an open bracket": "name: [", "an open brace": "name: {a: b", "an open quotation": 'name: "x\n',
    "a tab": "name:\n\tx: 1\n",
    "a stray colon": "name: a: b\n", "a stray closing bracket": "name: x]\nb: ]\n",
    "wrong indents": "a:\n    b: 1\n  c: 2\n",
    "duplicate keys": HEAD + "name: y\n", "duplicate keys inside": HEAD + "model: {pools: 2, pools: 3}\n",
    "two documents": HEAD + "---\n" + HEAD, "an undefined alias": "name: *x\n",
    "an anchor without a value to reuse": "name: &\n",
    "a bad escape": 'name: "\\q"\n', "a percent directive": "%YAML 9.9\n---\n" + HEAD, "NUL bytes": "name: \0x\n",
    "control characters": "name: \x07\n", "a key that is a list": "[a, b]: 1\n" + HEAD,
    "a key that is a mapping": "{a: b}: 1\n",
    "a key that is a number": HEAD + "7: x\n", "a reserved indicator": "name: @x\n",
    "a block without indent": "name: |\nx\n",
}  # fmt: skip
BYTES = {
    "not UTF-8": b"name: \xff\xfe\n", "UTF-16": HEAD.encode("utf-16"), "a gzip file": b"\x1f\x8b\x08" + bytes(60),
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(60), "zeros": bytes(4096), "half a character": "name: \u00e9".encode()[:-1],
}  # fmt: skip
LAUGHS = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 30))
BOMBS = {
    "billion laughs": "x0: &x0 [ha]\n" + LAUGHS,
    "quadratic blow-up": f"x: &x {'a' * 10_000}\ny: [{', '.join(['*x'] * 1000)}]\n",
    "merge bomb": "x0: &x0 {a: 1}\n" + "".join(f"x{i}: &x{i} {{<<: [*x{i - 1}, *x{i - 1}]}}\n" for i in range(1, 40)),
    "a list in itself": "name: &x [*x]\n", "a mapping in itself": "&x {name: *x}\n",
    "a merge of itself": "name: &x {<<: *x}\n",
    "a chain of aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 800)),
    "deep lists": "name: " + "[" * 5000, "deep and closed": f"name: {'[' * 80}{']' * 80}\n",
    "deep mappings": "{a: " * 2000,
    "deep dashes": "- " * 5000, "deep indents": "\n".join(" " * i + "a:" for i in range(900)), "deep keys": "? " * 2000,
    "an integer of 5000 digits": HEAD + "seed: " + "9" * 5000,
    "a hexadecimal of 5000 digits": HEAD + "seed: 0x" + "f" * 5000,
    "a fraction of 5000 digits": HEAD + "seed: 0." + "3" * 5000,
    "a Python object": "name: !!python/object/apply:os.getcwd []\n",
    "a Python name": "name: !!python/name:os.system\n", "a tag of its own": "name: !vault x\n",
    "a wrong bool": "name: !!bool perhaps\n",
    "a wrong integer": "name: !!int x\n", "an empty float": "name: !!float ''\n", "a wrong date": "name: 2024-13-45\n",
    "a wrong binary": "name: !!binary '='\n", "a mapping said to be a list": "name: !!seq {a: b}\n",
    "a long line": "name: " + "x" * 10**6,
    "a long key": "x" * 50_000 + ": 1\n", "too large": HEAD + "#" * 8_000_000,
}  # fmt: skip

TIFF = "format: tiff, path: "
PATHS = [
    "../x",
    "a/../../x",
    "/etc",
    "~root",
    "~",
    "C:/x",
    "C:\\\\x",
    "..\\\\x",
    "a\\0b",
    "a\\nb",
    "\\e[31mx",
    "..",
    "x" * 300,
    "x/" * 600,
]
NAMES = [
    "", " ", ".", "..", "../x", "a/b", "a\\\\b", "/", "a b", "a.b", "-a", "_a", "\\u0410", "\\uff21", "a\\u0301",
    "a\\u200bb", "\\U0001f9e0", "a\\n", "a\\0", "\\e[1m", "[red]", "<b>", "{{x}}", "$HOME", "a:b", "a*", "x" * 65,
    "\\ud800",
]  # fmt: skip
ODD_PATHS = [
    'federation.root="a\\0b"', 'federation.root="a\\nb"', "federation.root=~nobody-here/x",
    f"federation.root={'x' * 300}",
    'federation.cache="\\e[2J"', f"federation.cache={'x/' * 700}", "engine.scratch=~nobody-here",
    'engine.scratch="a\\0"',
    (f"{SOURCE}={{{TIFF}none}}", "none"), (f"{SOURCE}={{{TIFF}''}}", "data"),
    (f"{SOURCE}={{format: nifti, path: small.yaml}}", "small.yaml"),
    ("federation.sites.1.name=A", "two sites are named"), ("federation.sites.1.name=a", "two sites are named"),
]  # fmt: skip

IMPOSSIBLE = [
    ("federation.split={train: 0.5, val: 0.5, test: 0.5}", "train + val + test"),
    ("federation.split={train: 0, val: 0.5, test: 0.5}", "nothing to train"),
    ("federation.split={train: 0, val: 0, test: 0}", "train + val + test"),
    ("federation.split={by: block}", "split by block is for a single subject"),
    ("federation.split={by: block, train_subjects: 1}", "train_subjects"),
    ("federation.split.train_subjects=100", "train_subjects"),
    (f"{SOURCE}.subjects=1", "site A"), (f"{SOURCE}.subjects=2", "site A"),
    ("federation.clients=1", "federation.clients"),
    (f"faults=[{{kind: raise, client: A.{'9' * 5000}, round: 1}}]", "faults.0.client"),
    ("federation.clients=5", "federation.clients"), ("federation.clients=9223372036854775807", "federation.clients"),
    ("federation.sites=[{name: A, source: {format: phantom}, unseen: true}]", "unseen"),
    (f"federation.sites=[{{name: A, count: 3, source: {{{TIFF}x}}}}]", "count"), (f"{SOURCE}.te=500", "tr"),
    (f"{SOURCE}.ti=5", "ti"),
    ("federation.sites.0={name: A, count: 2, source: {format: phantom, seed: 3}}", "count"),
    ("federation.sites.1.source.ti=9000", "tr"),
    ("federation.sites=[{name: A, count: 9999999, source: {format: phantom}}, "
     "{name: B, count: 2, source: {format: phantom}}]",
        "sites"),
    ("federation.sites=[{name: A, count: 2, source: {format: phantom}}, {name: A-001, source: {format: phantom}}]",
        "A-001"),
    ("federation.sites.0.mask={kind: random, acceleration: 30}", "impossible mask"),
    ("federation.sites.0.mask={kind: radial, center_fraction: 0.9}", "impossible mask"),
    ("federation.sites.0.mask={kind: cartesian_vd, acceleration: 64}", "impossible mask"),
    ("federation.sites.0.mask={kind: gaussian2d, sigma: 0}", "sigma"),
    ("federation.sites.0.mask={kind: cartesian_vd, power: 11}", "power"),
    ("federation.sites.0.mask={kind: spiral}", "mask.kind"),
    ("federation.sites.0.mask={kind: random, power: 3}", "mask.power"),
    ("federation.sites.0.split={by: block, train: 0.5, val: 0.25, test: 0.25}", "split by block"),
    ("federation.sites=[{name: A, source: {format: phantom, subjects: 1, slices: 3}, split: {by: block, gap: 50}}]",
        "too few"),
]  # fmt: skip
METHODS = [
    "algorithm.name=fedawg", "algorithm.name=[fedavg]", ("algorithm={name: {a: b}}", "algorithm.name"),
    ("algorithm.name=no_such_module_here:X", "algorithm.name"),
    ("algorithm.name=json:JSONDecoder", "algorithm.name"), ("algorithm.name=json:Missing", "algorithm.name"),
    ("algorithm.name=../x:Y", "algorithm.name"),
    ("algorithm.name=a:b:c", "algorithm.name"), ("algorithm.name=':'", "algorithm.name"),
    ("algorithm={name: fedprox, mu: -1}", "algorithm.mu"),
    ("algorithm={name: fedprox, nu: 1}", "algorithm.nu"),
    ("algorithm={name: fedavg, weighting: best}", "algorithm.weighting"), ("model.name=vnet", "model.name"),
    ("model.domain=wavelet", "model.domain"), ("model={name: unet, heads: 8}", "model.heads"),
]  # fmt: skip


ENDLESS = [
    (f"time={{{mode}, latency_s: 7, available: {{share: 1.0e-6}}}}",
        "time: round 1: no client finishes its turn any more; raise time.available.share")
    for mode in (
        "mode: synchronous", "mode: deadline, deadline_s: 1", "mode: buffered, buffer: 1", "mode: asynchronous",
        "hierarchy: {regions: 2}",
    )
]  # fmt: skip
OVER = "time={latency_s: 7, available: {trace: t.csv}}"


def of_files(kind: str, files: dict[str, str] | dict[str, bytes]) -> Iterator[Bad]:
    for what, content in files.items():

        def write(folder: Path, content: str | bytes = content) -> None:
            (folder / "bad.yaml").write_bytes(content.encode() if isinstance(content, str) else content)

        yield Bad(kind, what, ("run", "bad.yaml"), "bad.yaml", write)


def bad_keys() -> Iterator[Bad]:
    yield from settings("unknown keys", UNKNOWN)
    yield from settings("wrong types", TYPES)
    yield from settings("out of range", RANGES)
    yield from of_files("YAML syntax", SYNTAX)
    yield from of_files("binary and other encodings", BYTES)
    yield from of_files("YAML bombs and tags", BOMBS)
    yield from settings("names", (f'federation.sites.0.name="{name}"' for name in NAMES))
    yield from settings("paths", ((f'{SOURCE}={{{TIFF}"{path}"}}', "path") for path in PATHS if path != "~"))
    yield from settings("paths", ODD_PATHS)
    yield from settings("splits, clients, masks, sequences", IMPOSSIBLE)
    yield from settings("methods and networks", METHODS)
    yield from settings("simulated time", ENDLESS)
    yield Bad(
        "simulated time", "a trace that ends before the rounds", ("run", "small.yaml", "--set", OVER),
        "time: round 2: no client finishes its turn any more; raise time.available.share, lower time.dropout, set "
        "time.available.period_h for the windows of a trace to return, or set training.rounds to at most 1",
        lambda folder: (folder / "t.csv").write_text("client,from_s,to_s\nA,0,9\nB,0,9\n"),
    )  # fmt: skip
