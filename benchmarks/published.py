"""The published algorithm, written anew as plainly as possible.

Order and formula as in the method's description: query forward, momentum
update, key forward, logits against the queue, targets by comparing labels,
log(1 + sum exp(neg) * sum exp(-pos)), backward, enqueue. One process, no
shuffle. The queue is (C, K), as it is in MoCo.

It shares nothing with the rest of the package. The tests hold the method
equal to it, and the benchmarks time it: what is compared in speed is proven
to compute the same.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional


def unicon(logits: Tensor, targets: Tensor) -> Tensor:
    """UniCon as published; overflows where logits are large.

    Args:
        logits (Tensor): Shape (N, M), float.
        targets (Tensor): 1 for positives, 0 for negatives, as ``logits``.

    Returns:
        Tensor: Scalar.
    """
    sum_negatives = (logits.exp() * (1 - targets)).sum(dim=1)
    sum_positives = ((-logits).exp() * targets).sum(dim=1)
    return torch.log(1 + sum_negatives * sum_positives).mean()


def unicon_mean(logits: Tensor, targets: Tensor) -> Tensor:
    """UniCon with the mean over the positives; as :func:`unicon`."""
    sum_negatives = (logits.exp() * (1 - targets)).sum(dim=1)
    sum_positives = ((-logits).exp() * targets).sum(dim=1)
    mean_positives = sum_positives / targets.sum(dim=1)
    return torch.log(1 + sum_negatives * mean_positives).mean()


def supcon_out(logits: Tensor, targets: Tensor) -> Tensor:
    """Eq. 2 of SupCon (arXiv 2004.11362); as :func:`unicon`."""
    log_prob = logits.log_softmax(dim=1)
    return -((targets * log_prob).sum(dim=1) / targets.sum(dim=1)).mean()


def supcon_in(logits: Tensor, targets: Tensor) -> Tensor:
    """Eq. 3 of SupCon (arXiv 2004.11362); as :func:`unicon`."""
    prob = logits.softmax(dim=1)
    mean = (targets * prob).sum(dim=1) / targets.sum(dim=1)
    return -mean.log().mean()


def info_nce(logits: Tensor, targets: Tensor) -> Tensor:
    """Eq. 1 of MoCo (arXiv 1911.05722), which reads no ``targets``."""
    own = logits.new_zeros(len(logits), dtype=torch.long)
    return functional.cross_entropy(logits, own)


class PublishedHead:
    """Key and label queue, and the loss against them.

    Args:
        queue (Tensor): Shape (C, K), normalised columns; copied.
        temperature (float): Divides the similarities.
        loss (Callable): Takes logits and targets. Defaults to
            :func:`unicon`.
    """

    def __init__(
        self,
        queue: Tensor,
        temperature: float,
        loss: Callable[[Tensor, Tensor], Tensor] = unicon,
    ) -> None:
        self.queue = queue.clone()
        self.label_queue = torch.full(
            (queue.shape[1],), -1, device=queue.device
        )
        self.pointer = 0
        self.tau, self._loss = temperature, loss

    def loss(self, q: Tensor, k: Tensor, labels: Tensor) -> Tensor:
        """Loss of queries and keys (N, C) with labels (N,), a scalar."""
        own = torch.einsum('nc,nc->n', q, k).unsqueeze(-1)
        others = torch.einsum('nc,ck->nk', q, self.queue.clone())
        logits = torch.cat([own, others], dim=1) / self.tau
        same = labels.unsqueeze(1) == self.label_queue.unsqueeze(0)
        same &= (labels >= 0).unsqueeze(1)
        targets = torch.cat([torch.ones_like(own), same.to(own.dtype)], dim=1)
        return self._loss(logits, targets)

    def enqueue(self, k: Tensor, labels: Tensor) -> None:
        """Replace the oldest keys and labels.

        Raises:
            ValueError: If the queue is no multiple of the batch.
        """
        n, length = len(k), self.queue.shape[1]
        if length % n:
            raise ValueError(
                f'a queue of {length} keys is no multiple of the batch of '
                f'{n}, which the published code demands'
            )
        self.queue[:, self.pointer : self.pointer + n] = k.T
        self.label_queue[self.pointer : self.pointer + n] = labels
        self.pointer = (self.pointer + n) % length


class PublishedUniMoCo:
    """Query and key encoder with queues; ``step`` is one SGD step.

    Args:
        encoder (nn.Module): Images to features; copied.
        queue (Tensor): Shape (C, K), normalised columns; copied.
        optimizer (dict): Arguments of ``torch.optim.SGD``.
        momentum (float): The published m, for example 0.999.
        temperature (float): Temperature.
    """

    def __init__(
        self,
        encoder: nn.Module,
        queue: Tensor,
        optimizer: dict,
        momentum: float,
        temperature: float,
    ) -> None:
        self.encoder_q, self.encoder_k = deepcopy(encoder), deepcopy(encoder)
        self.head = PublishedHead(queue, temperature)
        self.m = momentum
        self.optimizer = torch.optim.SGD(
            self.encoder_q.parameters(), **optimizer
        )

    def step(self, view_q: Tensor, view_k: Tensor, labels: Tensor) -> float:
        """Train on two views (N, 3, H, W) and labels (N,); return the loss."""
        q = functional.normalize(self.encoder_q(view_q), dim=1)
        with torch.no_grad():
            for param_q, param_k in zip(
                self.encoder_q.parameters(),
                self.encoder_k.parameters(),
                strict=True,
            ):
                param_k.data = param_k.data * self.m + param_q * (1 - self.m)
            k = functional.normalize(self.encoder_k(view_k), dim=1)
        loss = self.head.loss(q, k, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.head.enqueue(k, labels)
        return loss.item()
