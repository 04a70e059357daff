"""Finding slices that cannot be trained on, once a loss is no number."""

from fedsim.data.samples import Slices

_OUT_OF_PROPORTION = 1e4  # in units of the scale: larger values occur in slices that hardly vary


def unsound(data: Slices) -> str:
    """The first training slice whose prepared values are not finite or out of proportion; empty if all are sound."""
    for member in data.members:
        slices = member.training_slices()
        with member.open() as shard:
            for piece, index, mask in slices:
                batch = member.prepared(shard, piece.volume, [index], mask)
                if not max(float(batch.target.amax()), float(batch.zero_filled.amax())) < _OUT_OF_PROPORTION:
                    return f"slice {index} of {piece.volume} (site {member.site})"
    return ""
