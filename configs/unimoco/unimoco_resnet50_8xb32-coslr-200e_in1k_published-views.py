# As published in every detail: views made image by image on the CPU, float32,
# nothing compiled. For exact comparisons; several times slower.
_base_ = [
    '../_base_/models/unimoco_resnet50.py',
    '../_base_/datasets/imagenet_bs32_published-views.py',
    '../_base_/schedules/imagenet_sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(dtype='float32')
