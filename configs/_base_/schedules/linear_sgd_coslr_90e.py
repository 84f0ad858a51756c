# Linear probe of MoCo v3's ViT-S (facebookresearch/moco-v3, CONFIG.md and
# main_lincls.py): lr 3 per 256 images, 90 epochs, cosine, no weight decay,
# for a total batch of 1024.

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=12.0, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True)]
train_cfg = dict(type='ExactEpochLoop', max_epochs=90)
auto_scale_lr = dict(base_batch_size=1024)
