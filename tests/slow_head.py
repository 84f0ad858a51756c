"""The head of UniMoCo written out with Python lists, one pair at a time."""

import torch

UNLABELED = frozenset()


def label_set(label):
    """A label as a set of classes: int (-1 unlabeled) or multi-hot row."""
    if label.dim():
        return frozenset(label.nonzero().flatten().tolist())
    return UNLABELED if label < 0 else frozenset([int(label)])


class SlowHead:
    """Queue and labeling rules, entry by entry, in float64.

    Args:
        head (UniMoCoHead): Gives the options and the first content.
        reference (Callable): Loss of one query, from ``loss_references``.
    """

    def __init__(self, head, reference):
        self.head, self.reference = head, reference
        indices = [-1] * head.queue_len
        self.entries = [
            [key.double().clone(), label_set(label), index]
            for key, label, index in zip(
                head.queue, head.label_queue, indices, strict=True
            )
        ]
        self.next = 0

    def loss(self, query, key, labels, indices=None, batch=None, offset=0):
        """Mean loss of the queries, then enqueue the batch.

        ``batch`` is the (key, labels, indices) of all ranks, of which this
        rank's own start at ``offset``.
        """
        n = len(query)
        indices = (
            torch.arange(10**6, 10**6 + n) if indices is None else indices
        )
        batch = batch or (key, labels, indices)
        losses = []
        for i in range(n):
            scores, mask = self._pairs(
                query[i].double(),
                key[i].double(),
                label_set(labels[i]),
                int(indices[i]),
                batch,
                offset + i,
            )
            losses.append(self.reference(scores, mask))
        for entry in zip(*batch, strict=True):
            self._enqueue(*entry)
        return float(sum(losses) / n)

    def _pairs(self, query, own_key, label, index, batch, place):
        head = self.head
        scores = [float(query @ own_key) / head.positive_temperature]
        mask = [True]
        for key, key_label, key_index in self.entries:
            positive = bool(label & key_label)
            if head.exclude_own_keys and index == key_index:
                continue
            if head.ignore_unlabeled_keys and label and not key_label:
                continue
            tau = head.positive_temperature if positive else head.temperature
            scores.append(float(query @ key) / tau)
            mask.append(positive)
        if head.in_batch_positives:
            for j, (key, key_label, key_index) in enumerate(
                zip(*batch, strict=True)
            ):
                if j == place or not label & label_set(key_label):
                    continue
                if head.exclude_own_keys and index == int(key_index):
                    continue
                similarity = float(query @ key.double())
                scores.append(similarity / head.positive_temperature)
                mask.append(True)
        return scores, mask

    def _enqueue(self, key, label, index):
        self.entries[self.next] = [
            key.double().clone(),
            label_set(label),
            int(index),
        ]
        self.next = (self.next + 1) % len(self.entries)

    def check_queues(self, head):
        """Compare with the buffers of a real head."""
        keys = torch.stack([entry[0] for entry in self.entries])
        torch.testing.assert_close(head.queue.double(), keys)
        labels = [label_set(label) for label in head.label_queue]
        assert labels == [entry[1] for entry in self.entries]
        assert head.queue_ptr.tolist() == [self.next]
