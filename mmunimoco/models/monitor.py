"""Similarities of positives and negatives, for the log."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class PairMonitor:
    """Similarities for the log, without gradient; all of shape (N,).

    Attributes:
        nearest (Tensor): Largest similarity of all keys not left out.
        nearest_negative (Tensor): Largest similarity of a negative, ``-inf``
            without negatives.
        num_positives (Tensor): Number of positives.
        positive_sum (Tensor): Sum of the positives' similarities.
        negative_sum (Tensor): Sum of the negatives' similarities.
        num_negatives (Tensor): Number of negatives.
    """

    nearest: Tensor
    nearest_negative: Tensor
    positive_sum: Tensor
    negative_sum: Tensor
    num_positives: Tensor
    num_negatives: Tensor

    @classmethod
    def from_dense(
        cls, similarity: Tensor, positives: Tensor, ignored: Tensor
    ) -> 'PairMonitor':
        """Compute it from whole matrices.

        Args:
            similarity (Tensor): Shape (N, M), float.
            positives (Tensor): Shape (N, M), bool.
            ignored (Tensor): Keys that are neither positive nor negative,
                shape (N, M), bool.
        """
        similarity = similarity.detach()
        negatives = ~(positives | ignored)
        lowest = float('-inf')
        return cls(
            nearest=similarity.masked_fill(ignored, lowest).amax(1),
            nearest_negative=similarity.masked_fill(~negatives, lowest).amax(
                1
            ),
            positive_sum=similarity.masked_fill(~positives, 0).sum(1),
            negative_sum=similarity.masked_fill(~negatives, 0).sum(1),
            num_positives=positives.sum(1).to(similarity.dtype),
            num_negatives=negatives.sum(1).to(similarity.dtype),
        )

    def log_values(
        self, known: Tensor, any_known: bool, any_unknown: bool
    ) -> dict[str, Tensor]:
        """Summarise the batch for the log.

        Args:
            known (Tensor): Which queries are labeled, shape (N,), bool.
            any_known (bool): Whether any is; what the host knows already, so
                that it need not wait for the device.
            any_unknown (bool): Whether any is not.

        Returns:
            dict[str, Tensor]: Scalars. ``top1_labeled`` and
            ``top1_unlabeled``: share of the labeled / unlabeled queries whose
            nearest key is a positive, in percent.
            ``positives_per_labeled_query``: mean number of positives of a
            labeled query, its own key included. What is about labeled or
            unlabeled queries is left out if there are none, or zeros would
            enter the mean over steps. ``positive_similarity`` and
            ``negative_similarity``: mean over pairs, 0 if no query has a
            negative.
        """
        # The nearest key is a positive if no negative is as near.
        hits = 100.0 * (self.nearest > self.nearest_negative)
        values = {}
        if any_known:
            values['positives_per_labeled_query'] = _mean(
                self.num_positives, known
            )
            values['top1_labeled'] = _mean(hits, known)
        if any_unknown:
            values['top1_unlabeled'] = _mean(hits, ~known)
        values['positive_similarity'] = (
            self.positive_sum.sum() / self.num_positives.sum()
        )
        values['negative_similarity'] = (
            self.negative_sum.sum() / self.num_negatives.sum().clamp(min=1)
        )
        return values


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    mask = mask.to(values.dtype)
    return (values * mask).sum() / mask.sum()
