# Faster R-CNN: the same without masks.
_base_ = 'mask-rcnn_r50-c4.py'

model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_head=None),
    train_cfg=dict(rcnn=dict(mask_size=None)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=None)),
)
