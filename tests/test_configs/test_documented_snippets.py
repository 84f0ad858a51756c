"""Commands and code in README.md and docs/ are what the tools take.

Every command is parsed by the script that it starts, and its configs and the
keys of --cfg-options exist. Those for small images really run, at a reduced
size. The examples of docs/own_data.md and docs/transfer.md have tests of their
own.
"""

import argparse
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from image_folders import write_image_folder
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS

from mmunimoco.engine import KNNValLoop

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / 'README.md', *ROOT.glob('docs/*.md')],
    key=lambda page: page.name,
)
BASE = ROOT / 'configs/unimoco/unimoco_resnet50_1xb256-coslr-200e_in1k.py'
CONFIG = str(BASE.relative_to(ROOT))
SMALL_IMAGES = ROOT / 'configs/own_data/unimoco_resnet18_small-images.py'
# Words that stand for something, and what they stand for in the tests.
PLACEHOLDERS = dict(
    CONFIG=CONFIG,
    FORMAT='torchvision',
    GPUS='1',
    PARTITION='gpu',
    JOB_NAME='name',
)
# Files that the reader writes.
OWN = ('configs/mine/', 'configs/own_data/my_data.py')
# Not commands of this project.
FOREIGN = {'git', 'cd', 'export', 'source', 'pip', 'pre-commit'}
FOREIGN |= {'sphinx-build'}  # test_docs
LAUNCHERS = {'dist_train.sh': 'train', 'dist_test.sh': 'test'}


def blocks(page, language):
    text = page.read_text(encoding='utf-8')
    return re.findall(rf'```(?:{language})\n(.*?)```', text, re.DOTALL)


SHELL = [
    (page.name, block)
    for page in PAGES
    for block in blocks(page, 'shell|bash|sh')
]


def commands(block):
    """Return the words of each command, with variables replaced."""
    block = re.sub(r'\[options [^\]]*\]', '', block)
    block = re.sub(r'<[^>]*>', 'URL', block.replace('\\\n', ' '))
    variables, found = dict(PLACEHOLDERS), []
    for line in block.splitlines():
        words = shlex.split(line.replace('[', ' ').replace(']', ' '), True)
        words = [
            re.sub(r'\$(\w+)', lambda m: variables[m[1]], variables.get(w, w))
            for w in words
        ]
        while words and re.match(r'[A-Z_]+=', words[0]):
            name, _, value = words.pop(0).partition('=')
            variables[name] = value
        if words and words[0] not in FOREIGN:
            found.append(words)
    return found


COMMANDS = [
    (f'{page}: {" ".join(words)[:60]}', words)
    for page, block in SHELL
    for words in commands(block)
]


class _ParsedError(Exception):
    """Ends a script when its options are parsed."""


@pytest.fixture
def parse(monkeypatch):
    """Return a function: the options that a script parses from words."""
    original = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        raise _ParsedError(original(self, *args, **kwargs))

    def parse(script, words):
        monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        monkeypatch.setattr(sys, 'argv', [str(script), *words])
        monkeypatch.setenv('LOCAL_RANK', '0')
        with pytest.raises(_ParsedError) as parsed:
            if script.parent.parent == ROOT and script.parent.name != 'tools':
                module = f'{script.parent.name}.{script.stem}'
                runpy.run_module(module, run_name='__main__')
            # As python does: scripts of a folder may share a module.
            monkeypatch.syspath_prepend(str(script.parent))
            runpy.run_path(str(script), run_name='__main__')
        return parsed.value.args[0]

    return parse


def as_python(words):
    """Return script and arguments of a command; those of a launcher inside."""
    program, script, *arguments = words
    if program == 'mmunimoco':
        return ROOT / 'tools/mmunimoco', words[1:]
    if program == 'python' and script == '-m':
        module, *arguments = arguments
        return ROOT / (module.replace('.', '/') + '.py'), arguments
    script = ROOT / script
    if program == 'bash' and script.parent.name == 'tools':
        task = LAUNCHERS.get(script.name)
        if task == 'train':
            targets, (count, *rest) = arguments[:1], arguments[1:]
        elif task == 'test':
            targets, (count, *rest) = arguments[:2], arguments[2:]
        elif script.name == 'slurm_train.sh':
            _, _, config, _, *rest = arguments
            return ROOT / 'tools/train.py', [config, *rest]
        else:
            return script, None
        assert int(count) > 0
        return ROOT / f'tools/{task}.py', [*targets, *rest]
    return script, None if program == 'bash' else arguments


@pytest.mark.parametrize(
    'words', [words for _, words in COMMANDS], ids=[x for x, _ in COMMANDS]
)
def test_command_is_understood(words, parse, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert words[0] in ('python', 'bash', 'mmunimoco'), words
    script, arguments = as_python(words)
    assert script.is_file(), script
    for word in words[1:]:
        if re.match(r'(configs|tools|requirements)/', word):
            assert Path(word).is_file() or word.startswith(OWN), word
    if arguments is None:  # a shell script; its options stand in it
        text = script.read_text()
        launch = script.parents[1] / 'launch.sh'
        text += launch.read_text() if launch.is_file() else ''
        options = [word for word in words if re.match('--[a-z]', word)]
        host = {'--auto-scale-lr'}  # of mmdet and mmseg
        assert all(option in text or option in host for option in options)
        return
    args = parse(script, arguments)
    options = getattr(args, 'cfg_options', None)
    if options and not str(args.config).startswith(OWN):
        cfg = Config.fromfile(args.config)
        for key in options:
            assert cfg.get(key.split('.')[0], ...) is not ..., key
            assert has_key(cfg, key), f'{args.config} has no {key}'


def has_key(node, dotted):
    for part in dotted.split('.'):
        if not isinstance(node, (Config, ConfigDict)) or part not in node:
            # load_from is None in the configs, the others have a value.
            return dotted == 'load_from'
        node = node[part]
    return True


@pytest.mark.parametrize('page, block', SHELL)
def test_shell_takes_the_syntax(page, block):
    block = re.sub(r'\[options [^\]]*\]', '', block)
    checked = subprocess.run(
        ['bash', '-n'], input=block, text=True, capture_output=True
    )
    assert checked.returncode == 0, checked.stderr


def test_commands_for_small_images_run(tmp_path, monkeypatch):
    """Check, pre-training, linear probe and fine-tuning, on the command line.

    Reduced by options after the documented ones: batch, epochs, workers.
    """
    for split, count in (('train', 20), ('val', 6)):
        write_image_folder(tmp_path / 'data/mine' / split, 2, count)
    monkeypatch.chdir(tmp_path)
    (block,) = (b for _, b in SHELL if 'OWN_IMAGES_SIZE' in b)
    export, *_ = block.splitlines()
    for setting in export.split()[1:]:
        monkeypatch.setenv(*setting.split('='))
    found = commands(block)
    assert len(found) == 4
    for _, script, config, *rest in found:
        small = ['model.head.queue_len=16'] if 'unimoco' in config else []
        for loader in ('train_dataloader', 'val_dataloader'):
            small += [f'{loader}.{x}' for x in ('num_workers=0',)]
        small += [
            'train_dataloader.batch_size=16',
            'train_dataloader.persistent_workers=False',
            'train_cfg.max_epochs=1',
            'train_cfg.val_interval=1',
            'default_hooks.checkpoint.interval=1',
        ]
        rest = [word.replace('epoch_100', 'epoch_1') for word in rest]
        if '--cfg-options' not in rest:
            rest.append('--cfg-options')
        arguments = [str(ROOT / config), *rest, *small]
        monkeypatch.setattr(sys, 'argv', [script, *arguments])
        try:
            runpy.run_path(str(ROOT / script), run_name='__main__')
        except SystemExit as end:
            assert not end.code
    runs = ('small', 'resnet18_linear_small-images')
    for name in (*runs, 'resnet18_finetune_small-images'):
        assert (tmp_path / f'work_dirs/{name}/epoch_1.pth').is_file()


def python_blocks(page):
    return blocks(ROOT / page, 'python')


def load(text, folder, **bases):
    for name, path in bases.items():
        text = text.replace(name, str(path))
    text = text.replace("'../", f"'{ROOT}/configs/")
    (folder / 'config.py').write_text(text)
    return Config.fromfile(folder / 'config.py')


def test_example_of_a_config(tmp_path):
    example, _, decoding, pieces = python_blocks('docs/configs.md')
    folder, name = re.match(r'# (\S+/)(\S+)\n', example).groups()
    (base,) = re.findall(r"_base_ = '(.*)'", example)
    cfg = load(example.replace(base, str(ROOT / folder / base)), tmp_path)
    published = Config.fromfile(ROOT / folder / base)
    assert cfg.model.head.queue_len == 16384 and name.endswith('16384.py')
    cfg.model.head.queue_len = published.model.head.queue_len
    assert cfg.to_dict() == published.to_dict()
    cfg = load(f'_base_ = [{str(BASE)!r}]\n{decoding}', tmp_path)
    load_crops, pack = cfg.train_dataloader.dataset.dataset.pipeline
    assert pack.type == 'PackInputs'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert TRANSFORMS.build(load_crops).crop.scale == (224, 224)
    cfg = load(pieces, tmp_path)
    assert cfg.train_cfg.max_iters == 1_000_000
    assert cfg.default_hooks.checkpoint.interval == 5000
    assert not cfg.default_hooks.checkpoint.by_epoch


def test_example_of_code_of_your_own(tmp_path, monkeypatch):
    (tmp_path / 'my_loss.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    _, example, *_ = python_blocks('docs/configs.md')
    cfg = load(example, tmp_path)
    imports = Config.fromfile(SMALL_IMAGES).custom_imports.imports
    assert 'mmunimoco.safe_checkpoints' in imports
    assert cfg.custom_imports.imports == [*imports, 'my_loss']
    assert 'my_loss' in sys.modules
    # The loss of docs/contributing.md, which has no own_key_weight.
    assert cfg.model.head.loss == dict(type='MarginUniConLoss', margin=0.2)


def test_another_loss_on_the_command_line():
    text = (ROOT / 'docs/configs.md').read_text()
    (options,) = re.findall(r'`(model\.head\.loss\._delete_\S+ \S+)`', text)
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(['--cfg-options', *options.split()])
    cfg = Config.fromfile(SMALL_IMAGES)
    cfg.merge_from_dict(args.cfg_options)
    assert cfg.model.head.loss == dict(type='InfoNCELoss')


def test_examples_of_evaluation():
    # The second, of monitors, has a test of its own (test_monitors.py).
    knn, _, start = python_blocks('docs/evaluation.md')
    scope = {}
    exec(knn.replace('...', ''), scope)
    base = Config.fromfile(BASE)
    for field in ('val_cfg', 'val_evaluator', 'default_hooks'):
        # The configs have the same keys, so each is one that works.
        assert set(scope[field]) <= set(base[field]), field
    assert scope['val_cfg']['type'] == KNNValLoop.__name__
    exec(start, scope)
    init_cfg = scope['model']['backbone']['init_cfg']
    linear = 'benchmarks/classification/resnet50_8xb32-linear-steplr-100e_in1k'
    shipped = Config.fromfile(ROOT / f'configs/{linear}.py')
    assert dict(init_cfg, checkpoint='') == shipped.model.backbone.init_cfg


def test_examples_of_checkpoints(tmp_path, monkeypatch):
    """Files as the exporters write them, load with the documented calls."""
    timm = pytest.importorskip('timm')
    torchvision = pytest.importorskip('torchvision')
    monkeypatch.chdir(tmp_path)
    init, vision, *with_timm = python_blocks('docs/checkpoints.md')
    scope = dict(torch=torch, torchvision=torchvision, timm=timm)
    backbone = torchvision.models.resnet50()
    backbone.fc = torch.nn.Identity()
    torch.save(backbone.state_dict(), 'r50.pth')
    exec(vision, scope)
    assert same(scope['model'], backbone)
    transformer = timm.create_model('vit_small_patch16_224', num_heads=12)
    transformer.reset_classifier(0)
    torch.save(transformer.state_dict(), 'vit.pth')
    resnet, vit, folder = with_timm
    exec(resnet, scope)  # timm's keys are torchvision's
    assert same(scope['model'], backbone)
    exec(vit, scope)
    assert same(scope['model'], transformer)
    assert 'local-dir' in folder  # test_from_mmunimoco.py
    exec(init, scope)
    exported = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    torch.save(dict(state_dict=exported), 'r50.pth')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(type='ResNet', depth=50, init_cfg=scope['init_cfg'])
        )
        model.init_weights()
    assert torch.equal(model.conv1.weight, backbone.conv1.weight)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) for key in one
    )


def test_example_of_a_loss():
    (example,) = python_blocks('docs/contributing.md')
    with MODELS.switch_scope_and_registry('mmpretrain'):
        exec(textwrap.dedent(example), {})
        loss = MODELS.build(dict(type='MarginUniConLoss', margin=0.5))
    logits = torch.tensor([[1.0, 0.5, -1.0]])
    positives = torch.tensor([[True, False, False]])
    negatives = logits[0, 1:].exp().sum()
    expected = (1 + negatives * (0.5 - logits[0, 0]).exp()).log()
    torch.testing.assert_close(loss(logits, positives), expected)


def test_every_python_block_is_tested():
    """Pages with code, and how many blocks their tests know."""
    counts = {page.name: len(blocks(page, 'python')) for page in PAGES}
    counts = {name: count for name, count in counts.items() if count}
    counts.pop('own_data.md')  # test_own_data_docs.py
    assert counts == {
        'checkpoints.md': 5,
        'configs.md': 4,
        'contributing.md': 1,
        'evaluation.md': 3,  # test_monitors.py
        'studies.md': 2,  # test_study/test_spec.py
        'transfer.md': 4,  # test_own_data_transfer.py
    }
