# Reference: supervised contrast within the batch, without queue.
# `export PYTHONPATH=$PWD` lets it be imported.
_base_ = 'unimoco_resnet18_cifar10-10k.py'

custom_imports = dict(
    imports=[*_base_.custom_imports.imports, 'in_batch_supcon']
)
model = dict(
    type='InBatchSupCon',
    head=dict(loss=dict(type='SupConLoss', own_key_weight=1)),
)
# Not what a loss against the queue would be if all features were the same.
custom_hooks = [
    hook for hook in _base_.custom_hooks if hook.type != 'CollapseHook'
]
