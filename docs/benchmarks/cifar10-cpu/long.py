# Three times as long as study.py, 60 epochs, on 10 000 images of CIFAR-10:
#     cd docs/benchmarks/cifar10-cpu && export PYTHONPATH=$PWD
#     python ../../../tools/study.py long.py --parallel 2
title = '60 epochs on 10 000 images of CIFAR-10'
base = 'unimoco_resnet18_cifar10-10k.py'

__ratio = 'train_dataloader.dataset.label_ratio'
__long = {'train_cfg.max_epochs': 60}

variants = {
    'UniCon, balanced own key': {
        **__long,
        'grid': {__ratio: [0.0, 0.1, 1.0]},
        'model.head.loss.own_key_weight': 'balanced',
    },
    'UniCon': dict(__long, grid={__ratio: [1.0]}),
    'cross-entropy, 10 % of the labels': dict(
        __long,
        base='resnet18_supervised_cifar10-10k-10pct.py',
        series='cross-entropy',
    ),
    'cross-entropy, all labels': dict(
        __long,
        base='resnet18_supervised_cifar10-10k.py',
        series='cross-entropy',
    ),
    'SupCon in': {
        **__long,
        'grid': {__ratio: [1.0]},
        'model.head.loss': dict(type='SupConLoss', reduction_position='in'),
    },
}
seeds = [0, 1, 2]
evaluations = {
    'kNN': dict(type='knn', config=base, k=20, temperature=0.07),
    'linear': dict(type='cached_linear', config=base),
}
