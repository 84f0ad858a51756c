"""Study files: what they mean, and mistakes in them."""

import io
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from exact_runs import ROOT
from rich.console import Console

from mmunimoco.study.configs import count_steps
from mmunimoco.study.plan import plan_jobs
from mmunimoco.study.prepare import prepare
from mmunimoco.study.records import Results
from mmunimoco.study.report import write_report
from mmunimoco.study.run import print_plan, report_study
from mmunimoco.study.spec import read_study

BASE = str(ROOT / 'configs/demo/unimoco_resnet18_fmnist.py')
LINEAR = str(ROOT / 'configs/demo/resnet18_linear_fmnist.py')
RATIO = 'train_dataloader.dataset.label_ratio'


def plan(tmp_path, **fields):
    text = ''.join(
        f'{name} = {value!r}\n'
        for name, value in (dict(base=BASE) | fields).items()
    )
    path = tmp_path / 'study.py'
    path.write_text(text)
    study = read_study(path)
    return plan_jobs(study, tmp_path / 'work', Results(tmp_path / 'none'))


def test_variants_times_grid_times_seeds(tmp_path):
    jobs = plan(
        tmp_path,
        variants=dict(
            unicon={},
            momentum={'model.momentum': 0.5},
            random=dict(checkpoint='none'),
        ),
        grid={RATIO: [0.0, 0.5], 'model.head.temperature': [0.1, 0.2]},
        seeds=[0, 7],
        evaluations=dict(
            knn=dict(type='knn', k=3, layer=2),
            linear=dict(type='linear', config=LINEAR, variants=['unicon']),
            cached=dict(
                type='cached_linear',
                variants=['momentum, label_ratio=0.5, temperature=0.1'],
            ),
        ),
    )
    kinds = [(j.variant.group, j.evaluation) for j in jobs]
    assert kinds.count(('unicon', 'pretrain')) == 2 * 2 * 2
    assert kinds.count(('unicon', 'linear')) == 8
    assert kinds.count(('momentum', 'knn')) == 8
    assert ('momentum', 'linear') not in kinds
    assert kinds.count(('momentum', 'cached')) == 2  # one point, two seeds
    assert ('unicon', 'cached') not in kinds
    assert kinds.count(('random', 'knn')) == 2  # nothing of it is trained
    assert len({job.key for job in jobs}) == len(jobs)
    assert len({job.folder for job in jobs}) == len(jobs)
    job = next(
        j
        for j in jobs
        if j.title
        == ('momentum, label_ratio=0.5, temperature=0.1, seed 7: knn')
    )
    dataset = job.needs.cfg.train_dataloader.dataset
    assert (dataset.label_ratio, dataset.seed) == (0.5, 7)
    assert job.needs.cfg.randomness.seed == 7
    assert job.needs.cfg.model.momentum == 0.5
    assert job.cfg.model.head.temperature == 0.1
    assert job.cfg.test_cfg.k == 3
    assert job.cfg.model.backbone.out_indices == (2,)


def test_changes_of_the_backbone_reach_the_evaluations(tmp_path):
    changes = {
        'model.backbone.base_channels': 8,
        'model.backbone.frozen_stages': 1,  # would unfreeze the probe
        'model.backbone.norm_eval': True,
    }
    train, linear = plan(
        tmp_path,
        variants=dict(narrow=changes),
        evaluations=dict(linear=dict(type='linear', config=LINEAR)),
    )
    assert linear.cfg.model.backbone.base_channels == 8
    assert linear.cfg.model.backbone.frozen_stages == 4
    assert train.cfg.model.backbone.frozen_stages == 1
    assert train.cfg.model.backbone.norm_eval
    assert 'norm_eval' not in linear.cfg.model.backbone


def test_variants_may_have_a_base_and_a_grid_of_their_own(tmp_path):
    other = tmp_path / 'other.py'
    other.write_text(f'_base_ = {BASE!r}\nmodel = dict(momentum=0.25)\n')
    jobs = plan(
        tmp_path,
        variants=dict(
            a={},
            b=dict(base='other.py', grid={}, series='a'),
            c=dict(grid={'model.momentum': [0.5]}),
        ),
        grid={RATIO: [0.0, 0.5]},
    )
    found = [(j.variant.name, j.variant.series) for j in jobs]
    assert found == [
        *(('a, label_ratio=0.0', 'a'), ('a, label_ratio=0.5', 'a')),
        *(('b', 'a'), ('c, momentum=0.5', 'c')),
    ]
    assert jobs[2].cfg.model.momentum == 0.25


def test_key_follows_the_numbers_and_not_how_they_are_shown(tmp_path):
    def keys(**settings):
        knn = dict(type='knn', **settings)
        jobs = plan(tmp_path, evaluations=dict(knn=knn))
        return [job.key for job in jobs]

    train, knn = keys(k=5)
    shown = dict(metric=['knn/top1'], scale=2.0, lower_is_better=True)
    assert keys(k=5, variants=['base'], **shown) == [train, knn]
    assert keys(k=6)[0] == train and keys(k=6)[1] != knn
    # Its options are in no config.
    probes = [
        plan(tmp_path, evaluations=dict(x=dict(PROBE, l2=l2)))[1].key
        for l2 in (0.1, 0.2)
    ]
    assert probes[0] != probes[1]


def test_documented_study(tmp_path):
    page = (ROOT / 'docs/studies.md').read_text()
    blocks = page.split('```python\n')[1:]
    code = ''.join(block.split('```')[0] for block in blocks)
    path = tmp_path / 'study.py'
    path.write_text(code.replace("'configs/", f"'{ROOT}/configs/"))
    study = read_study(path)
    jobs = plan_jobs(study, tmp_path / 'work', Results(tmp_path / 'none'))
    # Two losses at three points, and random weights, with three seeds.
    assert len(jobs) == (2 * 3 * 3 + 2) * 3
    assert len(study.prepare) == len(study.expectations) == 1


def test_placeholders_are_filled_and_do_not_count(tmp_path):
    """Neither where files lie, nor that they lie in the work folder."""
    archive = 'train_dataloader.dataset.dataset.ann_file'
    text = f"""
base = {BASE!r}
variants = dict(a={{{archive!r}: '{{work_dir}}/{{seed}}.npz'}})
seeds = [3]
evaluations = dict(
    knn=dict(type='knn', overrides={{'test_cfg.bank_dataloader.dataset.'
    'ann_file': '{{work_dir}}/bank.npz'}}))
"""
    path = tmp_path / 'study.py'
    path.write_text(text)
    found = []
    for folder in (tmp_path / 'work', Path('/somewhere')):
        train, knn = plan_jobs(
            read_study(path), folder, Results(tmp_path / 'none')
        )
        dataset = train.cfg.train_dataloader.dataset.dataset
        assert dataset.ann_file == f'{folder}/3.npz'
        bank = knn.cfg.test_cfg.bank_dataloader.dataset
        assert bank.ann_file == f'{folder}/bank.npz'
        found.append((train.key, knn.key))
    assert found[0] == found[1]


@pytest.mark.parametrize('name', ['study', 'quick_study'])
def test_study_of_the_demo(tmp_path, name):
    study = read_study(ROOT / f'demo/{name}.py')
    if find_spec('mmdet') is None:  # whose configs it inherits
        kept = {k: study.evaluations[k] for k in ('knn', 'linear')}
        study = replace(study, evaluations=kept)
    jobs = plan_jobs(study, tmp_path, Results(tmp_path / 'none'))
    if name == 'quick_study':
        # Of scenes, which are not prepared here, steps are unknown.
        assert all((job.steps(1) or 0) <= 42 for job in jobs)
        return
    steps = {
        job.variant.name: job.steps(1)
        for job in jobs
        if job.evaluation == 'pretrain'
    }
    # As many for each share of labels, up to an epoch; see configs/demo.
    assert sorted(steps.values()) == [2604, 2604, 2604, 2604, 2620]
    transfer = 2 * 4 if find_spec('mmdet') else 0
    assert len(jobs) == 3 * (5 * 3 + 2 + transfer)


@pytest.mark.parametrize(
    ('name', 'variants'),
    [('study', 15), ('slow_start', 26), ('propagation', 3), ('long', 7)],
)
def test_studies_of_cifar10_on_a_cpu(tmp_path, name, variants, monkeypatch):
    """Planned without the images, so without numbers of steps."""
    monkeypatch.syspath_prepend(ROOT / 'docs/benchmarks/cifar10-cpu')
    if name == 'study':  # it fine-tunes detectors
        pytest.importorskip('mmdet')
    study = read_study(ROOT / f'docs/benchmarks/cifar10-cpu/{name}.py')
    assert len(study.variants) == variants
    jobs = plan_jobs(study, tmp_path, Results(tmp_path / 'none'))
    own = {
        job.variant.name: job.cfg.model.head.loss.get('own_key_weight')
        for job in jobs
        if job.evaluation == 'pretrain' and 'UniCon' in job.variant.name
    }
    for variant, weight in own.items():
        assert weight == ('balanced' if 'balanced' in variant else 1)


@pytest.mark.parametrize(
    ('changes', 'processes', 'steps'),
    [
        ({}, 1, 28 * 93),  # of 6 000 images by 64
        ({'train_dataloader.drop_last': False}, 1, 28 * 94),
        ({}, 4, 28 * 23),
        ({'train_cfg': dict(_delete_=True, max_iters=123)}, 1, 123),
        ({'train_dataloader.dataset.dataset.ann_file': 'gone'}, 1, None),
    ],
)
def test_steps_of_a_run(tmp_path, changes, processes, steps):
    (job,) = plan(tmp_path, variants=dict(one=changes))
    assert count_steps(job.cfg, processes) == steps


KNN = dict(type='knn')
NO_MORE = dict(evaluation='x', better='base', than='base')
BACKENDS = 'visualizer.vis_backends'
REMOTE = dict(
    type='linear',
    config=LINEAR,
    overrides={BACKENDS: [dict(type='TensorboardVisBackend')]},
)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(seed=[0]), "Did you mean 'seeds'"),
        (dict(seeds=3), 'seeds must be a list'),
        (dict(seeds=[1, 1]), 'different integers'),
        (dict(seeds=[]), 'different integers'),
        (dict(gpus=0), 'gpus must be 1 or more'),
        (dict(base='gone.py'), 'gone.py does not exist'),
        (dict(base=None), 'base'),
        (dict(variants=dict(a=3)), 'variants.a must be a dict'),
        (dict(variants=dict(a={'model.haed.x': 1})), "'model.haed'"),
        (dict(variants=dict(a={'model.momentun': 1})), 'momentun'),
        (dict(variants={'a b': {}, 'a-b': {}}), 'share a folder'),
        (dict(variants=dict(a={}, b={})), 'are the same run'),
        (dict(grid={RATIO: 0.1}), 'must be a list of values'),
        (dict(evaluations=dict(x=dict(type='knm'))), "got 'knm'"),
        (dict(evaluations=dict(pretrain=KNN)), 'a name other than'),
        (dict(evaluations=dict(x=dict(KNN, kk=3))), 'does not take kk'),
        (dict(evaluations=dict(x=dict(KNN, variants=['q']))), 'names q'),
        (dict(evaluations=dict(x=dict(type='linear'))), 'config is missing'),
        (
            dict(evaluations=dict(x=dict(type='finetune', config=BASE))),
            'does not start from a checkpoint',
        ),
        (
            dict(evaluations=dict(x=REMOTE)),
            'vis_backends writes scalars.json, from which scores are read',
        ),
        (
            dict(evaluations=dict(x=dict(type='transfer', config=LINEAR))),
            'metric is missing',
        ),
        (dict(evaluations=dict(x=dict(KNN, config=LINEAR))), 'no kNN test'),
        (dict(published=[dict(name='a')]), 'lacks evaluation, value, source'),
        (dict(expectations=[dict(better='base')]), 'lacks evaluation, than'),
        (dict(expectations=[dict(NO_MORE, bye=3)]), 'does not take bye'),
        (dict(expectations=[NO_MORE]), "'x', which is no evaluation"),
        (
            dict(
                evaluations=dict(x=KNN),
                expectations=[NO_MORE | dict(than='q')],
            ),
            "than names 'q'; the variants are base",
        ),
        (
            dict(
                evaluations=dict(x=KNN),
                expectations=[NO_MORE | dict(metric='top7')],
            ),
            'x reports knn/top1',
        ),
        (dict(prepare=[dict(command='make', creates='x')]), 'a list of texts'),
        (dict(prepare=[dict(command=['make'])]), 'prepare[0] lacks creates'),
        (
            dict(prepare=[dict(command=['make', '{seed}'], creates='x')]),
            'so creates must name it too',
        ),
        (
            dict(
                variants=dict(a=dict(checkpoint='none')),
                evaluations=dict(x=dict(type='cached_linear')),
            ),
            'draws no random weights by seed',
        ),
    ],
)
def test_mistakes(tmp_path, fields, message):
    with pytest.raises((ValueError, TypeError, OSError)) as error:
        plan(tmp_path, **fields)
    assert message in str(error.value)


@pytest.mark.parametrize(
    'changed',
    [
        {BACKENDS: [dict(type='TensorboardVisBackend'), dict(type=kind)]}
        for kind in ('LocalVisBackend', 'PatientVisBackend', 'BackendOfMine')
    ]
    # mmengine's own; and a config that is tested afterwards.
    + [{'visualizer': dict(_delete_=True, type='UniversalVisualizer')}]
    + [REMOTE['overrides'] | {'val_cfg': None}],
)
def test_backends_that_write_scores(tmp_path, changed):
    plan(tmp_path, evaluations=dict(x=REMOTE | dict(overrides=changed)))


NUMBER = dict(name='a', evaluation='x', value=1.0, source='b')
PROBE = dict(type='cached_linear')


@pytest.mark.parametrize(
    ('place', 'entry', 'message'),
    [
        ('evaluations', 3, ' must be a dict'),
        ('evaluations', dict(type=['knn']), ' needs a name other than'),
        ('evaluations', dict(KNN, scale='a'), '.scale must be a number above'),
        ('evaluations', dict(KNN, scale=0), '.scale must be a number above'),
        ('evaluations', dict(KNN, k='5'), '.k must be an integer from 1'),
        ('evaluations', dict(KNN, k=[5, 0]), '.k must be an integer from 1'),
        ('evaluations', dict(KNN, k=[]), '.k must be an integer from 1'),
        ('evaluations', dict(KNN, k=True), '.k must be an integer from 1'),
        ('evaluations', dict(KNN, temperature=0), '.temperature must be a'),
        ('evaluations', dict(KNN, layer=(3,)), '.layer must be an integer'),
        ('evaluations', dict(KNN, layer=-1), '.layer must be an integer'),
        ('evaluations', dict(KNN, metric=[]), '.metric must be a name or'),
        ('evaluations', dict(KNN, metric=3), '.metric must be a name or'),
        ('evaluations', dict(KNN, config=3), '.config must be a text'),
        ('evaluations', dict(KNN, overrides=[1]), '.overrides must be a dict'),
        ('evaluations', dict(KNN, lower_is_better='no'), 'must be True or F'),
        ('evaluations', dict(KNN, variants=[['a']]), 'be a list of names'),
        ('evaluations', dict(PROBE, l2='no'), '.l2 must be a number from 0'),
        ('evaluations', dict(PROBE, max_iter=0.5), '.max_iter must be an in'),
        ('published', 3, ' must be a dict'),
        ('published', dict(NUMBER, metrics='top1'), ' does not take metrics'),
        ('published', dict(NUMBER, metric='top1'), ".metric is 'top1'; x rep"),
        ('published', dict(NUMBER, value='82.6'), '.value must be a number'),
        ('published', dict(NUMBER, value=float('nan')), 'be a number, got n'),
        ('published', dict(NUMBER, std='0.3'), '.std must be a number from 0'),
        ('published', dict(NUMBER, n=2.5), '.n must be an integer from 1 on'),
        ('published', dict(NUMBER, source=None), '.source must be a text'),
        ('published', dict(NUMBER, evaluation=[]), '.evaluation must be a t'),
        ('prepare', 'make', ' must be a dict'),
        ('expectations', 'better', ' must be a dict'),
        ('expectations', dict(NO_MORE, by='5'), '.by must be a number'),
        ('expectations', dict(NO_MORE, better=[]), '.better must be a name'),
    ],
)
def test_fields_that_do_not_fit(tmp_path, place, entry, message):
    """In one line, which names file and field."""
    fields = {place: [entry]}
    if place == 'evaluations':
        fields = {place: dict(x=entry)}
    elif place == 'published':
        fields['evaluations'] = dict(x=KNN)
    text = ''.join(f'{name} = {value!r}\n' for name, value in fields.items())
    path = tmp_path / 'study.py'
    path.write_text(f'base = {BASE!r}\nnan = float("nan")\n{text}')
    with pytest.raises(ValueError) as error:
        read_study(path)
    index = '.x' if place == 'evaluations' else '[0]'
    said = str(error.value)
    assert said.startswith(f'{path}: {place}{index}')
    assert message in said and '\n' not in said


@pytest.mark.parametrize(
    ('text', 'fault', 'message'),
    [
        ('variants = {', ValueError, 'study.py cannot be read: SyntaxError'),
        ('seeds = [one]', ValueError, 'study.py cannot be read: NameError'),
        ('evaluations = {1: {}}', ValueError, 'evaluations.1 must be a dict'),
        ('variants = {1: {}}', TypeError, 'names of variants must be texts'),
        (f'variants = {{"{"n" * 201}": {{}}}}', ValueError, 'up to 200'),
        (
            'evaluations = dict(k=dict(type="knn", variants="base"))',
            ValueError,
            'evaluations.k.variants must be a list',
        ),
    ],
)
def test_mistakes_of_python(tmp_path, text, fault, message):
    path = tmp_path / 'study.py'
    path.write_text(f'base = {BASE!r}\n{text}\n')
    with pytest.raises(fault, match=message):
        read_study(path)


def test_command_that_does_not_exist(tmp_path):
    path = tmp_path / 'study.py'
    command = "prepare = [dict(command=['no-program'], creates='x')]"
    path.write_text(f'base = {BASE!r}\n{command}\n')
    with pytest.raises(RuntimeError, match='no-program of prepare cannot be'):
        prepare(read_study(path), tmp_path, print)


def test_command_that_makes_nothing(tmp_path):
    path = tmp_path / 'study.py'
    command = "prepare = [dict(command=['true'], creates='x')]"
    path.write_text(f'base = {BASE!r}\n{command}\n')
    with pytest.raises(RuntimeError, match='status 0 and did not create .*x'):
        prepare(read_study(path), tmp_path, print)


def test_seed_alone_is_a_word_of_a_command(tmp_path):
    """Commands start in the folder of the study file."""
    path = tmp_path / 'study.py'
    command = "prepare = [dict(command=['touch', '{seed}'], creates='{seed}')]"
    path.write_text(f'base = {BASE!r}\nseeds = [3]\n{command}\n')
    assert prepare(read_study(path), tmp_path / 'work', print)
    assert (tmp_path / '3').is_file()


def test_names_are_no_markup_in_the_terminal(tmp_path):
    names = ['UniCon [a]', 'UniCon [/b]']
    changes = [{'model.momentum': value} for value in (0.1, 0.2)]
    jobs = plan(tmp_path, variants=dict(zip(names, changes, strict=True)))
    console = Console(width=200, file=io.StringIO())
    study = read_study(tmp_path / 'study.py')
    print_plan(jobs, Results(tmp_path / 'none'), study, console)
    assert all(f' {name} ' in console.file.getvalue() for name in names)


def test_key_follows_processes_and_the_content_of_files(tmp_path):
    """The config names a file of labels, and not what is in it."""
    labels = tmp_path / 'labels.txt'
    dataset = 'train_dataloader.dataset'
    listed = {
        f'{dataset}.label_list': str(labels),
        f'{dataset}.label_ratio': None,
    }
    keys = []
    for text, gpus in (('a', 1), ('b', 1), ('b', 2), ('b', 2)):
        labels.write_text(text)
        (job,) = plan(tmp_path, variants=dict(x=listed), gpus=gpus)
        keys.append(job.key)
    assert len(set(keys)) == 3 and keys[2] == keys[3]


FEW = """
_base_ = {base!r}
train_dataloader = dict(dataset=dict(
    _delete_=True, type='LabeledSubset', dataset=dict(
        type='PartialLabels', label_ratio=0.1, seed=0,
        dataset={{{{_base_.train_dataloader.dataset}}}})))
"""


@pytest.fixture
def few(tmp_path):
    """A config that fine-tunes on 10 % of the labels, those of seed 0."""
    path = tmp_path / 'few.py'
    path.write_text(FEW.format(base=LINEAR))
    return str(path)


def test_key_follows_the_files_of_an_evaluation(tmp_path, few):
    """Those of the pre-training are in its own key, which is a part."""
    labels, weights = tmp_path / 'labels.txt', tmp_path / 'weights.pth'
    dataset = 'train_dataloader.dataset.dataset'
    files = {f'{dataset}.label_list': str(labels), 'load_from': str(weights)}
    files[f'{dataset}.label_ratio'] = None
    evaluations = dict(
        knn=KNN,
        few=dict(type='finetune', config=few, overrides=files),
    )
    keys = []
    for listed, trained in (('a', 'a'), ('b', 'a'), ('b', 'b')):
        labels.write_text(listed)
        weights.write_text(trained)
        jobs = plan(tmp_path, evaluations=evaluations)
        keys.append([job.key for job in jobs])
    same = [len(set(column)) for column in zip(*keys, strict=True)]
    assert same == [1, 1, 3]  # pre-training, kNN, few labels
    without = plan(tmp_path, evaluations=dict(knn=KNN))
    assert [job.key for job in without] == keys[0][:2]


@pytest.mark.parametrize(
    'field', ['load_from', 'model.backbone.init_cfg.checkpoint']
)
def test_key_follows_the_weights_that_a_training_starts_from(tmp_path, field):
    weights = tmp_path / 'weights.pth'
    base = tmp_path / 'base.py'
    init = "model = dict(backbone=dict(init_cfg=dict(type='Pretrained')))"
    base.write_text(f'_base_ = {BASE!r}\n{init}\n')
    keys = []
    for text in ('a', 'b'):
        weights.write_text(text)
        changes = {field: str(weights)}
        jobs = plan(
            *(tmp_path,),
            **dict(base=str(base), variants=dict(x=changes)),
            evaluations=dict(knn=KNN),
        )
        keys.append([job.key for job in jobs])
    assert not set(keys[0]) & set(keys[1])


def test_weights_that_are_replaced_do_not_count(tmp_path):
    """Nor do those of a field of a file that no run reads."""
    path = tmp_path / 'linear.py'
    weights = tmp_path / 'weights.pth'
    init = f"init = dict(type='Pretrained', checkpoint={str(weights)!r}, "
    init += "prefix='backbone.')\nmodel = dict(backbone=dict(init_cfg=init))"
    path.write_text(f'_base_ = {LINEAR!r}\n{init}\n')
    keys = []
    for text in ('a', 'b'):
        weights.write_text(text)
        linear = dict(type='linear', config=str(path))
        _, job = plan(tmp_path, evaluations=dict(linear=linear))
        assert job.cfg.model.backbone.init_cfg.checkpoint == str(weights)
        keys.append(job.key)
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    'field', ['label_list', 'load_from', 'model.backbone.init_cfg.checkpoint']
)
@pytest.mark.parametrize('place', ['variants', 'evaluations'])
def test_files_beside_the_study_are_not_meant(
    tmp_path, few, monkeypatch, place, field
):
    """Paths of overrides are those of the runs: of the current folder."""
    if place == 'evaluations' and 'init_cfg' in field:
        field = 'model.head.init_cfg.checkpoint'
    base = tmp_path / 'base.py'
    init = "dict(init_cfg=dict(type='Pretrained', checkpoint='none'))"
    base.write_text(f'_base_ = {BASE!r}\nmodel = dict(backbone={init})\n')
    path = tmp_path / 'few.py'
    path.write_text(f'{path.read_text()}\nmodel = dict(head={init})')
    (tmp_path / 'a.txt').touch()
    folder = tmp_path / 'current'
    folder.mkdir()
    monkeypatch.chdir(folder)

    def planned(name, **fields):
        depth = 2 if place == 'evaluations' else 1
        dataset = f'train_dataloader{".dataset" * depth}'
        changes = {field: name}
        if field == 'label_list':
            changes = {f'{dataset}.{field}': name}
            changes[f'{dataset}.label_ratio'] = None
        tuned = dict(type='finetune', config=few)
        if place == 'evaluations':
            tuned['overrides'] = changes
        variant = changes if place == 'variants' else {}
        return plan(
            *(tmp_path,),
            **dict(base=str(base), variants=dict(x=variant)),
            **dict(evaluations=dict(few=tuned), **fields),
        )

    with pytest.raises(FileNotFoundError) as error:
        planned('a.txt')
    named = 'few' if place == 'evaluations' else 'x'
    said = str(error.value)
    assert f'study.py: {place}.{named} reads a.txt, but {folder}/a.' in said
    assert planned('{{ fileDirname }}/a.txt')
    assert planned('https://a.b/a.txt')
    assert planned(
        '{work_dir}/made/a.txt',
        prepare=[dict(command=['make'], creates='{work_dir}/made')],
    )
    (folder / 'a.txt').touch()
    assert planned('a.txt')


def test_files_that_no_run_reads_are_not_needed(tmp_path):
    """Nothing of random weights is trained."""
    dataset = 'train_dataloader.dataset'
    changes = {f'{dataset}.label_list': 'gone'}
    changes |= {f'{dataset}.label_ratio': None, 'load_from': 'gone'}
    (job,) = plan(
        *(tmp_path,),
        variants=dict(x=dict(changes, checkpoint='none')),
        evaluations=dict(knn=KNN),
    )
    assert job.evaluation == 'knn'


@pytest.mark.parametrize(
    ('fields', 'overrides', 'expected'),
    [
        ({}, {}, [0, 7]),
        ({}, {'dataset.dataset.label_ratio': 0.2}, [0, 7]),
        ({}, {'dataset.dataset.seed': 3}, [3, 3]),
        ({}, {'dataset': dict(dataset=dict(seed=0))}, [0, 0]),
        (dict(label_seed=False), {}, [0, 0]),
        (
            dict(label_seed=False),
            {'dataset.dataset.seed': '{seed}'},
            [0, 7],
        ),
        # Nothing is chosen: not another run.
        ({}, {'dataset.dataset.label_ratio': 1.0}, [0, 0]),
    ],
)
def test_seed_of_labels_in_evaluations(
    tmp_path, few, fields, overrides, expected
):
    """Else few labels are others than those of pre-training."""
    own = {f'train_dataloader.{k}': v for k, v in overrides.items()}
    jobs = plan(
        *(tmp_path,),
        **dict(seeds=[0, 7], **fields),
        evaluations=dict(
            few=dict(type='finetune', config=few, overrides=own),
            knn=dict(KNN, config=BASE),  # has labels that it does not read
        ),
    )
    found = [
        job.cfg.train_dataloader.dataset.dataset.seed
        for job in jobs
        if job.evaluation == 'few'
    ]
    assert found == expected and set(map(type, found)) == {int}
    unread = {
        job.cfg.train_dataloader.dataset.seed
        for job in jobs
        if job.evaluation == 'knn'
    }
    assert unread == {0}


def test_seed_of_labels_in_a_bank(tmp_path):
    base = tmp_path / 'bank.py'
    bank = 'test_cfg = dict(bank_dataloader=dict(dataset=dict(_delete_=True, '
    bank += "type='PartialLabels', label_ratio=0.1, "
    bank += 'dataset={{_base_.test_cfg.bank_dataloader.dataset}})))'
    base.write_text(f'_base_ = {BASE!r}\n{bank}\n')
    _, knn = plan(
        *(tmp_path,),
        **dict(base=str(base), seeds=[7], evaluations=dict(knn=KNN)),
    )
    assert knn.cfg.test_cfg.bank_dataloader.dataset.seed == 7


def finished_record(job, work_dir, **changes):
    return (
        dict(
            key=job.key,
            config_hash=job.config_hash,
            code=job.code,
            folder=str(job.folder.relative_to(work_dir)),
            status='done',
            variant=job.variant.name,
            group=job.variant.group,
            series='',
            grid={},
            label_ratio=1.0,
            seed=0,
            evaluation=job.evaluation,
            protocol=dict(type='pretrain'),
            metrics={'knn/top1': dict(last=50.0, best=50.0)},
        )
        | changes
    )


def test_renamed_variant_is_the_same_run(tmp_path, monkeypatch):
    work_dir = tmp_path / 'work'
    results = Results(work_dir / 'results.jsonl')
    change = {'model.momentum': 0.5}
    study = tmp_path / 'study.py'
    turned = dict(lower_is_better=True, scale=100.0)
    for name, options in (('old', turned), ('new', {})):
        variants = {name: dict(change, series=f'{name}er')}
        knn = {f'{name}est': dict(type='knn', **options)}
        study.write_text(
            f'base = {BASE!r}\nvariants = {variants}\nevaluations = {knn}'
        )
        read = read_study(study)
        jobs = plan_jobs(read, work_dir, results)
        if name == 'old':
            folders = [job.folder for job in jobs]
            for job in jobs:
                protocol = dict(job.settings)
                results.append(
                    finished_record(job, work_dir, protocol=protocol)
                )
    assert [job.folder for job in jobs] == folders
    console = Console(file=io.StringIO())
    shown = []
    monkeypatch.setattr(
        *('mmunimoco.study.run.write_report',),
        lambda *args: shown.extend(args[2]) or write_report(*args),
    )
    report_study(read, jobs, results, work_dir, console)
    names = {(r['variant'], r['group'], r['series']) for r in shown}
    assert names == {('new', 'new', 'newer')}
    table = (work_dir / 'results.csv').read_text()
    assert 'new,1.0,newest,knn/top1,1,50.0,' in table
    assert 'old' not in table
    # What is no longer said is no longer shown.
    text = (work_dir / 'report.md').read_text()
    assert 'Protocol newest: ' in text and 'scale' not in text


def test_any_code_prefers_a_result(tmp_path):
    """To a later version of the code, which has failed."""
    work_dir = tmp_path / 'work'
    results = Results(work_dir / 'results.jsonl')
    study = tmp_path / 'study.py'
    study.write_text(f'base = {BASE!r}')
    (job,) = plan_jobs(read_study(study), work_dir, results)
    for code, status in (('a', 'done'), ('b', 'failed')):
        key = f'{job.config_hash}-{code}'
        changes = dict(key=key, code=code, status=status)
        results.append(finished_record(job, work_dir, **changes))
    (job,) = plan_jobs(read_study(study), work_dir, results, any_code=True)
    assert results.finished(job.key)


def test_any_code_tries_again_with_the_code_of_today(tmp_path):
    """In the folder of what has failed; the record names what has run."""
    work_dir = tmp_path / 'work'
    results = Results(work_dir / 'results.jsonl')
    study = tmp_path / 'study.py'
    study.write_text(f'base = {BASE!r}')
    (job,) = plan_jobs(read_study(study), work_dir, results)
    changes = dict(key='old', code='old', status='failed', folder='runs/x')
    results.append(finished_record(job, work_dir, **changes))
    (again,) = plan_jobs(read_study(study), work_dir, results, any_code=True)
    assert again.folder == work_dir / 'runs/x'
    assert again.code == job.code


def test_published_number_belongs_to_one_metric(tmp_path):
    path = tmp_path / 'study.py'
    text = f"base = {BASE!r}\nevaluations = dict(k=dict(type='knn', metric="
    text += "['knn/top5', 'knn/top1']))\npublished = [dict(name='x', "
    text += "evaluation='k', value={}, source='y')]"
    path.write_text(text.format('82.6'))
    assert read_study(path).published[0]['metric'] == 'knn/top5'
    path.write_text(text.format("'82.6'"))
    path.write_text(text.format("1.0, metric='top1'"))
    with pytest.raises(ValueError, match='k reports knn/top5, knn/top1'):
        read_study(path)


@pytest.mark.parametrize('command', ['exit 3', 'kill -TERM $$'])
def test_what_a_failed_command_made_is_not_kept(tmp_path, command):
    path = tmp_path / 'study.py'
    words = ['sh', '-c', f'mkdir made; {command}']
    text = f'prepare = [dict(command={words!r}, creates="made")]'
    path.write_text(f'base = {BASE!r}\n{text}\n')
    for _ in range(2):
        with pytest.raises(RuntimeError, match='created .*made, which is not'):
            prepare(read_study(path), tmp_path, print)
        assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize(
    'changes',
    [
        {'model.backbone': dict(base_channels=8)},
        {'model': dict(backbone=dict(base_channels=8))},
    ],
)
def test_changes_of_whole_parts_reach_the_evaluations(tmp_path, changes):
    evaluations = dict(linear=dict(type='linear', config=LINEAR))
    for job in plan(
        tmp_path, variants=dict(narrow=changes), evaluations=evaluations
    ):
        assert job.cfg.model.backbone.base_channels == 8
    changes = {'model.backbone': dict(_delete_=True, type='ResNet', depth=18)}
    with pytest.raises(ValueError, match='_delete_'):
        plan(tmp_path, variants=dict(x=changes), evaluations=evaluations)
