# Linear probe of MoCo, published for UniMoCo too: SGD, no weight decay, 100
# epochs, learning rate x0.1 at 60 and 80, for a total batch of 256.

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=30.0, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[60, 80], gamma=0.1)
]
train_cfg = dict(type='ExactEpochLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)
