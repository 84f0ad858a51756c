# LVIS v1, rare classes repeated, the shorter side between 640 and 800.
# `export LVIS_ROOT=...` names the folder with COCO's train2017/ and val2017/
# and LVIS's annotations/.
_base_ = 'mmdet::_base_/datasets/lvis_v1_instance.py'

train_dataloader = dict(
    dataset=dict(dataset=dict(data_root='{{$LVIS_ROOT:data/lvis_v1/}}'))
)
val_dataloader = dict(dataset=dict(data_root='{{$LVIS_ROOT:data/lvis_v1/}}'))
test_dataloader = val_dataloader

val_evaluator = dict(
    ann_file='{{$LVIS_ROOT:data/lvis_v1}}/annotations/lvis_v1_val.json'
)
test_evaluator = val_evaluator
