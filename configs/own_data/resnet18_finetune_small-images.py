# Fine-tuning of unimoco_resnet18_small-images.py: all layers are trained.
# --cfg-options model.backbone.init_cfg.checkpoint=PATH \
#     model.head.num_classes=N
_base_ = 'resnet18_linear_small-images.py'

model = dict(backbone=dict(frozen_stages=-1, norm_eval=False))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=0.05),
)
