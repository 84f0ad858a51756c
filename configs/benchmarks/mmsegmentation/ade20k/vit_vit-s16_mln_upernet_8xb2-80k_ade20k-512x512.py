# UPerNet on the ViT-S/16 of this project's pre-training, ADE20K, 80 000 steps:
# mmsegmentation's config for ViT-B, as it makes it smaller for DeiT-S.
_base_ = [
    '../_base_/ade20k.py',
    'mmseg::vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py',
]

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        # The ViT-S of MoCo v3 has 12 heads; DeiT-S has 6, and its weights
        # have the same shapes.
        arch=dict(
            embed_dims=384,
            num_layers=12,
            num_heads=12,
            feedforward_channels=1536,
        ),
        img_size=512,  # position embeddings are resized to it
        patch_size=16,
        out_indices=(2, 5, 8, 11),
        out_type='featmap',
        drop_path_rate=0.1,
        init_cfg={{_base_.pretrained_backbone}},
    ),
    neck=dict(in_channels=[384] * 4, out_channels=384),
    decode_head=dict(in_channels=[384] * 4),
    auxiliary_head=dict(in_channels=384),
)

# No weight decay on norms, by the names that they have in mmpretrain.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            '.ln1': dict(decay_mult=0.0),
            '.ln2': dict(decay_mult=0.0),
        }
    )
)

train_dataloader = {{_base_.images}}
val_dataloader = {{_base_.images}}
test_dataloader = {{_base_.images}}
