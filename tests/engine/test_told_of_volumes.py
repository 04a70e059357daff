"""What a federation knows of its volumes besides their k-space: phase, the effective acceleration, boxes."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from fedsim.core.errors import InputError
from fedsim.engine.federation import assemble
from fedsim.mri.masks import effective_acceleration, measured_acceleration
from fedsim.workload.reading import load_workload, write_yaml
from fedsim.workload.schema import Workload

SIDE = 32


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    """A site of magnitudes in files, one of phantoms, and a table with a box in one of the files."""
    (tmp_path / "A").mkdir()
    for number in range(4):
        image = np.random.default_rng(number).random((3, SIDE, SIDE - 8)).astype(np.float32) + 1
        tifffile.imwrite(tmp_path / "A" / f"s{number}.tif", image, photometric="minisblack")
    (tmp_path / "boxes.csv").write_text("file,slice,x,y,width,height\ns1,1,0,2,4,6\n")
    mask = {"kind": "random", "acceleration": 4}
    content = {
        "name": "told",
        "federation": {
            "root": str(tmp_path), "cache": str(tmp_path / "cache"), "matrix": [SIDE, SIDE],
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            "sites": [
                {"name": "A", "source": {"format": "tiff", "path": "A", "subject": "file"}, "mask": mask},
                {"name": "P", "source": {"format": "phantom", "subjects": 4, "slices": 2, "size": 32}, "mask": mask},
            ],
        },
        "model": {"channels": 2, "pools": 1},
        "algorithm": {"name": "fedavg"},
        "engine": {"backend": "serial"},
        "metrics": {"boxes": "boxes.csv"},
    }  # fmt: skip
    (tmp_path / "w.yaml").write_text(write_yaml(content))
    return load_workload(tmp_path / "w.yaml")


def test_conjugate_partners_count_where_images_have_no_phase(workload: Workload) -> None:
    federation = assemble(workload)
    manifest = federation.manifest.drop_duplicates(["site", "volume"]).set_index("site")
    data = {client.name: client.data.members[0] for client in federation.clients}
    for row in manifest.loc["A"].itertuples():
        mask = data["A"].volume_mask(str(row.volume), (SIDE, SIDE))
        assert row.acceleration == measured_acceleration(mask)
        assert row.effective_acceleration == effective_acceleration(mask) < 0.9 * row.acceleration
    assert (manifest.loc["P", "effective_acceleration"] == manifest.loc["P", "acceleration"]).all(), (
        "phantoms have phase"
    )
    assert not any(piece.phase for piece in data["A"].pieces)
    assert all(piece.phase for piece in data["P"].pieces)


def test_boxes_reach_the_volume_that_they_are_in(workload: Workload, tmp_path: Path) -> None:
    (client, _) = assemble(workload).clients
    found = {piece.subject: piece.boxes for piece in client.data.members[0].pieces if piece.boxes}
    assert found == {"s1": ((1, SIDE - 8, SIDE - 2, 4, 8),)}, "padded to a square, and turned upside down"
    (tmp_path / "boxes.csv").write_text("file,slice,x,y,width,height\ns1,1,30,2,4,6\n")
    with pytest.raises(InputError, match=r"metrics\.boxes: A/s1\.tif: a box .* lies outside its image of 32 x 24"):
        assemble(workload)
