"""What a study is judged by, fixed in its file before anything runs."""

from typing import Literal

from pydantic import Field

from fedsim.core.section import Section

Metric = Literal["psnr", "ssim", "nmse", "hfen", "roi_psnr", "roi_ssim", "roi_nmse"]


class Endpoint(Section):
    """The one quantity that methods are judged by, on test data, patient by patient; all others are exploratory.

    A study that has begun keeps it: a margin that is chosen after the results were seen shows nothing.
    """

    metric: Metric = Field(
        "psnr", description="Quality of a test volume; those of boxes need metrics.boxes in the workload."
    )
    margin: float = Field(
        gt=0,
        le=100,
        description="Largest difference that does not matter, in the metric's unit: methods are called equivalent "
        "only where their difference is shown to be below it.",
    )
