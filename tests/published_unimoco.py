"""The published training step, written anew as plainly as possible.

Order and formula as in the method's description: query forward, momentum
update, key forward, logits against the queue, targets by comparing labels,
log(1 + sum exp(neg) * sum exp(-pos)), backward, enqueue. One process, no
shuffle. The queue is (C, K), as it is in MoCo.
"""

from copy import deepcopy

import torch
from torch.nn import functional


class PublishedUniMoCo:
    """Query and key encoder with queues; ``step`` is one SGD step.

    Args:
        encoder (nn.Module): Images to features; copied.
        queue (Tensor): Shape (C, K), normalised columns.
        optimizer (dict): Arguments of ``torch.optim.SGD``.
        momentum (float): The published m, for example 0.999.
        temperature (float): Temperature.
    """

    def __init__(self, encoder, queue, optimizer, momentum, temperature):
        self.encoder_q, self.encoder_k = deepcopy(encoder), deepcopy(encoder)
        self.queue = queue.clone()
        self.label_queue = torch.full((queue.shape[1],), -1)
        self.pointer = 0
        self.m, self.tau = momentum, temperature
        self.optimizer = torch.optim.SGD(
            self.encoder_q.parameters(), **optimizer
        )

    def step(self, view_q, view_k, labels):
        """Return the loss of one step."""
        q = functional.normalize(self.encoder_q(view_q), dim=1)
        with torch.no_grad():
            for param_q, param_k in zip(
                self.encoder_q.parameters(),
                self.encoder_k.parameters(),
                strict=True,
            ):
                param_k.data = param_k.data * self.m + param_q * (1 - self.m)
            k = functional.normalize(self.encoder_k(view_k), dim=1)
        own = torch.einsum('nc,nc->n', q, k).unsqueeze(-1)
        others = torch.einsum('nc,ck->nk', q, self.queue.clone())
        logits = torch.cat([own, others], dim=1) / self.tau
        same = labels.unsqueeze(1) == self.label_queue.unsqueeze(0)
        same &= (labels >= 0).unsqueeze(1)
        targets = torch.cat([torch.ones_like(own), same.to(own.dtype)], dim=1)
        sum_negatives = (logits.exp() * (1 - targets)).sum(dim=1)
        sum_positives = ((-logits).exp() * targets).sum(dim=1)
        loss = torch.log(1 + sum_negatives * sum_positives).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._enqueue(k, labels)
        return loss.item()

    def _enqueue(self, k, labels):
        n, length = len(k), self.queue.shape[1]
        assert length % n == 0, 'as the published code demands'
        self.queue[:, self.pointer : self.pointer + n] = k.T
        self.label_queue[self.pointer : self.pointer + n] = labels
        self.pointer = (self.pointer + n) % length
