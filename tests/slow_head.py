"""The head of UniMoCo written out with Python lists, one pair at a time."""

from collections import Counter

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
        self.entries = [
            [key.double().clone(), label_set(label), -1, UNLABELED]
            for key, label in zip(head.queue, head.label_queue, strict=True)
        ]
        self.next = self.steps = 0

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
        losses, labeled = [], [label_set(label) for label in labels]
        if self.head.label_warmup > self.steps:
            generator = torch.Generator().manual_seed(self.steps)
            draws = torch.rand(len(batch[0]), generator=generator)[offset:]
            for i in range(n):
                if not draws[i] < self.steps / self.head.label_warmup:
                    labeled[i] = UNLABELED
        for i in range(n):
            scores, mask = self._pairs(
                query[i].double(),
                key[i].double(),
                labeled[i],
                int(indices[i]),
                batch,
                offset + i,
            )
            losses.append(self.reference(scores, mask))
        propagated = [
            self._propagate(key, label_set(label))
            for key, label, _ in zip(*batch, strict=True)
        ]
        for *entry, guess in zip(*batch, propagated, strict=True):
            self._enqueue(*entry, guess)
        self.steps += 1
        return float(sum(losses) / n)

    def _pairs(self, query, own_key, label, index, batch, place):
        head = self.head
        scores = [float(query @ own_key) / head.positive_temperature]
        mask = [True]
        newer = 0  # keys of the query's label
        for key, key_label, key_index, guess in self._newest_first():
            is_guess = not key_label and bool(guess)
            key_label = key_label or guess
            positive = bool(label & key_label)
            if positive and is_guess and head.propagation.use == 'ignore':
                continue
            newer += positive
            if positive and newer > (head.max_positives or newer):
                continue
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

    def _newest_first(self):
        return reversed(self.entries[self.next :] + self.entries[: self.next])

    def _propagate(self, key, label):
        """The label of enough neighbours, if the key has none."""
        options = self.head.propagation
        if options is None or label or self.steps < options.start:
            return UNLABELED
        labeled = [entry for entry in self.entries if entry[1]]
        labeled.sort(key=lambda entry: -float(entry[0] @ key.double()))
        votes = Counter(entry[1] for entry in labeled[: options.k])
        for winner, count in votes.items():
            if count / options.k > options.threshold - 1e-9:
                return winner
        return UNLABELED

    def _enqueue(self, key, label, index, guess):
        self.entries[self.next] = [
            key.double().clone(),
            label_set(label),
            int(index),
            guess,
        ]
        self.next = (self.next + 1) % len(self.entries)

    def check_queues(self, head):
        """Compare with the buffers of a real head."""
        keys = torch.stack([entry[0] for entry in self.entries])
        torch.testing.assert_close(head.queue.double(), keys)
        labels = [label_set(label) for label in head.label_queue]
        assert labels == [entry[1] for entry in self.entries]
        assert head.queue_ptr.tolist() == [self.next]
        if head.propagation is not None:
            guesses = [label_set(label) for label in head.propagated_queue]
            assert guesses == [entry[3] for entry in self.entries]
            assert head.steps == self.steps
