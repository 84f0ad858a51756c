# The linear probe of MoCo v3's ViT-S (facebookresearch/moco-v3, CONFIG.md and
# main_lincls.py): 3 for each 256 images, 90 epochs, cosine, no weight decay,
# for a total batch of 1024.

# ------------------------- usually changed -------------------------
max_epochs = 90
lr = 12.0  # for base_batch_size images a step; --auto-scale-lr rescales it
base_batch_size = 1024  # GPUs x images per GPU
# -------------------------------------------------------------------

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=lr, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        by_epoch=True,
        begin=0,
        end=max_epochs,
    )
]
train_cfg = dict(type='ExactEpochLoop', max_epochs=max_epochs)

auto_scale_lr = dict(base_batch_size=base_batch_size)

# Names of this file alone; the resolved config keeps only what counts.
del max_epochs, lr, base_batch_size
