# SupCon over a queue on CIFAR-10, one GPU.
_base_ = '../unimoco/unimoco_resnet18_1xb512-coslr-200e_cifar10.py'

model = dict(
    head=dict(
        loss=dict(_delete_=True, type='SupConLoss', reduction_position='out')
    )
)
