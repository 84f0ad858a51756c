"""Export the backbone of a checkpoint for other projects."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmunimoco.utils.atomic import write_atomic
from mmunimoco.utils.checkpoint import describe_prefixes, state_dict_of
from mmunimoco.utils.config_text import config_value
from mmunimoco.utils.normalization import (
    Normalization,
    normalization_of_checkpoint,
)

from .detectron2 import to_detectron2, write_pickle
from .files import (
    check_free,
    read_weights,
    write_checkpoint,
    write_safetensors,
)
from .hugging_face import write_folder
from .keys import part_of
from .known_options import check_options
from .onnx_model import to_onnx
from .resnet import is_resnet
from .timm_model import to_timm

_PREFIXES = dict(query='backbone.', momentum='encoder_k.module.0.')
ENCODERS = tuple(_PREFIXES)
FORMATS = (
    *('backbone', 'torchvision', 'timm', 'safetensors', 'detectron2'),
    *('huggingface', 'onnx'),
)


def export(
    src: str | Path,
    dst: str | Path,
    form: str,
    encoder: str = 'query',
    normalization: Mapping | None = None,
    force: bool = False,
) -> dict:
    """Export the backbone of a checkpoint.

    Args:
        src (str | Path): Checkpoint with the backbone under ``backbone.``.
        dst (str | Path): File to write; for 'huggingface' a folder.
        form (str): One of :data:`FORMATS`.
        encoder (str): One of :data:`ENCODERS`. Defaults to 'query'.
        normalization (Mapping, optional): Overrides that of the checkpoint:
            ``mean``, ``std`` and ``to_rgb``. Defaults to None.
        force (bool): Whether to overwrite. Defaults to False.

    Returns:
        dict: ``meta`` and ``state_dict`` (under ``backbone.``) of what was
        exported, and for timm ``usage``, how to load it.

    Raises:
        ValueError: If the backbone cannot be exported in this format.
        OSError: If a file is missing, exists or cannot be written.
        ImportError: If a library is missing.
    """
    if form not in FORMATS:
        raise ValueError(
            f'the format must be one of {", ".join(FORMATS)}, not {form!r}'
        )
    path = Path(dst)
    if form != 'huggingface':
        check_free(path, force)
    checkpoint = read_weights(src)
    backbone = backbone_of(checkpoint, encoder)
    meta = _meta_of(checkpoint, normalization)
    result = dict(
        meta=meta,
        state_dict={f'backbone.{key}': v for key, v in backbone.items()},
    )
    if form == 'backbone':
        write_checkpoint(path, result)
        return result
    if form == 'onnx':
        write_atomic(path, to_onnx(backbone, meta, _known_normalization(meta)))
        return result
    check_options(config_value(meta.get('cfg'), 'model', 'backbone') or {})
    if form == 'detectron2':
        write_pickle(path, to_detectron2(backbone))
        return result
    if form == 'torchvision' and not is_resnet(backbone):
        raise ValueError(
            'the backbone is not a plain ResNet: use timm instead'
        )
    model, state = to_timm(backbone, meta)
    if form == 'huggingface':
        write_folder(path, model, state, meta, encoder, force)
    elif form == 'safetensors':
        header = dict(
            architecture=model.name, model_args=json.dumps(model.args)
        )
        if 'normalization' in meta:
            header['normalization'] = json.dumps(meta['normalization'])
        write_safetensors(path, state, header)
    else:
        write_checkpoint(path, state)
    if form in ('timm', 'safetensors'):
        result['usage'] = model.usage(str(dst))
    return result


def _known_normalization(meta: Mapping) -> Normalization:
    known = normalization_of_checkpoint(dict(meta=meta))
    if known is None:
        raise ValueError(
            'the checkpoint does not say how images were normalised, which is '
            'a part of the ONNX file: give --mean and --std'
        )
    return known


def backbone_of(
    checkpoint: Mapping, encoder: str = 'query'
) -> dict[str, Tensor]:
    """Return the weights of a backbone.

    Args:
        checkpoint (Mapping): A loaded checkpoint.
        encoder (str): 'query' for ``backbone.``, or 'momentum' for the
            backbone of the momentum encoder. Defaults to 'query'.

    Returns:
        dict[str, Tensor]: By the backbone's keys, without prefix.

    Raises:
        ValueError: If there is none.
    """
    if encoder not in _PREFIXES:
        raise ValueError(f'encoder must be query or momentum, not {encoder!r}')
    state = state_dict_of(checkpoint, unwrap=True)
    backbone = part_of(state, _PREFIXES[encoder])
    if not backbone:
        raise ValueError(
            f"no key starts with '{_PREFIXES[encoder]}', the prefix of the "
            f"{encoder} encoder's backbone. The file holds "
            f'{describe_prefixes(state)}.'
        )
    return backbone


def _meta_of(checkpoint: Mapping, normalization: Mapping | None) -> dict:
    """Return the meta with ``normalization``, if that is known."""
    meta = checkpoint.get('meta')
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    if normalization is not None:
        meta['normalization'] = dict(normalization)
    known = normalization_of_checkpoint(dict(meta=meta))
    return (
        meta if known is None else {**meta, 'normalization': known.to_meta()}
    )
