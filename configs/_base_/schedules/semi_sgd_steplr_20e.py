# Fine-tuning on few labels as SwAV publishes it (facebookresearch/swav,
# eval_semisup.py and README.md): 20 epochs, x0.2 at 12 and 16, no weight
# decay, SyncBN, a larger learning rate for the head, for a total batch of 256.

# ------------------------- usually changed -------------------------
max_epochs = 20
lr = 0.02  # of the backbone; SwAV: 0.02 for 1 %, 0.01 for 10 % of the labels
head_lr_mult = 250.0  # head: 5 for 1 % (x250), 0.2 for 10 % (x20)
base_batch_size = 256  # GPUs x images per GPU
# -------------------------------------------------------------------

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=head_lr_mult))),
)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[12, 16], gamma=0.2)
]
train_cfg = dict(type='ExactEpochLoop', max_epochs=max_epochs)
sync_bn = 'torch'

auto_scale_lr = dict(base_batch_size=base_batch_size)

# Names of this file alone; the resolved config keeps only what counts.
del max_epochs, lr, head_lr_mult, base_batch_size
