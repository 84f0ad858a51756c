# The demo: pre-training with three shares of labels, kNN, linear probe, and
# transfer to scenes. `python -m demo` runs it with one seed;
#     python tools/study.py demo/study.py
# with three.
import sys

title = 'UniMoCo on Fashion-MNIST'
description = (
    'A narrow ResNet-18 was pre-trained with UniMoCo on 6 000 images of '
    'Fashion-MNIST without labels, with 10 % and with 100 % of the labels, '
    'for about the same number of steps, and for comparison by cross-entropy '
    'on the labeled images alone. Each frozen backbone was evaluated on 2 000 '
    'test images by a vote of the nearest training images (kNN) and by a '
    'linear classifier on its features. Unless left out (--no-transfer), '
    'those of UniMoCo, and random weights, were also fine-tuned on 100 scenes '
    'of one to five objects, as a small Mask R-CNN '
    '(detection; AP is the mean over IoU 0.5 to 0.95) and as an '
    'FCN (segmentation), and evaluated on 200 other scenes of test images. '
    "The settings are this project's choice for two CPU cores; "
    'configs/demo/README.md has them, and three recorded seeds. One seed says '
    'little: differences as small as those between seeds mean nothing.'
)

__configs = '../configs/demo'
__knn = f'{__configs}/unimoco_resnet18_fmnist.py'
__pretrained = ['0 % labels', '10 % labels', '100 % labels']
__transferred = ['random weights', *__pretrained]

variants = {
    'random weights': dict(base=__knn, checkpoint='none'),
    '0 % labels': dict(
        base=f'{__configs}/unimoco_resnet18_fmnist-0pct.py', series='UniMoCo'
    ),
    '10 % labels': dict(
        base=f'{__configs}/unimoco_resnet18_fmnist-10pct.py', series='UniMoCo'
    ),
    '100 % labels': dict(base=__knn, series='UniMoCo'),
    'cross-entropy, 10 % labels': dict(
        base=f'{__configs}/resnet18_supervised_fmnist-10pct.py',
        series='cross-entropy',
    ),
    'cross-entropy, 100 % labels': dict(
        base=f'{__configs}/resnet18_supervised_fmnist.py',
        series='cross-entropy',
    ),
}
seeds = [0, 1, 2]

# Few training scenes, the case that pre-training is meant for.
__scenes = '{work_dir}/scenes/seed-{seed}'
prepare = [
    dict(
        command=[
            *(sys.executable, '-m', 'demo.make_scenes', __scenes),
            *('--train', '100', '--val', '200', '--seed', '{seed}'),
        ],
        creates=__scenes,
    )
]
__root = {
    f'{name}_dataloader.dataset.data_root': __scenes
    for name in ('train', 'val', 'test')
}
__annotations = {
    f'{name}_evaluator.ann_file': f'{__scenes}/annotations/instances_val.json'
    for name in ('val', 'test')
}

evaluations = dict(
    knn=dict(type='knn', config=__knn, k=50, temperature=0.07),
    linear=dict(
        type='linear', config=f'{__configs}/resnet18_linear_fmnist.py'
    ),
    detection=dict(
        type='transfer',
        config=f'{__configs}/mask-rcnn_r18-fpn_scenes.py',
        metric=['coco/bbox_mAP', 'coco/segm_mAP'],
        scale=100,
        overrides={**__root, **__annotations},
        variants=__transferred,
    ),
    segmentation=dict(
        type='transfer',
        config=f'{__configs}/fcn_r18_scenes.py',
        metric='mIoU',
        overrides=__root,
        variants=__transferred,
    ),
)

__random = dict(better=__pretrained, than='random weights')
expectations = [
    dict(evaluation='knn', better='0 % labels', than='random weights'),
    dict(evaluation='knn', better='100 % labels', than='0 % labels', by=5),
    dict(evaluation='knn', better='10 % labels', than='0 % labels'),
    dict(evaluation='knn', better='100 % labels', than='10 % labels'),
    dict(evaluation='detection', metric='coco/bbox_mAP', **__random),
    dict(evaluation='detection', metric='coco/segm_mAP', **__random),
    dict(evaluation='segmentation', **__random),
]
