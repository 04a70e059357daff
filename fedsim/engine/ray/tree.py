"""The tree of sums: hosts' partial sums are added on their node, and the driver gets one vector a node.

Sums are exact, so the bits are those of a driver that adds everything itself. An adder costs a process of 65 MB and,
at the end of a phase, one more hop; it saves the driver a vector for every host of the node but one. So it pays where a
node has more than a few hosts. On a single node it never does: there the driver reads the hosts' sums from the memory
that it shares with them.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fedsim.engine.host.merging import Subtotal
from fedsim.engine.ray.adder import Adder
from fedsim.engine.ray.head import Head

FEW_HOSTS = 3
"""Hosts of a node that hand their sums straight to the driver."""
MOST_NODES = 64
"""Nodes whose adders do so."""
_AT_ONCE = 8  # subtotals on their way to the driver at a time, which bounds its memory


class Tree:
    """The adders of a run, at most one on a node; each is started when it is first needed."""

    def __init__(self, ray: Any, head: Head) -> None:  # noqa: ANN401 - the module ray
        self._ray, self._head = ray, head
        self._adders: dict[str, Any] = {}
        self._used: dict[str, Any] = {}
        self._asked: list[tuple[Any, Any]] = []  # adders, and the references to their subtotals

    @staticmethod
    def worthwhile(hosts: int, nodes: int) -> bool:
        """Whether a node has an adder.

        Args:
            hosts: At work on the node.
            nodes: With hosts at work.
        """
        return hosts > FEW_HOSTS and nodes > 1

    def begin(self, hosts: Mapping[str, int]) -> None:
        """Decide which nodes have an adder in a phase.

        Args:
            hosts: The number of hosts that will hand in sums, by node.
        """
        self._asked = []
        self._used = {node: self._started(node) for node, count in hosts.items() if self.worthwhile(count, len(hosts))}

    def adder(self, node: str) -> Any:  # noqa: ANN401 - Ray's handle
        """The adder to which the hosts of a node hand in their sums; None if they go to the driver."""
        return self._used.get(node)

    def ended(self, node: str) -> None:
        """Ask a node for its subtotal, if it has an adder: its hosts have all handed in their sums."""
        if node in self._used:
            adder = self._used[node]
            self._asked.append((adder, adder.subtotal.remote()))

    def subtotals(self) -> Iterator[Subtotal]:
        """What the adders have added, once the hosts of all nodes have ended.

        Raises:
            WorkerLostError: an adder is gone.
            RunError: it could not add.
        """
        asked = self._asked
        if len(asked) > MOST_NODES:
            size = math.ceil(math.sqrt(len(asked)))
            groups = [asked[at : at + size] for at in range(0, len(asked), size)]
            joined = [group[0][0].join.remote(subtotal) for group in groups for _, subtotal in group]
            asked = [(adder, adder.subtotal.remote()) for (adder, _), *_ in groups]
            self._head.get(joined)
        for at in range(0, len(asked), _AT_ONCE):
            yield from self._head.get([subtotal for _, subtotal in asked[at : at + _AT_ONCE]])

    def end(self) -> None:
        """Kill the adders; what they have added is void."""
        for adder in self._adders.values():
            self._ray.kill(adder)
        self._adders, self._used, self._asked = {}, {}, []

    def _started(self, node: str) -> Any:  # noqa: ANN401 - Ray's handle
        if node not in self._adders:
            there = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            remote = self._ray.remote(Adder).options(num_cpus=0, max_restarts=0, scheduling_strategy=there)
            self._adders[node] = remote.remote()
        return self._adders[node]
