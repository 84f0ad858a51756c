"""A backbone as an ONNX file, from images to pooled features."""

import inspect
import io
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mmunimoco.evaluation.features import pool
from mmunimoco.utils.config_text import check_types, config_value
from mmunimoco.utils.normalization import Normalization

_SIZE = 224  # of the image that is traced
_OPSET = 17


class ImageFeatures(nn.Module):
    """From RGB images of 0 to 255 to pooled features.

    Args:
        backbone (nn.Module): A backbone of mmpretrain.
        normalization (Normalization): How it was trained.
    """

    def __init__(
        self, backbone: nn.Module, normalization: Normalization
    ) -> None:
        super().__init__()
        self.backbone = backbone
        mean, std = (
            torch.tensor(values).float().view(-1, 1, 1)
            for values in (normalization.mean, normalization.std)
        )
        self.register_buffer('mean', mean)
        self.register_buffer('std', std)
        # Trained on BGR: the channels of RGB images are reversed.
        self.reverse = not normalization.to_rgb

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (N, D) of images (N, 3, H, W)."""
        if self.reverse:
            images = images.flip(1)
        return pool(self.backbone((images - self.mean) / self.std))


def to_onnx(
    backbone: Mapping[str, Tensor],
    meta: Mapping,
    normalization: Normalization,
) -> bytes:
    """Convert a backbone.

    Args:
        backbone (Mapping[str, Tensor]): By mmpretrain's keys, without prefix.
        meta (Mapping): The meta of the checkpoint, with its config.
        normalization (Normalization): Of its images.

    Returns:
        bytes: A file with input ``images`` (N, 3, H, W), float, RGB, 0 to
        255, and output ``features`` (N, D), float. N is free, and of networks
        of convolutions H and W too.

    Raises:
        ValueError: If the config of the backbone is not in the checkpoint, or
            torch cannot convert the backbone.
        ImportError: If onnx is not installed.
    """
    _check_library()
    config = config_value(meta.get('cfg'), 'model', 'backbone')
    if config is None:
        raise ValueError(
            'the checkpoint does not bear the config of its backbone, from '
            'which the network is built for ONNX'
        )
    size = config.get('img_size')
    size = size if isinstance(size, int) else _SIZE
    model = ImageFeatures(_build(config, backbone), normalization).eval()
    axes = {0: 'N'} if 'img_size' in config else {0: 'N', 2: 'H', 3: 'W'}
    options: dict[str, Any] = {}
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        # The other exporter needs one more library and fixes H and W.
        options['dynamo'] = False
    file = io.BytesIO()
    try:
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, size, size),),
            file,
            input_names=['images'],
            output_names=['features'],
            dynamic_axes=dict(images=axes, features={0: 'N'}),
            opset_version=_OPSET,
            **options,
        )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ValueError(
            f'torch cannot convert a {config.get("type")} to ONNX: {error}'
        ) from error
    return file.getvalue()


def _build(config: dict, weights: Mapping[str, Tensor]) -> nn.Module:
    """Build a backbone without what matters in training alone."""
    check_types(config)
    config = {k: v for k, v in config.items() if k != 'init_cfg'}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = MODELS.build(config)
    built.load_state_dict(weights)
    return built


def _check_library() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'ONNX files need the library: pip install onnx'
        ) from error
