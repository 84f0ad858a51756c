"""The losses as published formulas on whole float64 matrices.

Quicker than ``loss_references.py``, so that queues of real length fit, and
differentiable. Plain exp, sum and log: float64 holds what float32 cannot,
down to a temperature of 0.01.
"""

import torch


def unicon(logits, positives):
    """log(1 + sum_n e^s * sum_p e^-s), shape (N,)."""
    a = (logits.exp() * ~positives).sum(1)
    b = ((-logits).exp() * positives).sum(1)
    return torch.log1p(a * b)


def unicon_mean(logits, positives):
    """The same with the mean over the positives."""
    a = (logits.exp() * ~positives).sum(1)
    b = ((-logits).exp() * positives).sum(1)
    return torch.log1p(a * b / positives.sum(1))


def supcon_out(logits, positives):
    """Mean over the positives of -log softmax, shape (N,)."""
    log_softmax = logits - logits.exp().sum(1, keepdim=True).log()
    return -(log_softmax * positives).sum(1) / positives.sum(1)


def supcon_in(logits, positives):
    """-log of the mean softmax of the positives, shape (N,)."""
    everything = logits.exp().sum(1)
    share = (logits.exp() * positives).sum(1) / everything
    return -(share / positives.sum(1)).log()


def info_nce(logits, positives):
    """-log softmax of column 0, shape (N,)."""
    return logits.exp().sum(1).log() - logits[:, 0]


# Name -> (config of the loss, its formula).
LOSSES = {
    'unicon': (dict(type='UniConLoss'), unicon),
    'unicon-mean': (
        dict(type='UniConLoss', positive_reduction='mean'),
        unicon_mean,
    ),
    'supcon-out': (dict(type='SupConLoss'), supcon_out),
    'supcon-in': (
        dict(type='SupConLoss', reduction_position='in'),
        supcon_in,
    ),
    'info-nce': (dict(type='InfoNCELoss'), info_nce),
}


def value_and_gradient(formula, leaf, make_logits, positives):
    """Mean loss and its gradient, both float64 on the CPU.

    Args:
        formula (Callable): One of the above.
        leaf (Tensor): What to differentiate by; any dtype and device.
        make_logits (Callable): Logits (N, M) from the float64 CPU leaf.
        positives (Tensor): Shape (N, M), bool.
    """
    leaf = leaf.detach().double().cpu().requires_grad_()
    loss = formula(make_logits(leaf), positives.cpu()).mean()
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]
