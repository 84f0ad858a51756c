# The demo's pre-training, kNN and linear probe as a study, without detection
# and segmentation:
#     python tools/study.py demo/study.py --dry-run
# Not python -m demo, which still has an engine of its own.
title = 'UniMoCo on Fashion-MNIST'

__configs = '../configs/demo'
__knn = f'{__configs}/unimoco_resnet18_fmnist.py'

variants = {
    'random weights': dict(base=__knn, checkpoint='none'),
    '0 % labels': dict(
        base=f'{__configs}/unimoco_resnet18_fmnist-0pct.py', series='UniMoCo'
    ),
    '10 % labels': dict(
        base=f'{__configs}/unimoco_resnet18_fmnist-10pct.py', series='UniMoCo'
    ),
    '100 % labels': dict(base=__knn, series='UniMoCo'),
    'cross-entropy, 10 % labels': dict(
        base=f'{__configs}/resnet18_supervised_fmnist-10pct.py',
        series='cross-entropy',
    ),
    'cross-entropy, 100 % labels': dict(
        base=f'{__configs}/resnet18_supervised_fmnist.py',
        series='cross-entropy',
    ),
}
seeds = [0, 1, 2]

evaluations = dict(
    knn=dict(type='knn', config=__knn, k=50, temperature=0.07),
    linear=dict(
        type='linear', config=f'{__configs}/resnet18_linear_fmnist.py'
    ),
)
