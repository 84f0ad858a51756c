# ImageNet for fine-tuning on the labeled images of a list alone. SimCLR's
# lists of 1 % and 10 % are what published results use (Apache-2.0):
# https://github.com/google-research/simclr/tree/master/imagenet_subsets
_base_ = 'imagenet_bs32_linear.py'

# ------------------------- usually changed -------------------------
# Folder with train/, val/ and the lists; also: export IMAGENET_ROOT=...
data_root = '{{$IMAGENET_ROOT:data/imagenet/}}'
label_list = data_root.rstrip('/') + '/1percent.txt'
# -------------------------------------------------------------------

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LabeledSubset',
        dataset=dict(
            type='PartialLabels',
            # In place of a list: label_list=None, label_ratio=0.01, seed=0,
            # which keeps the images that pre-training would keep.
            label_list=label_list,
            dataset=dict(
                type='ImageNet',
                data_root=data_root,
                split='train',
                pipeline=[
                    dict(type='CheckedLoadImageFromFile'),
                    dict(
                        type='RandomResizedCrop', scale=224, backend='pillow'
                    ),
                    dict(type='RandomFlip', prob=0.5),
                    dict(type='PackInputs'),
                ],
            ),
        ),
    ),
)

# Names of this file alone; the resolved config keeps only what counts.
del data_root, label_list
