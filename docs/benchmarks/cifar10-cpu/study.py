# Shares of labels and losses on 10 000 images of CIFAR-10, on a CPU:
#     cd docs/benchmarks/cifar10-cpu
#     python ../../../tools/study.py study.py --parallel 2
import sys

title = 'Labels and losses on 10 000 images of CIFAR-10'
base = 'unimoco_resnet18_cifar10-10k.py'

__ratio = 'train_dataloader.dataset.label_ratio'
__few_and_all = {__ratio: [0.1, 1.0]}
__few = {__ratio: [0.1]}

variants = {
    'UniCon': dict(grid={__ratio: [0.0, 0.1, 0.3, 0.6, 1.0]}),
    'UniCon, balanced own key': {
        'grid': __few_and_all,
        'model.head.loss.own_key_weight': 'balanced',
    },
    'SupCon out': {
        'grid': __few_and_all,
        'model.head.loss': dict(type='SupConLoss', reduction_position='out'),
    },
    'SupCon in': {
        'grid': __few_and_all,
        'model.head.loss': dict(type='SupConLoss', reduction_position='in'),
    },
    'UniCon, unlabeled keys ignored': {
        'grid': __few,
        'model.head.ignore_unlabeled_keys': True,
    },
    'cross-entropy, 10 % of the labels': dict(
        base='resnet18_supervised_cifar10-10k-10pct.py',
        series='cross-entropy',
    ),
    'cross-entropy, all labels': dict(
        base='resnet18_supervised_cifar10-10k.py', series='cross-entropy'
    ),
    'random weights': dict(checkpoint='none'),
}
seeds = [0, 1, 2]

# Drawn scenes of other objects, as in the demo; few, so the start matters.
__demo = '../../../configs/demo'
__scenes = '{work_dir}/scenes/seed-{seed}'
prepare = [
    dict(
        command=[
            *(sys.executable, '-m', 'demo.make_scenes', __scenes),
            *('--train', '100', '--val', '200', '--seed', '{seed}'),
        ],
        creates=__scenes,
    )
]
__root = {
    f'{name}_dataloader.dataset.data_root': __scenes
    for name in ('train', 'val', 'test')
}
__annotations = {
    f'{name}_evaluator.ann_file': f'{__scenes}/annotations/instances_val.json'
    for name in ('val', 'test')
}
evaluations = {
    'kNN': dict(type='knn', config=base, k=20, temperature=0.07),
    # It draws no random weights.
    'linear': dict(
        type='cached_linear', config=base, variants=[*variants][:-1]
    ),
    'detection': dict(
        type='transfer',
        config=f'{__demo}/mask-rcnn_r18-fpn_scenes.py',
        metric=['coco/bbox_mAP', 'coco/segm_mAP'],
        scale=100,
        overrides={**__root, **__annotations},
    ),
    'segmentation': dict(
        type='transfer',
        config=f'{__demo}/fcn_r18_scenes.py',
        metric='mIoU',
        overrides=__root,
    ),
}
