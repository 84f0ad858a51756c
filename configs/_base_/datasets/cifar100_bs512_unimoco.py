# CIFAR-100: as CIFAR-10, with its own images, classes and colour statistics.
# Downloaded to data/cifar100/ if absent; or `export CIFAR100_ROOT=...`.
_base_ = 'cifar10_bs512_unimoco.py'

data_preprocessor = dict(
    mean=[129.304, 124.070, 112.434],
    std=[68.170, 65.392, 70.418],
)

__images = dict(type='CIFAR100', data_root='{{$CIFAR100_ROOT:data/cifar100/}}')
train_dataloader = dict(dataset=dict(dataset=__images))
val_dataloader = dict(dataset=__images)
test_dataloader = val_dataloader
val_cfg = dict(bank_dataloader=dict(dataset=__images))
test_cfg = val_cfg
