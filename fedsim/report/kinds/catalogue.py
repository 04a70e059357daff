"""The kinds of study by their name in study files, `kind`; `fedsim.study.kinds` defines what each sweeps over."""

from fedsim.analysis.scaling_law import STRONG, WEAK
from fedsim.report.kinds.ablation import AblationKind
from fedsim.report.kinds.base import StudyKind
from fedsim.report.kinds.client_count import ClientCountKind
from fedsim.report.kinds.compare import CompareKind
from fedsim.report.kinds.scaling import ScalingKind

KINDS: dict[str, StudyKind] = {
    "compare": CompareKind(),
    "ablation": AblationKind(),
    "client-count": ClientCountKind(),
    "scaling-strong": ScalingKind(STRONG, "a strong-scaling study: the same work on more workers"),
    "scaling-weak": ScalingKind(WEAK, "a weak-scaling study: work in proportion to the workers"),
}
