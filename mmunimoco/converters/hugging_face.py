"""A folder as timm loads it from the Hugging Face Hub, or from disk."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmunimoco.utils.atomic import write_atomic

from .files import check_free, write_safetensors
from .metadata import normalization_of
from .outgoing import to_timm
from .timm_model import TimmModel, describe_for_timm

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

- Output: {num_features} numbers an image.
- Input: RGB, 0 ... 1, mean {mean}, std {std}.

```python
import timm

model = timm.create_model('hf-hub:USER/REPOSITORY', pretrained=True).eval()
features = model(images)  # (N, {num_features})
```

From a folder on disk: `timm.create_model('local-dir:FOLDER',
pretrained=True)`.

To be added by who publishes it: method, data and labels of the pre-training,
licence, results.
"""


def write_folder(
    folder: Path,
    backbone: Mapping[str, Tensor],
    meta: Mapping,
    encoder: str = 'query',
    force: bool = False,
) -> TimmModel:
    """Write ``config.json``, ``model.safetensors`` and ``README.md``.

    Args:
        folder (Path): Made if need be; other files in it stay.
        backbone (Mapping[str, Tensor]): By mmpretrain's keys, without prefix.
        meta (Mapping): The meta of the checkpoint. How images are normalised
            must be known, because timm would silently take ImageNet's.
        encoder (str): Which encoder it is, for the card. Defaults to 'query'.
        force (bool): Whether to overwrite the files. Defaults to False.

    Returns:
        TimmModel: The model of timm.

    Raises:
        ValueError: If timm has no such model, or the normalisation is
            unknown or for BGR.
        FileExistsError: If one of the files is there, unless ``force``.
        ImportError: If safetensors is not installed.
    """
    names = ('README.md', 'model.safetensors', 'config.json')
    readme, weights, config = (Path(folder, name) for name in names)
    state = to_timm(backbone, meta)
    model = describe_for_timm(backbone, meta)
    content = json.dumps(config_of(model, meta), indent=2) + '\n'
    for path in (readme, weights, config):
        check_free(path, force)
    card = _card(model, meta, encoder)
    write_atomic(readme, card)
    write_safetensors(weights, state, {})
    # The last one: without it timm does not take the folder for complete.
    write_atomic(config, content)
    return model


def config_of(model: TimmModel, meta: Mapping) -> dict:
    """What stands in ``config.json``.

    Args:
        model (TimmModel): The model of timm.
        meta (Mapping): The meta of the checkpoint.

    Returns:
        dict: In the form that timm writes.

    Raises:
        ValueError: If the normalisation is unknown or for BGR, or the number
            of a ViT's heads is unknown.
    """
    if model.name.startswith('vit') and 'num_heads' not in model.args:
        raise ValueError(
            "the number of a ViT's heads is not in its weights, and this "
            'checkpoint has no config that says it'
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
    """Mean and std for images of 0 ... 1, as timm wants them."""
    known = normalization_of(meta)
    if known is None:
        raise ValueError(
            'how images were normalised is not known; say it with --mean and '
            '--std (of images of 0 ... 255)'
        )
    if not known['to_rgb']:
        raise ValueError(
            'the backbone was trained on BGR images (to_rgb=False), and timm '
            'would feed it RGB'
        )
    return tuple(
        [round(value / 255, 6) for value in known[name]]
        for name in ('mean', 'std')
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
