# Fine-tuning on 10 % of the labels of ImageNet.
_base_ = 'resnet50_8xb32-semi-steplr-20e_in1k-1pct.py'

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            label_list='{{$IMAGENET_ROOT:data/imagenet}}/10percent.txt'
        )
    )
)

# SwAV: 0.01 for the backbone, 0.2 for the head.
optim_wrapper = dict(
    optimizer=dict(lr=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=20.0))),
)
