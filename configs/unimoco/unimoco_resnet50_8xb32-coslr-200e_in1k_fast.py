# All labels, 200 epochs; crops on the CPU, the rest of the views on the GPU.
_base_ = [
    '../_base_/models/unimoco_resnet50.py',
    '../_base_/datasets/imagenet_bs32_unimoco_fast.py',
    '../_base_/schedules/imagenet_sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]
