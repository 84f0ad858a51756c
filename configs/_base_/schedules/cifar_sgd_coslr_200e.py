# SGD with a cosine learning rate over 200 epochs, for a total batch of 512.
_base_ = 'imagenet_sgd_coslr_200e.py'

optim_wrapper = dict(optimizer=dict(lr=0.06, weight_decay=5e-4))
train_cfg = dict(val_interval=5)
auto_scale_lr = dict(base_batch_size=512)
