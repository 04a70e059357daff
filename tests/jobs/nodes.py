"""A cluster without processes, which says what its nodes have and keeps what it is sent."""

from fedsim.engine.place.node import Node
from fedsim.jobs.ray_jobs import RayJobs
from fedsim.jobs.target import Status, Submission


class Nodes(RayJobs):
    """A cluster of two nodes that takes a job."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, url)
        self.sent: list[Submission] = []

    def nodes(self) -> tuple[Node, ...]:
        return tuple(Node(id=name, name=name, cpus=2, actor_memory=8e9, total_memory=16e9) for name in ("a", "b"))

    def status(self, submission_id: str) -> Status:
        return Status("unknown")

    def submit(self, submission: Submission) -> None:
        self.sent.append(submission)
