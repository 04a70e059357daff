"""Writes docs/gallery.md from the committed studies in docs/results: python docs/make_gallery.py."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jinja2
from make_results import comparison, endpoint, findings, overview, time_to_quality

DOCS = Path(__file__).parent
ON_HOSPITALS = "--set set.federation.root=FOLDER"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A study, and what the gallery shows of it."""

    study: str
    """Its folder in docs/results and its file in workloads."""
    asks: str
    figure: str
    """A picture in docs/images, drawn by the study or by `fedsim report`."""
    found: Callable[[str], str]
    """Makes the study's tables, with its findings as a list."""
    begins: str
    """How the finding begins that the gallery shows."""
    where: str = ""
    """In which of the study's regimes that is."""
    options: str = ""
    """Of the command."""


GALLERY = (
    Shown(
        study="compare-methods", asks="Which of seventeen methods serves four real hospitals best?",
        figure="compare-methods-differences", found=comparison, begins="fedmri leads fedavg by",
        where="with all training subjects", options=ON_HOSPITALS,
    ),
    Shown(
        study="compare-nine-sites", asks="And nine sites: brain, kidney, knee and heart?",
        figure="compare-nine-sites-differences", found=comparison, begins="no method", options=ON_HOSPITALS,
    ),
    Shown(
        study="client-count-hospitals", asks="What happens when the same patients are divided among more clients?",
        figure="client-count-hospitals", found=overview, begins="fedmri, from N", options=ON_HOSPITALS,
    ),
    Shown(
        study="client-count-phantoms", asks="And when more hospitals of the same kind join, up to a thousand?",
        figure="client-count-phantoms", found=overview, begins="fedmri, from N",
    ),
    Shown(
        study="client-count-law", asks="Does quality follow a law in the number of hospitals, once training is over?",
        figure="client-count-law", found=overview, begins="fedmri, per tenfold N",
        options="--set 'clients=[4,10,32,100,316]' --set 'seeds=[1,2,3]'",
    ),
    Shown(
        study="one-axis", asks="Who gains as two of four hospitals grow unlike the others, along one axis at a time?",
        figure="one-axis", found=findings, begins="fedmri over fedavg along federation.sites.1.source.te",
        options="--set 'seeds=[1,2,3]'",
    ),
    Shown(
        study="client-count-exact", asks="Do the moments of FedMRI's negatives do as well as the negatives themselves?",
        figure="client-count-exact", found=overview, begins="clients-100: no method",
    ),
    Shown(
        study="modes-hospitals", asks="Whom should the server wait for, if one hospital takes nine times as long?",
        figure="modes-hospitals", found=time_to_quality, begins="buffered reaches", options=ON_HOSPITALS,
    ),
    Shown(
        study="modes-slow-sites", asks="And among a thousand hospitals that differ fifty-fold in speed?",
        figure="modes-slow-sites", found=time_to_quality, begins="buffered reaches",
    ),
    Shown(
        study="varnet-federated", asks="Does the split help an unrolled network on raw data of several coils?",
        figure="varnet-federated", found=comparison, begins="fedmri leads fedavg by",
    ),
    Shown(
        study="settling", asks="Does FedMRI's term help at the paper's learning rate?",
        figure="settling", found=endpoint, begins="beta-100 is", options=f"{ON_HOSPITALS} --only few-lr-1e-4",
    ),
    Shown(
        study="alignment", asks="Does FL-MRCM align four hospitals' features, and does that help?",
        figure="alignment", found=endpoint, begins="aligned is", options=ON_HOSPITALS,
    ),
    Shown(
        study="scaling-strong", asks="How much faster is the same work on two cores?",
        figure="scaling-strong", found=overview, begins="fedavg: ",
    ),
    Shown(
        study="scaling-weak", asks="And twice or three times the work on as many nodes, which here share two cores?",
        figure="scaling-weak", found=overview, begins="fedavg: ",
        options="--set cores=null --set nodes=[1,2,3] --cluster local --wait",
    ),
)  # fmt: skip


def shown(entry: Shown) -> str:
    """A study's part of the page."""
    finding = next(line for line in entry.found(entry.study).splitlines() if line.startswith(f"* {entry.begins}"))
    command = "submit" if "--cluster" in entry.options else "study"
    return "\n\n".join([
        f"## {entry.study}",
        entry.asks,
        f"![{entry.asks}](images/{entry.figure}.png)",
        "Found" + f" {entry.where}".rstrip() + f": {finding.removeprefix('* ')}.",
        f"    fedsim {command} workloads/{entry.study}.yaml {entry.options}".rstrip(),
        f"The study: [{entry.study}.yaml](../workloads/{entry.study}.yaml)",
    ])  # fmt: skip


def render() -> str:
    """The text of docs/gallery.md."""
    loader = jinja2.FileSystemLoader(DOCS)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.get_template("gallery.md.j2").render(studies="\n\n".join(map(shown, GALLERY)))


if __name__ == "__main__":
    (DOCS / "gallery.md").write_text(render() + "\n", encoding="utf-8")
