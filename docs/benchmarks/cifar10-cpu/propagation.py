# Label propagation at 10 % of the labels:
#     cd docs/benchmarks/cifar10-cpu
#     python ../../../tools/study.py propagation.py --parallel 2
title = 'Label propagation on 10 000 images of CIFAR-10'
base = 'unimoco_resnet18_cifar10-10k.py'

__few = {'train_dataloader.dataset.label_ratio': [0.1]}
# From epoch 11 on. Of 20 neighbours hardly ever 18 agree.
__propagate = dict(k=5, threshold=0.8, start=10 * 156)

variants = {
    'UniCon': dict(grid=__few),
    'UniCon, propagated: ignored': {
        'grid': __few,
        'model.head.propagate_labels': dict(__propagate, use='ignore'),
    },
    'UniCon, propagated: positive': {
        'grid': __few,
        'model.head.propagate_labels': dict(__propagate, use='positive'),
    },
}
seeds = [0, 1, 2]
evaluations = {
    'kNN': dict(type='knn', config=base, k=20, temperature=0.07),
    'linear': dict(type='cached_linear', config=base),
}
