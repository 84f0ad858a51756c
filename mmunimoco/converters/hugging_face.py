"""Folders that timm loads from the Hugging Face Hub or from disk."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from mmunimoco.utils.atomic import write_atomic
from mmunimoco.utils.normalization import normalization_of_checkpoint

from .files import check_free, write_safetensors
from .timm_model import TimmModel

_CARD = """\
---
library_name: timm
pipeline_tag: image-feature-extraction
tags:
- image-feature-extraction
- timm
---

# {name}

Backbone without classifier ({encoder} encoder{epoch}) under the names of
[timm](https://github.com/huggingface/pytorch-image-models), exported by
mmunimoco ([UniMoCo](https://arxiv.org/abs/2103.10773) as a plugin for
mmpretrain){origin}.

- Output: {num_features} numbers per image.
- Input: RGB, 0 ... 1, mean {mean}, std {std}.

```python
import timm

model = timm.create_model('hf-hub:USER/REPOSITORY', pretrained=True).eval()
features = model(images)  # (N, {num_features})
```

From a folder on disk: `timm.create_model('local-dir:FOLDER',
pretrained=True)`.

Add before publishing: method, data and labels of the pre-training, licence,
results.
"""


def write_folder(
    folder: Path,
    model: TimmModel,
    state: Mapping[str, Tensor],
    meta: Mapping,
    encoder: str,
    force: bool,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``README.md``.

    Args:
        folder (Path): Created if needed; other files in it are kept.
        model (TimmModel): The model of timm.
        state (Mapping[str, Tensor]): Weights by timm's keys.
        meta (Mapping): The meta of the checkpoint. It must contain
            ``normalization``, because timm would silently use ImageNet's.
        encoder (str): 'query' or 'momentum', for the model card.
        force (bool): Whether to overwrite the files.

    Raises:
        ValueError: If the normalization is unknown or for BGR images, or the
            number of heads of a ViT is unknown.
        FileExistsError: If one of the files exists, unless ``force``.
        ImportError: If safetensors is not installed.
    """
    # The last is config.json: without it timm does not load the folder.
    names = ('README.md', 'model.safetensors', 'config.json')
    readme, weights, config = names
    content = json.dumps(config_of(model, meta), indent=2) + '\n'
    for name in names:
        check_free(folder / name, force)
    folder.mkdir(parents=True, exist_ok=True)
    # All or nothing: what fails halfway must not block the next attempt.
    with TemporaryDirectory(prefix='.export-', dir=folder) as temporary:
        part = Path(temporary)
        write_atomic(part / readme, _card(model, meta, encoder))
        write_safetensors(part / weights, state, {})
        write_atomic(part / config, content)
        for name in names:
            os.replace(part / name, folder / name)


def config_of(model: TimmModel, meta: Mapping) -> dict:
    """Return the content of ``config.json``, in the form that timm writes.

    Args:
        model (TimmModel): The model of timm.
        meta (Mapping): The meta of the checkpoint.

    Raises:
        ValueError: If the normalization is unknown or for BGR images, or the
            number of heads of a ViT is unknown.
    """
    if model.lacks_heads:
        raise ValueError(
            'the number of heads of a ViT is not in its weights, and this '
            'checkpoint has no config that contains it'
        )
    mean, std = _zero_to_one(meta)
    config = dict(
        architecture=model.name,
        num_classes=0,
        num_features=model.num_features,
        pretrained_cfg=dict(
            num_classes=0,
            input_size=[3, 224, 224],
            fixed_input_size=model.name.startswith('vit'),
            interpolation='bicubic',
            crop_pct=0.875,
            mean=mean,
            std=std,
            first_conv=model.first_conv,
            classifier=model.classifier,
        ),
    )
    if model.args:
        config['model_args'] = model.args
    return config


def _zero_to_one(meta: Mapping) -> tuple[list[float], list[float]]:
    """Return mean and std for images of 0 ... 1, as timm expects."""
    known = normalization_of_checkpoint(dict(meta=meta))
    if known is None:
        raise ValueError(
            'the normalization of the images is not known; give it by --mean '
            'and --std (for images of 0 ... 255)'
        )
    if not known.to_rgb:
        raise ValueError(
            'the backbone was trained on BGR images (to_rgb=False), but timm '
            'would feed it RGB'
        )
    return tuple(
        [round(value / 255, 6) for value in values]
        for values in (known.mean, known.std)
    )


def _card(model: TimmModel, meta: Mapping, encoder: str) -> str:
    epoch = meta.get('epoch')
    mean, std = _zero_to_one(meta)
    source = meta.get('converted_from')
    origin = f' from weights of {source["source"]}' if source else ''
    return _CARD.format(
        name=model.name,
        encoder=encoder,
        epoch=f', epoch {epoch}' if epoch else '',
        num_features=model.num_features,
        origin=origin,
        mean=mean,
        std=std,
    )
