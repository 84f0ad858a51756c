# ImageNet for fine-tuning on the images of a label list only. SimCLR's lists
# of 1 % and 10 % are those of published results (Apache-2.0), to be put into
# the folder of ImageNet:
# https://github.com/google-research/simclr/tree/master/imagenet_subsets
_base_ = 'imagenet_bs32_linear.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LabeledSubset',
        dataset=dict(
            type='PartialLabels',
            # Instead of a list: label_list=None, label_ratio=0.01, seed=0
            # selects the images that pre-training selects.
            label_list='{{$IMAGENET_ROOT:data/imagenet}}/1percent.txt',
            dataset=_base_.train_dataloader.dataset,
        ),
    ),
)
