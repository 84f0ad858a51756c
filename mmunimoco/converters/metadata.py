"""What the meta of a checkpoint says about pre-training."""

from collections.abc import Mapping

from mmunimoco.utils.normalization import normalization_of_checkpoint

# As torchvision, timm's ResNets and MoCo normalise, in RGB and 0 ... 255.
IMAGENET = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)


def normalization_of(meta: Mapping) -> dict | None:
    """How images were normalised, as far as a checkpoint tells.

    Args:
        meta (Mapping): The meta of a checkpoint.

    Returns:
        dict | None: In the form of ``meta['normalization']``: ``mean`` and
        ``std``, three numbers each for images of 0 ... 255, and ``to_rgb``:
        whether they are in the order RGB (else BGR). None if not known.
    """
    known = normalization_of_checkpoint(dict(meta=meta))
    if known is None:
        return None
    mean, std = list(known.mean), list(known.std)
    return dict(mean=mean, std=std, to_rgb=known.to_rgb)
