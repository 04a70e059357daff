"""Every client's model on every site's data: how well models transfer, and what a site would lose with another's.

A client is scored on its own site exactly as by `evaluate`; sites that took no part are columns too.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pandas as pd
import torch

from fedsim.core.errors import InputError
from fedsim.data.evaluation import reconstruct_volumes
from fedsim.data.samples import ClientData
from fedsim.data.split import Part
from fedsim.engine.federation import Federation, assemble
from fedsim.engine.host.client import ClientSpec
from fedsim.engine.host.messages import Row
from fedsim.engine.record.ledger import stamped
from fedsim.engine.record.resuming import check_manifest
from fedsim.engine.record.run_directory import Run, Which


def cross_evaluate(run: Run, which: Which = "best", part: Part = "test") -> pd.DataFrame:
    """Score every client's deployed model on every site's volumes of a part, as far as they have taken part.

    Returns:
        One row per model and volume: round, client (of the model), site (of the data), own (whether the site is the
        client's), subject, volume, split, protocol, nmse, psnr [dB], ssim, zf_nmse, zf_psnr, zf_ssim,
        acceleration, within_subject, normalise, algorithm, seed.

    Raises:
        InputError: there is no such round, the data are not those of the run, or no site has data in the part.
    """
    round_ = run.round(which)
    federation = assemble_as_before(run)
    clients = [federation.clients.named(name) for name in run.stored(round_)]
    sites = list(_sites((*clients, *federation.unseen), part))
    if not sites:
        raise InputError(f"{run.path}: no site has data in the {part} split")
    with threads(run.workload.engine.threads):
        rows = [
            {"round": round_, "client": client.name, **row}
            for client in clients
            for row in _scores(run, round_, client, sites, part)
        ]
    return stamped(rows, run.workload, federation)


def assemble_as_before(run: Run) -> Federation:
    """The federation of a run.

    Raises:
        InputError: its data cannot be read, or have changed since the run began.
    """
    federation = assemble(run.runnable)
    check_manifest(run.path, federation)
    return federation


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Give torch as many threads as the run's hosts had, since this can change the last bits; restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sites(clients: Iterable[ClientSpec], part: Part) -> Iterator[tuple[ClientData, int]]:
    """Every site's data, with the batch size of `evaluate`; sites without data in the part are left out."""
    seen: set[str] = set()
    for client in clients:
        for data in client.data.members:
            if data.site not in seen and data.samples(part):
                seen.add(data.site)
                yield data, client.training.batch_size


def _scores(
    run: Run, round_: int, client: ClientSpec, sites: list[tuple[ClientData, int]], part: Part
) -> Iterator[Row]:
    network = run.learner(client.name, round_).network
    protocol = run.workload.metrics.protocol
    own = {member.site for member in client.data.members}
    for data, size in sites:
        for volume in reconstruct_volumes(network, data, part, size):
            yield {"own": data.site in own, "protocol": protocol, **volume.score(protocol)}
