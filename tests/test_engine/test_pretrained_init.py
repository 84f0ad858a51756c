import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

import mmunimoco  # noqa: F401  registers the initializer


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def _backbone(**options):
    config = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    return MODELS.build({**config, **options})


def _vit(**options):
    config = dict(
        type='MoCoV3ViT',
        arch=dict(
            embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
        ),
        img_size=32,
        patch_size=16,
    )
    return MODELS.build({**config, **options})


def _save(path, module, prefix='backbone.', **more):
    state = {prefix + key: v for key, v in module.state_dict().items()}
    torch.save(dict(state_dict={**state, **more}, meta={}), path)
    return str(path)


def _init(path, prefix='backbone.'):
    return dict(type='Pretrained', checkpoint=path, prefix=prefix)


@pytest.mark.parametrize('build', [_backbone, _vit])
@pytest.mark.parametrize('wrapper', ['', 'module.'])
def test_matching_checkpoint_is_loaded(tmp_path, build, wrapper):
    source = build()
    path = _save(
        tmp_path / 'a.pth',
        source,
        f'{wrapper}backbone.',
        **{'head.queue': torch.zeros(3, 2), 'neck.fc.weight': torch.ones(1)},
    )
    module = build(init_cfg=_init(path, f'{wrapper}backbone.'))
    module.init_weights()
    for key, value in source.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key


@pytest.mark.parametrize('wrapper', ['', 'module.'])
def test_whole_checkpoint_without_prefix(tmp_path, wrapper):
    source = _backbone()
    path = _save(tmp_path / 'a.pth', source, wrapper)
    module = _backbone(init_cfg=dict(type='Pretrained', checkpoint=path))
    module.init_weights()
    assert torch.equal(module.conv1.weight, source.conv1.weight)


def test_position_embedding_may_be_resized(tmp_path):
    path = _save(tmp_path / 'a.pth', _vit())
    module = _vit(img_size=64, init_cfg=_init(path))
    module.init_weights()
    assert module.pos_embed.shape[1] == 17


@pytest.mark.parametrize('path', ['', None])
def test_empty_path_says_how_to_set_it(path):
    module = _backbone(init_cfg=_init(path))
    with pytest.raises(ValueError, match='model.backbone.init_cfg.checkpoint'):
        module.init_weights()


def test_missing_file_is_named():
    module = _backbone(init_cfg=_init('nowhere/a.pth'))
    with pytest.raises(FileNotFoundError, match='nowhere/a.pth'):
        module.init_weights()


def test_other_prefix_lists_those_in_the_file(tmp_path):
    path = _save(tmp_path / 'a.pth', _backbone(), 'encoder_q.')
    module = _backbone(init_cfg=_init(path))
    with pytest.raises(ValueError, match=r"'encoder_q\.' \(\d+ keys\)"):
        module.init_weights()


def test_nothing_fits_without_a_prefix(tmp_path):
    path = _save(tmp_path / 'a.pth', _backbone(), 'backbone.')
    module = _backbone(init_cfg=dict(type='Pretrained', checkpoint=path))
    with pytest.raises(ValueError, match='nothing in the checkpoint'):
        module.init_weights()


@pytest.mark.parametrize(
    ('source', 'target'),
    [
        (dict(depth=18), dict(depth=50)),
        (dict(depth=50), dict(depth=18)),
        (dict(), dict(stem_channels=16, base_channels=16)),
    ],
)
def test_another_architecture_is_refused(tmp_path, source, target):
    path = _save(tmp_path / 'a.pth', _backbone(**source))
    module = _backbone(init_cfg=_init(path), **target)
    with pytest.raises(ValueError, match='another architecture|nothing in'):
        module.init_weights()


def test_mostly_missing_is_refused(tmp_path):
    state = {
        f'backbone.{key}': value
        for key, value in _backbone().state_dict().items()
        if 'layer' not in key
    }
    torch.save(state, tmp_path / 'a.pth')
    module = _backbone(init_cfg=_init(str(tmp_path / 'a.pth')))
    with pytest.raises(ValueError, match='6 of 120 tensors fit; missing'):
        module.init_weights()


def test_vit_checkpoint_for_a_resnet_is_refused(tmp_path):
    path = _save(tmp_path / 'a.pth', _vit())
    with pytest.raises(ValueError, match='nothing in the checkpoint'):
        _backbone(init_cfg=_init(path)).init_weights()


def _runner(tmp_path, load_from, hooks):
    return Runner(
        model=dict(
            type='ImageClassifier',
            backbone=dict(
                type='ResNet', depth=18, stem_channels=8, base_channels=8
            ),
        ),
        work_dir=str(tmp_path / 'work'),
        load_from=load_from,
        default_scope='mmpretrain',
        custom_hooks=hooks,
        experiment_name=str(tmp_path).replace('/', '_'),
    )


def test_hook_refuses_what_load_from_would_ignore(tmp_path):
    path = _save(tmp_path / 'a.pth', _backbone(), 'module.encoder_q.')
    _runner(tmp_path, path, []).load_or_resume()
    guarded = _runner(tmp_path, path, [dict(type='CheckpointCheckHook')])
    with pytest.raises(ValueError, match=r"'encoder_q\.' \(\d+ keys\).*asks"):
        guarded.load_or_resume()


@pytest.mark.parametrize('prefix', ['backbone.', 'module.backbone.'])
def test_hook_lets_a_matching_checkpoint_pass(tmp_path, prefix):
    source = _backbone()
    path = _save(tmp_path / 'a.pth', source, prefix)
    runner = _runner(tmp_path, path, [dict(type='CheckpointCheckHook')])
    runner.load_or_resume()
    weight = runner.model.backbone.conv1.weight
    assert torch.equal(weight, source.conv1.weight)
