# Runtime of all runs of mmpretrain: the plugin, hooks, environment.
#
# --work-dir, --resume, --amp and --cfg-options of mmpretrain's tools/train.py
# change these for one run.

custom_imports = dict(
    # The second makes mmengine read checkpoints without executing anything
    # in them.
    imports=['mmunimoco', 'mmunimoco.safe_checkpoints'],
    allow_failed_imports=False,
)
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Keeps the last three epochs, and the best by kNN. To count in iterations:
    # by_epoch=False, interval=1000.
    checkpoint=dict(
        type='ExactCheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='knn/top1',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)

# These values are logged as means over the last 10 iterations that had them;
# by default mmengine logs the last one. All others (kNN scores, lr,
# labeled_queue_share) are states, logged as they are.
log_processor = dict(
    mean_pattern=r'.*(loss|time|grad_norm|top1_(un)?labeled|'
    r'positives_per_labeled_query|(posi|nega)tive_similarity\b).*',
)

custom_hooks = [
    # Stops a run before it starts if checkpoint, labels or classes do not fit.
    dict(type='PreflightHook'),
    # Fits queues of another length, or those of MoCo, to this model.
    dict(type='QueueResumeHook'),
    # Skips steps that are not finite; 21 in a row stop the run.
    dict(type='NonFiniteLossHook', max_skipped=20),
    # Measures kNN before training, says after each validation whether the run
    # learns, and logs feature_std.
    dict(type='CollapseHook'),
    # On SIGTERM: saves a checkpoint and exits with status 75.
    dict(type='PreemptionHook'),
    # Lists after each epoch the images that SkipBrokenImages replaced.
    dict(type='BrokenImagesHook'),
    # A bar in a terminal, and a line of log at least every 30 seconds.
    dict(type='ProgressHook'),
]

env_cfg = dict(
    cudnn_benchmark=True,  # every batch has the same image size
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='PatientVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=None, deterministic=False)
