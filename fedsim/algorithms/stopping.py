"""Early stopping: when a run ends before its last round, judged by validation alone."""

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from fedsim.core.section import Section


class EarlyStopping(Section):
    """End the run when validation no longer improves; a function of the rounds so far, so a resumed run agrees."""

    patience: int = Field(5, ge=1, description="Rounds without a better validation after which the run stops.")
    min_delta: float = Field(0.0, ge=0, description="What counts as better: by more than this, in units of the metric.")
    metric: Literal["psnr", "ssim", "nmse"] = Field(
        "psnr", description="Validation quality, mean over clients; nmse is better when it falls."
    )

    def verdict(self, validated: Iterable[tuple[int, float]]) -> str:
        """Why the run stops, or an empty text while it continues.

        Args:
            validated: Rounds in their order, with their mean validation quality; NaN where a round has none.
        """
        best, since = -math.inf, 0
        sign = -1 if self.metric == "nmse" else 1
        for round_, value in validated:
            if math.isnan(value):
                continue
            if sign * value > best + self.min_delta or not since:
                best, since = sign * value, round_
            elif round_ - since >= self.patience:
                enough = f" by more than {self.min_delta:g}" if self.min_delta else ""
                ago = f"since round {since}"
                return f"stopped early at round {round_}: validation {self.metric} has not improved{enough} {ago}"
        return ""
