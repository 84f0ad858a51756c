"""The kNN loops against a slow reference, one image at a time."""

import numpy as np
import pytest
import torch
from ddp_helpers import run_ddp
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import MoCo, ResNet
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset, default_collate

from mmunimoco.datasets import SkipBrokenImages
from mmunimoco.engine import knn_loop
from mmunimoco.evaluation.knn import knn_neighbours

CLASSES = 4
WEIGHTS = dict(k=(3, 7), temperature=0.2)


@METRICS.register_module()
class AllScores(Accuracy):
    """Accuracy from the scores of all classes, as mmpretrain's loops do."""

    default_prefix = 'all'


class FewNames(torch.utils.data.Subset):
    """Labels up to 3, names of three classes."""

    metainfo = dict(classes=['0', '1', '2'])


class Pictures(Dataset):
    """Noise around the colour of a class; some have no label."""

    def __init__(self, size, seed, unlabeled=(), views=1, damaged=()):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(CLASSES, (size,), generator=generator)
        colours = torch.eye(4)[:, :3] * 60
        noise = torch.rand((size, 3, 16, 16), generator=generator) * 255
        self.images = noise + colours[self.labels][..., None, None]
        self.images[list(damaged)] = float('nan')
        self.unlabeled = set(unlabeled)
        self.views = views
        self.metainfo = dict(classes=[str(i) for i in range(CLASSES)])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        sample = DataSample()
        if index not in self.unlabeled:
            sample.set_gt_label(self.labels[index])
        image = self.images[index]
        inputs = image if self.views == 1 else [image] * self.views
        return dict(inputs=inputs, data_samples=sample)


def collate(items):
    inputs = default_collate([item['inputs'] for item in items])
    samples = [item['data_samples'] for item in items]
    return dict(inputs=inputs, data_samples=samples)


def loader(dataset, batch_size=4, shuffle=False):
    return DataLoader(
        dataset,
        batch_size,
        sampler=DefaultSampler(dataset, shuffle=shuffle, seed=0),
        collate_fn=collate,
    )


def build_model():
    torch.manual_seed(0)
    backbone = ResNet(18, stem_channels=8, base_channels=8, norm_eval=False)
    return MoCo(
        backbone=backbone,
        neck=dict(
            type='MoCoV2Neck',
            in_channels=64,
            hid_channels=16,
            out_channels=8,
            with_avg_pool=True,
        ),
        head=dict(
            type='ContrastiveHead',
            loss=dict(type='CrossEntropyLoss'),
            temperature=0.2,
        ),
        queue_len=16,
        feat_dim=8,
    )


def build_runner(
    work_dir,
    bank=None,
    queries=None,
    stage='val',
    shuffle=False,
    evaluator=None,
    hook=None,
    **options,
):
    bank = Pictures(25, seed=1) if bank is None else bank
    queries = Pictures(11, seed=2) if queries is None else queries
    loop = dict(
        type='KNNValLoop' if stage == 'val' else 'KNNTestLoop',
        **{
            'bank_dataloader': loader(bank, shuffle=shuffle),
            **WEIGHTS,
            **options,
        },
    )
    if evaluator is None:
        evaluator = dict(type='Accuracy', topk=(1, 2), prefix='knn')
    return Runner(
        model=build_model(),
        work_dir=str(work_dir),
        default_scope='mmpretrain',
        log_level='WARNING',
        experiment_name=str(work_dir).replace('/', '_'),
        launcher='none',
        custom_hooks=[hook] if hook else None,
        **{
            f'{stage}_cfg': loop,
            f'{stage}_dataloader': loader(queries),
            f'{stage}_evaluator': evaluator,
        },
    )


def expected_metrics(bank=None, queries=None, unlabeled=()):
    """The same accuracies, one image and one neighbour at a time."""
    bank = bank or Pictures(25, seed=1)
    queries = queries or Pictures(11, seed=2)
    model = build_model().eval()

    def feature(image):
        with torch.no_grad():
            grid = model.backbone(image[None])[-1][0].double()
        vector = grid.mean(dim=(1, 2)).numpy()
        return vector / np.linalg.norm(vector)

    known = [i for i in range(len(bank)) if i not in unlabeled]
    voters = [(feature(bank.images[i]), int(bank.labels[i])) for i in known]
    metrics = {}
    for k in WEIGHTS['k']:
        hits = np.zeros(2)
        for image, label in zip(queries.images, queries.labels, strict=True):
            query, votes = feature(image), np.zeros(CLASSES)
            nearest = sorted(voters, key=lambda v: -v[0] @ query)[:k]
            for vector, voted in nearest:
                votes[voted] += np.exp(vector @ query / 0.2)
            order = [c for c in np.argsort(-votes) if votes[c] > 0]
            hits += [int(label) in order[:1], int(label) in order[:2]]
        suffix = '' if k == WEIGHTS['k'][0] else f'_k{k}'
        top1, top2 = 100 * hits / len(queries)
        metrics[f'knn/top1{suffix}'] = top1
        metrics[f'knn/top2{suffix}'] = top2
    return metrics


def assert_same(got, expected):
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_ids_of_bank_and_queries_mean_the_same(tmp_path, stage):
    queries = Pictures(11, seed=2)
    queries.metainfo = dict(classes=['0', '2', '3'])
    runner = build_runner(tmp_path, queries=queries, stage=stage)
    message = f"'2' in {stage}_dataloader.dataset and '1' in {stage}_cfg.bank"
    with pytest.raises(ValueError, match=message):
        getattr(runner, stage)()


@pytest.mark.parametrize(
    ('stage', 'shuffle'), [('val', False), ('test', True)]
)
def test_metrics_equal_a_slow_reference(tmp_path, stage, shuffle):
    runner = build_runner(tmp_path, stage=stage, shuffle=shuffle)
    assert_same(getattr(runner, stage)(), expected_metrics())


def test_small_chunks_and_half_bank(tmp_path, monkeypatch):
    dtypes = []

    def observed(queries, bank, *arguments, **options):
        dtypes.append(bank.dtype)
        return knn_neighbours(queries, bank, *arguments, **options)

    monkeypatch.setattr(knn_loop, 'knn_neighbours', observed)
    runner = build_runner(
        tmp_path, query_chunk=3, bank_chunk=5, bank_dtype='float16'
    )
    assert_same(runner.val(), expected_metrics())
    assert_same(build_runner(tmp_path).val(), expected_metrics())
    assert dtypes == [torch.float16, torch.float32]


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_kept_images_are_read_once(tmp_path, stage):
    """The metrics follow the weights, but no sample is loaded again."""
    bank, queries = Pictures(25, seed=1), Pictures(11, seed=2)
    runner = build_runner(
        tmp_path, bank, queries, stage=stage, images_on_device=True
    )
    first = getattr(runner, stage)()
    assert_same(first, expected_metrics())
    again = build_runner(tmp_path / 'again', stage=stage)
    bank.images = queries.images = None
    for each in (runner, again):
        with torch.no_grad():
            for weight in each.model.backbone.parameters():
                weight.copy_(weight.flatten().roll(1).view_as(weight))
    changed = getattr(runner, stage)()
    assert changed == getattr(again, stage)() != first


def test_memory_does_not_grow_with_samples_times_classes(
    tmp_path, monkeypatch
):
    """Scores exist for a chunk of queries, and Accuracy keeps the best."""
    monkeypatch.setattr(knn_loop, '_SCORES_AT_ONCE', 2 * CLASSES)
    voted, kept = [], []
    vote, compute = knn_loop.vote, Accuracy.compute_metrics

    def watched_vote(*arguments):
        voted.append(vote(*arguments))
        return voted[-1]

    def watched_compute(metric, results):
        kept.extend(result['pred_score'] for result in results)
        return compute(metric, results)

    monkeypatch.setattr(knn_loop, 'vote', watched_vote)
    monkeypatch.setattr(Accuracy, 'compute_metrics', watched_compute)
    assert_same(build_runner(tmp_path).val(), expected_metrics())
    assert max(len(scores) for scores in voted) == 2
    assert {score.untyped_storage().nbytes() for score in kept} == {2 * 4}


def test_metrics_that_need_all_scores_get_them(tmp_path):
    """Several at once; Accuracy is that of all scores, bit by bit."""
    runner = build_runner(
        tmp_path,
        k=3,
        evaluator=[
            dict(type='Accuracy', topk=(1, 2), thrs=(0.0, 0.6, None)),
            dict(type='AllScores', topk=(1, 2), thrs=(0.0, 0.6, None)),
            dict(type='SingleLabelMetric', items=('recall', 'support')),
            dict(type='ConfusionMatrix'),
        ],
    )
    metrics = runner.val()
    for name in ('top1', 'top2'):
        for threshold in ('thr-0.00', 'thr-0.60'):
            key = f'{name}_{threshold}'
            assert metrics[f'accuracy/{key}'] == metrics[f'all/{key}']
    top1 = metrics['accuracy/top1_thr-0.00']
    assert top1 == metrics['accuracy/top1_no-thr']
    matrix = metrics['confusion_matrix/result']
    assert matrix.diag().sum() == round(top1 * 11 / 100)
    assert metrics['single-label/support'] == matrix.sum() == 11


def test_more_classes_asked_for_than_neighbours(tmp_path):
    """Classes without a vote are no predictions, so top-3 is top-1."""
    evaluator = dict(type='Accuracy', topk=(1, 3))
    metrics = build_runner(tmp_path, k=1, evaluator=evaluator).val()
    assert metrics['accuracy/top3'] == metrics['accuracy/top1'] > 0


def _validate(rank, world_size, folder, stage):
    """Twice, the second time from batches that were kept."""
    runner = build_runner(folder, stage=stage, images_on_device=True)
    return [getattr(runner, stage)() for _ in range(2)]


@pytest.mark.parametrize(('world_size', 'stage'), [(2, 'val'), (3, 'test')])
def test_several_processes(tmp_path, world_size, stage):
    """25 and 11 samples do not divide by 2 or 3: some are repeated."""
    expected = expected_metrics()
    for runs in run_ddp(_validate, world_size, tmp_path, str(tmp_path), stage):
        for metrics in runs:
            assert_same(metrics, expected)


def uneven_bank():
    """Without names of classes; the share of rank 1 lacks the last one."""
    bank = Pictures(25, seed=1)
    del bank.metainfo
    bank.labels[1::2] = bank.labels[1::2].clamp(max=CLASSES - 2)
    return bank


def _validate_uneven(rank, world_size, folder):
    metrics = build_runner(folder, bank=uneven_bank()).val()
    shares = DataLoader(Pictures(25, seed=1), 4, collate_fn=collate)
    with pytest.raises(ValueError, match='the kNN bank needs .*DefaultSampl'):
        build_runner(folder, bank_dataloader=shares).val()
    return metrics


def test_classes_and_samplers_of_several_processes(tmp_path):
    expected = expected_metrics(bank=uneven_bank())
    for metrics in run_ddp(_validate_uneven, 2, tmp_path, str(tmp_path)):
        assert_same(metrics, expected)


class Unreadable(Pictures):
    """Some images cannot be read."""

    def __init__(self, *arguments, unreadable):
        super().__init__(*arguments)
        self.unreadable = unreadable

    def full_init(self):
        pass

    def get_data_info(self, index):
        return dict(img_path=f'{index}.jpg')

    def __getitem__(self, index):
        if index in self.unreadable:
            raise ValueError('no image')
        return super().__getitem__(index)


def _faults_of_one_rank(rank, world_size, folder):
    """NaN in the share of rank 1, and a broken file in each share."""
    damaged = Pictures(24, 1, damaged=[5])
    broken = SkipBrokenImages(Unreadable(24, 1, unreadable=[4, 7]), 1)
    errors = []
    for options in (
        dict(bank=damaged),
        dict(queries=damaged),
        dict(bank=broken),
    ):
        with pytest.raises(ValueError) as caught:
            build_runner(folder, **options).val()
        errors.append(str(caught.value))
    return errors


def test_all_processes_stop_for_a_fault_of_one(tmp_path):
    """Else the others would wait for it."""
    first, second = run_ddp(_faults_of_one_rank, 2, tmp_path, str(tmp_path))
    assert first == second
    nan = 'the features of 1 images are infinite or NaN'
    assert nan in first[0] and nan in first[1]
    assert '2 files are broken, but max_broken=1' in first[2]


def test_bank_without_some_labels(tmp_path):
    unlabeled = range(0, 25, 3)
    bank = Pictures(25, seed=1, unlabeled=unlabeled)
    runner = build_runner(tmp_path, bank=bank)
    messages = []
    runner.logger.info = messages.append
    assert_same(runner.val(), expected_metrics(unlabeled=unlabeled))
    assert (
        'kNN bank: 16 labeled samples, 9 without a label ignored' in messages
    )


def test_classes_without_metainfo(tmp_path):
    bank = Pictures(25, seed=1)
    del bank.metainfo
    assert_same(build_runner(tmp_path, bank=bank).val(), expected_metrics())


def test_training_modes_are_restored(tmp_path):
    runner = build_runner(tmp_path)
    model = runner.model.train()
    model.backbone.layer1.eval()
    before = {n: m.training for n, m in model.named_modules()}
    state = {n: v.clone() for n, v in model.state_dict().items()}
    runner.val()
    assert {n: m.training for n, m in model.named_modules()} == before
    assert any(before.values()) and not all(before.values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_hooks_are_called_as_by_mmengine(tmp_path, stage):
    runner = build_runner(tmp_path, stage=stage)
    calls, call_hook = [], runner.call_hook

    def record(name, **arguments):
        calls.append((name, *arguments))
        call_hook(name, **arguments)

    runner.call_hook = record
    getattr(runner, stage)()
    batch = [
        (f'before_{stage}_iter', 'batch_idx', 'data_batch'),
        (f'after_{stage}_iter', 'batch_idx', 'data_batch', 'outputs'),
    ]
    calls = [call for call in calls if not call[0].endswith('_run')]
    assert calls == [
        (f'before_{stage}',),
        (f'before_{stage}_epoch',),
        *batch * 3,
        (f'after_{stage}_epoch', 'metrics'),
        (f'after_{stage}',),
    ]


def test_fp16(tmp_path):
    metrics = build_runner(tmp_path, fp16=True).val()
    for name, value in expected_metrics().items():
        assert metrics[name] == pytest.approx(value, abs=20)


@pytest.mark.parametrize(
    ('stage', 'options', 'message'),
    [
        ('val', dict(k=26), r'val_cfg.k=\(26,\) asks for 26 .* only 25'),
        ('test', dict(k=0), 'test_cfg.k must contain'),
        ('val', dict(temperature=0), 'positive temperature'),
        ('val', dict(bank_dtype='int8'), 'bank_dtype'),
        (
            'val',
            dict(hook=dict(type='EMAHook', evaluate_on_origin=True)),
            'set evaluate_on_origin=False',
        ),
        (
            'val',
            dict(bank=Pictures(9, 1, unlabeled=range(9)), k=3),
            'no sample of the kNN bank has a label.*val_cfg.bank_dataloader',
        ),
        (
            'val',
            dict(bank=Pictures(9, 1, unlabeled=range(5)), k=5),
            'val_cfg.k=.* asks for 5 .* only 4 labeled',
        ),
        (
            'test',
            dict(queries=Pictures(5, 1, unlabeled=[2])),
            'test_dataloader gives some without',
        ),
        ('val', dict(bank=Pictures(9, 1, views=2)), 'MultiView'),
        (
            'val',
            dict(bank=FewNames(Pictures(25, 1), range(25))),
            'has label 3 but only 3 classes; check val_cfg.bank_dataloader',
        ),
        (
            'val',
            dict(bank=Pictures(9, 1, damaged=[1, 4]), k=3),
            '^val_cfg.bank_dataloader: the features of 2 images are infinite',
        ),
        (
            'test',
            dict(queries=Pictures(5, 1, damaged=[2])),
            '^test_dataloader: the features of 1 images are infinite or NaN',
        ),
    ],
)
def test_bad_settings_are_named(tmp_path, stage, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(build_runner(tmp_path, stage=stage, **options), stage)()
