# Fine-tuning on 10 % of the labels of ImageNet.
_base_ = 'resnet50_8xb32-semi-steplr-20e_in1k-1pct.py'

# ------------------------- usually changed -------------------------
# Folder with train/, val/ and the lists; also: export IMAGENET_ROOT=...
data_root = '{{$IMAGENET_ROOT:data/imagenet/}}'
label_list = data_root.rstrip('/') + '/10percent.txt'
# -------------------------------------------------------------------

train_dataloader = dict(dataset=dict(dataset=dict(label_list=label_list)))

# SwAV: 0.01 for the backbone, 0.2 for the head.
optim_wrapper = dict(
    optimizer=dict(lr=0.01),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=20.0))),
)

# Names of this file alone; the resolved config keeps only what counts.
del data_root, label_list
