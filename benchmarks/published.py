"""The published algorithm and augmentation, rewritten as plainly as possible.

Order and formula follow the description of the method: query forward, momentum
update, key forward, logits against the queue, targets by comparing labels,
log(1 + sum exp(neg) * sum exp(-pos)), backward, enqueue. One process, no
shuffled BN. The queue is (C, K), as in MoCo.

Independent of the package on purpose: the tests compare the package with this
code, and the benchmarks time it, so both sides of a ratio are known to compute
the same.
"""

import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def unicon(logits: Tensor, targets: Tensor) -> Tensor:
    """UniCon as published; overflows for large logits.

    Args:
        logits (Tensor): Shape (N, M), float.
        targets (Tensor): Shape (N, M), same dtype: 1 for positives, 0 for
            negatives.

    Returns:
        Tensor: Scalar.
    """
    sum_negatives = (logits.exp() * (1 - targets)).sum(dim=1)
    sum_positives = ((-logits).exp() * targets).sum(dim=1)
    return torch.log(1 + sum_negatives * sum_positives).mean()


def unicon_mean(logits: Tensor, targets: Tensor) -> Tensor:
    """UniCon with the mean over positives; arguments as in :func:`unicon`."""
    sum_negatives = (logits.exp() * (1 - targets)).sum(dim=1)
    sum_positives = ((-logits).exp() * targets).sum(dim=1)
    mean_positives = sum_positives / targets.sum(dim=1)
    return torch.log(1 + sum_negatives * mean_positives).mean()


def supcon_out(logits: Tensor, targets: Tensor) -> Tensor:
    """Eq. 2 of SupCon (arXiv 2004.11362); arguments as in :func:`unicon`."""
    log_prob = logits.log_softmax(dim=1)
    return -((targets * log_prob).sum(dim=1) / targets.sum(dim=1)).mean()


def supcon_in(logits: Tensor, targets: Tensor) -> Tensor:
    """Eq. 3 of SupCon (arXiv 2004.11362); arguments as in :func:`unicon`."""
    prob = logits.softmax(dim=1)
    mean = (targets * prob).sum(dim=1) / targets.sum(dim=1)
    return -mean.log().mean()


def info_nce(logits: Tensor, targets: Tensor) -> Tensor:
    """Eq. 1 of MoCo (arXiv 1911.05722); ignores ``targets``."""
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
            ValueError: If the queue length is not a multiple of the batch.
        """
        n, length = len(k), self.queue.shape[1]
        if length % n:
            raise ValueError(
                f'the queue length {length} must be a multiple of the batch '
                f'size {n}, as in the published code'
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


class PublishedViews(Dataset):
    """Two views by the published augmentation: torchvision on PIL images.

    Args:
        paths (list[Path]): Images, repeated up to ``length``.
        length (int): Images per epoch.
    """

    def __init__(self, paths: list[Path], length: int) -> None:
        self.paths, self.length = paths, length
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(224, scale=(0.2, 1.0)),
                transforms.RandomApply(
                    [transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8
                ),
                transforms.RandomGrayscale(p=0.2),
                transforms.RandomApply([transforms.Lambda(blur)], p=0.5),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[Tensor]:
        path = self.paths[index % len(self.paths)]
        image = Image.open(path).convert('RGB')
        return [self.transform(image), self.transform(image)]


def blur(image: Image.Image) -> Image.Image:
    """Blur by PIL with a random sigma, as in MoCo v2."""
    radius = random.uniform(0.1, 2.0)
    return image.filter(ImageFilter.GaussianBlur(radius))
