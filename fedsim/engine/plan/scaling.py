"""How long a round takes on a cluster that is not there, from what this machine was measured to do.

One round of one phase, without validation and checkpoint, with `engine.clients_per_actor: auto`:

    K         = min(nodes * cores, n)                     hosts at work for n clients
    training  = t * ceil(n / K)                           t: a client's time on one core
    broadcast = min(nodes, K) * b / wire                  b bytes, from the driver to every node with hosts once
    calls     = K * max(launch, end)                      the last host begins K * launch late, and the driver hears
                                                          the ends of hosts one after the other
    nodes     = s / adder + max(0, h * s / adder - calls) s bytes of float64 sums from each of a node's h hosts; adders
                                                          work while the driver hears the next host
    groups    = (g - 1) * s / wire + g * s / adder        above 64 nodes, in groups of g = ceil(sqrt(nodes))
    link      = v * s / wire                              v vectors into the driver: one a node, or a group; one a host
    driver    = v * s / driver                            where there are no adders; no wire on a single node
    ledger    = n * row                                   rows of clients.parquet, from pieces to the table
    reports   = what these lack of K * (launch + (1 + training / r) * piece + end), the driver's work: a host says that
                                                          it is at work, and reports every r seconds
    seconds   = the sum of these
    efficiency = n * t / (nodes * cores) / seconds

t and b are those of the plan (`calibration.py`, `sizes.py`), with this machine's cores. launch, piece, end, adder,
driver and row are measured when the model is asked for (`rates.py`), with the engine's own code and hosts that train
nothing. The wire is given. Which nodes have adders, and groups, is as in `engine/ray/tree.py`.

What it leaves out: variation between clients, other users of machines and network, Ray's own limits with thousands of
processes, and a data set that does not lie on the nodes.
"""

import math
from dataclasses import asdict, dataclass, replace

from fedsim.engine.backend import report_seconds
from fedsim.engine.plan.plan import Plan
from fedsim.engine.ray.tree import MOST_NODES, Tree

_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the driver and an adder do in a second."""

    launch: float
    """Calling a host [s]."""
    piece: float
    """Hearing a piece of a host's answer [s]."""
    end: float
    """Hearing the last piece and the end [s]."""
    driver: float
    """Sums that the driver fetches and adds [bytes per second]."""
    adder: float
    """Sums that an adder adds [bytes per second]."""
    row: float
    """A row of the ledger: receiving it and putting it into the table [s]."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Machines that are all alike."""

    nodes: int
    """Their number."""
    cores: int
    """Of each node."""
    gbit: float
    """Of each node's link [Gbit/s]."""

    def __str__(self) -> str:
        nodes = f"{self.nodes:,} nodes" if self.nodes > 1 else "one node"
        return f"{nodes} of {self.cores} cores, {self.gbit:g} Gbit/s"


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round does."""

    clients: int
    """That are drawn."""
    client: float
    """A client's time on one core [s]."""
    broadcast: float
    """What the server sends to all [bytes]."""
    sums: float
    """A host's partial sums [bytes]."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Where the time of a round goes [s]."""

    training: float  # s
    broadcast: float  # s, sending it to every node
    calls: float  # s, of the driver
    nodes: float  # s, adding hosts' sums on their nodes
    groups: float  # s, adding nodes' sums for groups of nodes
    link: float  # s, of sums into the driver
    driver: float  # s, adding there
    ledger: float  # s, of its rows
    reports: float = 0.0  # s, that the driver is behind


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A round on a cluster."""

    cluster: Cluster
    parts: Parts
    seconds: float
    """All of it."""
    efficiency: float
    """Of all cores: the clients' own time, divided by cores times seconds."""
    bottleneck: str
    """The longest part besides training."""


def round_of(plan: Plan) -> Round:
    """What a round of a plan does; of several phases, all of them as if they were one.

    Args:
        plan: With times.
    """
    assert plan.times is not None, "a plan that fits has times"
    phases = plan.traffic.phases.values()
    return Round(
        clients=plan.cohort,
        client=plan.times.client[1],
        broadcast=sum(phase.broadcast for phase in phases),
        sums=sum(phase.summed for phase in phases),
    )


def predict(round_: Round, cluster: Cluster, rates: Rates) -> Prediction:
    """How long a round takes on a cluster."""
    cores = cluster.nodes * cluster.cores
    hosts = min(cores, round_.clients)
    parts = _parts(round_, cluster, rates, hosts)
    each = rates.launch + (1 + parts.training / report_seconds(hosts)) * rates.piece + rates.end
    parts = replace(parts, reports=max(0.0, hosts * each - sum(asdict(parts).values())))
    seconds = sum(asdict(parts).values())
    others = {name: part for name, part in asdict(parts).items() if name != "training"}
    return Prediction(
        cluster=cluster,
        parts=parts,
        seconds=seconds,
        efficiency=round_.clients * round_.client / cores / seconds,
        bottleneck=max(others, key=others.__getitem__),
    )


def _parts(round_: Round, cluster: Cluster, rates: Rates, hosts: int) -> Parts:
    wire = math.inf if cluster.nodes == 1 else cluster.gbit * 1e9 / _BITS
    here = math.ceil(hosts / cluster.nodes)
    adders = Tree.worthwhile(here, cluster.nodes)
    group = math.ceil(math.sqrt(cluster.nodes)) if adders and cluster.nodes > MOST_NODES else 1
    vectors = math.ceil(cluster.nodes / group) if adders else hosts
    adding, calls = round_.sums / rates.adder, hosts * max(rates.launch, rates.end)
    return Parts(
        training=round_.client * math.ceil(round_.clients / hosts),
        broadcast=min(cluster.nodes, hosts) * round_.broadcast / wire,
        calls=calls,
        nodes=adding + max(0.0, here * adding - calls) if adders else 0.0,
        groups=(group - 1) * round_.sums / wire + group * adding if group > 1 else 0.0,
        link=vectors * round_.sums / wire,
        driver=vectors * round_.sums / rates.driver,
        ledger=round_.clients * rates.row,
    )
