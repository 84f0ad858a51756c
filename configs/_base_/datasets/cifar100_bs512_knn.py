# CIFAR-100: as CIFAR-10, with its own images, classes and colour statistics.
_base_ = 'cifar10_bs512_knn.py'

# ------------------------- usually changed -------------------------
# Folder of cifar-100-python, downloaded if absent; also: CIFAR100_ROOT=...
data_root = '{{$CIFAR100_ROOT:data/cifar100/}}'
# -------------------------------------------------------------------

data_preprocessor = dict(
    num_classes=100,
    mean=[129.304, 124.070, 112.434],
    std=[68.170, 65.392, 70.418],
)

test_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
test_cfg = dict(
    bank_dataloader=dict(dataset=dict(type='CIFAR100', data_root=data_root))
)

# Names of this file alone; the resolved config keeps only what counts.
del data_root
