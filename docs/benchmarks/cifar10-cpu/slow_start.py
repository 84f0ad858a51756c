# Why labels delay the start, and what shortens it: UniMoCo on 10 000 images of
# CIFAR-10, one option at a time, seed 0.
#     cd docs/benchmarks/cifar10-cpu && export PYTHONPATH=$PWD
#     python ../../../tools/study.py slow_start.py --parallel 2
title = 'The slow start with labels'
base = 'unimoco_resnet18_cifar10-10k.py'

__epoch = 156  # steps

variants = {
    'no labels': {'train_dataloader.dataset.label_ratio': 0.0},
    'all labels': {},
    'cross-entropy': dict(base='resnet18_supervised_cifar10-10k.py'),
    'SupCon within the batch': dict(
        base='supcon-in-batch_resnet18_cifar10-10k.py'
    ),
    'SupCon within the batch, temperature 0.1': dict(
        {'model.head.temperature': 0.1},
        base='supcon-in-batch_resnet18_cifar10-10k.py',
    ),
    'label_warmup, 5 epochs': {'model.head.label_warmup': 5 * __epoch},
    'label_warmup, 10 epochs': {'model.head.label_warmup': 10 * __epoch},
    'nearly in-batch: m 0, K 256': {
        'model.momentum': 1.0,
        'model.head.queue_len': 256,
    },
    'own_key_weight 200': {'model.head.loss.own_key_weight': 200.0},
    'own_key_weight 1000': {'model.head.loss.own_key_weight': 1000.0},
    'own_key_weight 40': {'model.head.loss.own_key_weight': 40.0},
    'max_positives 8': {'model.head.max_positives': 8},
    'temperature 0.1': {'model.head.temperature': 0.1},
    # That of the CIFAR configs, and whether the own key matters there too.
    'temperature 0.1, balanced': {
        'model.head.temperature': 0.1,
        'model.head.loss.own_key_weight': 'balanced',
    },
    'temperature 0.5': {'model.head.temperature': 0.5},
    'SupCon out': {
        'model.head.loss': dict(type='SupConLoss', reduction_position='out')
    },
    'SupCon in': {
        'model.head.loss': dict(type='SupConLoss', reduction_position='in')
    },
    'lr 3e-3': {'optim_wrapper.optimizer.lr': 3e-3},
    'weight decay 5e-4': {'optim_wrapper.optimizer.weight_decay': 5e-4},
    'plain batch norm': {
        'model.backbone.norm_cfg': dict(type='BN', _delete_=True)
    },
    'neck of one layer': {
        'model.neck': dict(
            type='LinearNeck',
            gap_dim=2,
            in_channels=128,
            out_channels=64,
            norm_cfg=None,
            act_cfg=None,
            _delete_=True,
        )
    },
    'neck with batch norm': {
        'model.neck': dict(
            type='NonLinearNeck',
            in_channels=128,
            hid_channels=128,
            out_channels=64,
            with_bias=True,
            with_last_bn=False,
            _delete_=True,
        )
    },
    'm from 0 to 0.99 in 5 epochs': {
        'model.start_momentum': 1.0,
        'model.momentum_warmup': 5 * __epoch,
    },
    'lr 3e-4': {'optim_wrapper.optimizer.lr': 3e-4},
    'm 0.9': {'model.momentum': 0.1},
    'K 256': {'model.head.queue_len': 256},
}
seeds = [0]
evaluations = {
    'kNN': dict(
        type='knn',
        config='unimoco_resnet18_cifar10-10k.py',
        k=20,
        temperature=0.07,
    ),
}
