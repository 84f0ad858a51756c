# Fine-tuning on few labels as published for SwAV (facebookresearch/swav,
# eval_semisup.py and README.md), with 1 % of the labels: 20 epochs, x0.2 at
# 12 and 16, no weight decay, SyncBN, for a total batch of 256.

optim_wrapper = dict(
    type='OptimWrapper',
    # With 1 % of the labels 0.02, and 5 for the head; with 10 % 0.01 and 0.2.
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=250.0))),
)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[12, 16], gamma=0.2)
]
train_cfg = dict(type='ExactEpochLoop', max_epochs=20)
sync_bn = 'torch'
auto_scale_lr = dict(base_batch_size=256)
