# SGD with a cosine learning rate over 200 epochs, for a total batch of 256.
# Without T_max and end the cosine ends with train_cfg.max_epochs.

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',  # 'float32' switches mixed precision off
    loss_scale=dict(enabled=False),  # bfloat16 needs none
    constructor='FusedOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True)]
train_cfg = dict(type='ExactEpochLoop', max_epochs=200, val_interval=10)

# Total batch that lr is for; --auto-scale-lr rescales it.
auto_scale_lr = dict(base_batch_size=256)
