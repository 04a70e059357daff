"""TensorBoard: event files in the run directory. Their scalars are float32."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from fedsim.trackers.base import Status, Tracker
from fedsim.trackers.tracked import Tracked


class TensorBoard(Tracker):
    """Event files in the run directory, for `tensorboard --logdir runs`."""

    packages: ClassVar[tuple[str, ...]] = ("tensorboard.summary.writer.event_file_writer",)

    name: Literal["tensorboard"] = Field(description="TensorBoard: event files in the run directory.")

    _writer: Any = PrivateAttr(None)
    _last: int = PrivateAttr(0)

    def begin(self, run: Tracked) -> None:
        """Readers drop what an earlier process wrote of rounds that follow."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(run.folder))
        self._last = self.reached(run)
        self._add(self._last + 1, session_log=SessionLog(status=SessionLog.START))
        if not run.notes:
            self._add(0, summary=_text(run.file.stem, run.file.read_text(encoding="utf-8")))

    def scalars(self, round_: int, values: Mapping[str, float]) -> None:
        """On disk when it returns."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(round_, summary=Summary(value=points))
        self._writer.flush()
        self._last = round_

    def end(self, status: Status, digest: str, figures: Sequence[Path]) -> None:
        """With the last round: the digest as text, and the figures."""
        if digest:
            self._add(self._last, summary=_text("digest", digest))
        for figure in figures:
            self._add(self._last, summary=_image(figure))
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(step=step, wall_time=time.time(), **content))


def _text(tag: str, text: str) -> Any:
    """A summary with a text, as TensorBoard's plugin for texts expects it; YAML keeps its lines."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    shown = "\n".join(f"    {line}" for line in text.splitlines())  # a code block of Markdown
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[shown.encode()], tensor_shape=shape)
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def _image(figure: Path) -> Any:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(figure) as opened:
        width, height = opened.size
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=figure.read_bytes())
    return Summary(value=[Summary.Value(tag=f"figures/{figure.stem}", image=image)])
