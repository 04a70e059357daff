"""docs/methods.md says what the code does: bytes, settings, files, sources. Tables there are made by `table_of`."""

import inspect
import re
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from fedsim.algorithms.base import Algorithm
from fedsim.algorithms.catalogue import ALGORITHMS
from fedsim.algorithms.fedmri import FedMRI
from fedsim.algorithms.fusing import one_by_one
from fedsim.models.base import is_encoder
from fedsim.models.reconstruction import UNetModel

from .conftest import Simulate

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
HEADER = "| key | default | |\n|---|---|---|"


def name_of(kind: type[Algorithm]) -> str:
    return str(kind.model_fields["name"].default)


NAMES = [name_of(kind) for kind in ALGORITHMS]


def crossing(method: Algorithm, model: UNetModel, clients: int, latents: int) -> tuple[int, int]:
    """Bytes up and down of a client in a round from the second on; `latents`: latent vectors a client sends."""
    network = model.network()
    P = sum(p.numel() for name, p in network.named_parameters() if method.shares(name))
    features = latents * network.latent_channels
    up, down = {
        "scaffold": (2 * P, 2 * P),
        "fl_mrcm": (P + features, P + (clients - 1) * features),
        "fedmri": (P, (1 + clients) * P),
        "fedmri, moments": (2 * P, 2 * P + 1),
        "frozen_encoder": (0, 0),
    }.get(_variant(method), (P, P))
    return 4 * up, 4 * down


def _variant(method: Algorithm) -> str:
    """The method, and what of FedMRI's settings its bytes depend on."""
    if isinstance(method, FedMRI):
        other = "l1" if method.term == "l1" else "moments" if method.negatives == "moments" else ""
        return "fedmri" + f", {other}" * bool(other)
    return method.name


def bytes_table() -> str:
    """Up and down of every method for the default network; FL-MRCM's 16 slices have 8 x 8 positions each."""
    lines = ["| method | up | down |", "|---|---:|---:|"]
    methods = {f"`{name_of(kind)}`": kind() for kind in ALGORITHMS}
    methods["`fedmri`, `negatives: moments`"] = FedMRI(negatives="moments")
    methods["`fedmri`, `term: l1`"] = FedMRI(term="l1")
    for title, method in sorted(methods.items()):
        up, down = crossing(method, UNetModel(), clients=4, latents=16 * 8 * 8)
        lines.append(f"| {title} | {up:,} | {down:,} |")
    return "\n".join(lines)


def settings_table(kind: type[Algorithm]) -> str:
    """Keys of a method that others need not have, as the workload's schema has them."""
    rows = []
    for key, field in kind.model_fields.items():
        if key == "name" or (key == "weighting" and kind is not Algorithm):
            continue
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        default = str(default).replace("'", "").replace("True", "true")
        rows.append(f"| `{key}` | `{default}` | {field.description} |")
    return "\n".join([HEADER, *rows]) if rows else "No further settings."


@cache
def tables() -> dict[str, str]:
    """What the page must have, under a comment that says what it is."""
    settings = {f"settings of {name_of(kind)}": settings_table(kind) for kind in ALGORITHMS}
    return {"bytes": bytes_table(), "settings of all": settings_table(Algorithm), **settings}


def sections() -> dict[str, str]:
    """The text under every ### heading."""
    _, *parts = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0]: re.split(r"^## ", part, flags=re.MULTILINE)[0] for part in parts}


@pytest.mark.slow
@pytest.mark.parametrize("what", tables())
def test_the_page_has_the_tables_that_the_code_makes(what: str) -> None:
    """On failure: `python -m tests.algorithms.test_methods_doc` rewrites them."""
    expected = f"<!-- {what} -->\n{tables()[what]}\n"
    assert expected in PAGE.read_text(encoding="utf-8"), f"docs/methods.md should have:\n{expected}"


@pytest.mark.slow
def test_the_page_counts_the_parameters_right() -> None:
    sizes = {name: p.numel() for name, p in UNetModel().network().named_parameters()}
    encoder = sum(size for name, size in sizes.items() if is_encoder(name))
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"{encoder:,} parameters in the encoder, {sum(sizes.values()):,} in all" in page


def test_the_page_says_which_methods_train_their_clients_one_by_one() -> None:
    """As their code does, whatever `training.fuse` is."""
    found = defaultdict[str, list[str]](list)
    for kind in ALGORITHMS:
        found[one_by_one(kind(), ("A", "B"))].append(f"`{name_of(kind)}`")
    assert len(found.pop("")) > 10
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    said = " and of ".join(f"{' and '.join(names)} ({reason})" for reason, names in sorted(found.items(), reverse=True))
    assert f"clients train as one network, except those of {said}, which train one by one" in page


@pytest.mark.slow
def test_every_method_has_a_section_with_its_file_and_its_source() -> None:
    assert sorted(sections()) == sorted(NAMES)
    for kind in ALGORITHMS:
        section = sections()[name_of(kind)]
        file = Path(inspect.getfile(kind)).name
        assert f"[{file}](../fedsim/algorithms/{file})" in section
        for source in re.findall(r"\d{4}\.\d{5}|10\.1109/[\w.]+\d", sys.modules[kind.__module__].__doc__ or ""):
            assert source in section, f"{name_of(kind)}: {source}"
        assert len(section.splitlines()) <= 40, f"{name_of(kind)}: longer than a screen"


@pytest.mark.slow
def test_every_link_of_the_page_leads_somewhere() -> None:
    text = PAGE.read_text(encoding="utf-8")
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        assert (PAGE.parent / file).exists() if file else anchor in headings, target


KEYS = {  # FL-MRCM: all sites of one matrix, so that latents can be counted
    "fl_mrcm": ("algorithm.feature_slices=2", "federation.sites.1.matrix=[16, 16]"),
    "fedmri, moments": ("algorithm.negatives=moments", "algorithm.damping=0.5"),
    "fedmri, l1": ("algorithm.term=l1", "algorithm.beta=1e-3"),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", [*NAMES, "fedmri, moments", "fedmri, l1"])
def test_the_ledger_counts_the_bytes_of_the_table(simulate: Simulate, method: str) -> None:
    """In a small run; what the table says for the large network is the same formula."""
    run = simulate(method.partition(",")[0], *KEYS.get(method, ()))
    loaded, later = run.workload, run.clients[run.clients["round"] > 1]
    up, down = crossing(loaded.algorithm, loaded.model, clients=4, latents=2 * 8 * 8)
    assert set(later["uplink_bytes"]) == {up}
    assert set(later["downlink_bytes"]) == {down}


def rewrite() -> None:
    """Put the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for what, table in tables().items():
        text = re.sub(rf"<!-- {what} -->\n(?:(?:\||No further settings).*\n)*", f"<!-- {what} -->\n{table}\n", text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
