"""The section `engine`: how the simulation runs."""

from typing import Annotated, Literal

from pydantic import Field

from fedsim.core.section import FolderPath, Section


class Engine(Section):
    """How the simulation runs. Of these keys only the two that can drop a client from a round change what is trained:
    `on_client_error`, which a resumed run must keep, and `on_lost_process`. The best round is one with a checkpoint.
    """

    backend: Literal["ray", "serial"] = Field("ray", description="ray: actors; serial: this process, for debugging.")
    clients_per_actor: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="Clients that one Ray actor hosts, or more where fewer actors can train on GPUs; auto: as many "
        "actors as can train at once share them all, two a GPU.")  # fmt: skip
    threads: int = Field(1, ge=1, le=256, description="torch threads of a training client; recorded, since it can "
                         "change the last bits.")  # fmt: skip
    nodes: int | None = Field(None, ge=1, description="Number of nodes of the Ray cluster to use; default all.")
    nodes_timeout_s: float | None = Field(
        None, gt=0, description="Seconds to wait until the Ray cluster has as many nodes as `nodes` says; its "
        "autoscaler is asked for them, and may remove them after the run. Default: do not wait.")  # fmt: skip
    cores: int | None = Field(
        None, ge=1, description="Number of cores to use, spread evenly over the nodes; default all."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where clients train; auto: on GPUs if Ray has any."
    )
    deterministic: bool = Field(
        True, description="On GPUs use only kernels that give the same bits every time; false: others may be faster, "
        "and a run repeated, resumed or placed otherwise ends in other last bits.")  # fmt: skip
    graphs: bool = Field(
        True, description="On GPUs capture a training step once and replay it, which gives the same bits sooner; "
        "false: for networks that cannot be captured.")  # fmt: skip
    state_memory: float | None = Field(
        None, ge=0, le=1e6, description="Memory [GB] of a node for clients' private state; the rest is kept in a "
        "file in scratch. Default half of what Ray counts as the node's.")  # fmt: skip
    device_memory: float | None = Field(
        None, ge=0, le=1e6, description="Memory [GB] of a GPU for the private state of its clients; what is beyond it "
        "lies in state_memory, and is copied while other clients train. Default two fifths of the GPU's.")  # fmt: skip
    slice_memory: float | None = Field(
        None, ge=0, le=1e6, description="Memory [GB] of a node for training slices; the rest is read from "
        "shards in every epoch. Default a fifth of what Ray counts as the node's.")  # fmt: skip
    scratch: FolderPath | None = Field(
        None, description="Folder on each node for private state beyond state_memory; default the system's for "
        "temporary files.")  # fmt: skip
    checkpoint_every: int = Field(1, ge=0, description="Rounds between checkpoints; 0: only at the end.")
    keep_last: int = Field(2, ge=1, description="Checkpoints kept besides the best round's.")
    on_lost_process: Literal["replay", "drop", "abort"] = Field(
        "replay", description="When a process or a node is lost: replace it, go back to the last checkpoint and "
        "replay; or do the same, but leave the client that it was working for out of that round, for which "
        "training.fuse must be 1; or stop.")  # fmt: skip
    retries: int = Field(3, ge=0, description="Consecutive losses tolerated without a new checkpoint in between.")
    client_timeout_s: float | None = Field(
        None, gt=0, description="Seconds that a client may train in a phase, reading its data included, times "
        "training.fuse; then its process is killed and counts as lost. Default none; needs backend ray.")  # fmt: skip
    on_client_error: Literal["abort", "drop"] = Field(
        "abort", description="When a client raises in its training, or its numbers are not finite, which would only "
        "repeat itself: stop, or leave the client out of that round, its private state as it was.")  # fmt: skip
