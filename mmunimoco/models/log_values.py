"""What the head logs of a batch."""

from torch import Tensor

from .labels import SampleLabels
from .pair_statistics import PairMonitor


def log_values(
    monitor: PairMonitor, samples: SampleLabels
) -> dict[str, Tensor]:
    """Average over the batch; see ``UniMoCoHead.loss``.

    Args:
        monitor (PairMonitor): Similarities of the N queries.
        samples (SampleLabels): Labels of the N queries.

    Returns:
        dict[str, Tensor]: Scalars.
    """
    # The nearest key is a positive if no negative is as near.
    hits = 100.0 * (monitor.nearest > monitor.nearest_negative)
    known, values = samples.known, {}
    # Zeros for absent queries would enter the mean over the steps of a log
    # line. What the batch holds is known to the host, so nothing waits.
    if samples.has_labels:
        values['positives_per_labeled_query'] = masked_mean(
            monitor.num_positives, known
        )
        values['top1_labeled'] = masked_mean(hits, known)
    if samples.has_unlabeled:
        values['top1_unlabeled'] = masked_mean(hits, ~known)
    return values | mean_similarities(monitor)


def mean_similarities(monitor: PairMonitor) -> dict[str, Tensor]:
    """Mean cosine similarities over the positive and the negative pairs."""
    positives = monitor.positive_sum.sum() / monitor.num_positives.sum()
    num_negatives = monitor.num_negatives.sum().clamp(min=1)
    return dict(
        positive_similarity=positives,
        negative_similarity=monitor.negative_sum.sum() / num_negatives,
    )


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries that ``mask`` marks; NaN if there are none."""
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum()
