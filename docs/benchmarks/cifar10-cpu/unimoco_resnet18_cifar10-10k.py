# The base of the studies: 20 epochs, with the own key weighted as published.
_base_ = (
    '../../../configs/unimoco/unimoco_resnet18_1xb64-coslr-60e_cifar10-10k.py'
)

model = dict(head=dict(loss=dict(own_key_weight=1)))
train_cfg = dict(max_epochs=20)
