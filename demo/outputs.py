"""The stages that draw and report what the others found."""

from pathlib import Path

import numpy as np
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES

from mmunimoco.utils.atomic import write_atomic, write_json
from mmunimoco.utils.progress import Reporter
from mmunimoco.utils.versions import collect_versions, describe_machine

from .configs import pretrain_config
from .curves import read_curves
from .embedding import embed, extract_features, save_arrays
from .plots import plot_curves, plot_embedding
from .report import html_report, markdown_report
from .settings import PRETRAIN_CONFIGS, DemoSettings
from .stages import Stage, backbone_file, backbone_title, label_name
from .store import StageStore, fingerprint
from .summary import build_summary
from .transfer_plots import plot_predictions, plot_transfer

SUMMARY, CURVES, EMBEDDING = 'summary.json', 'curves.png', 'embedding.png'
OUTPUT_FILES = (SUMMARY, 'report.md', 'report.html', CURVES, EMBEDDING)
TRANSFER, PREDICTIONS = 'transfer.png', 'predictions.png'
TRANSFER_FILES = (TRANSFER, PREDICTIONS)
# Guessed seconds: of one t-SNE, and of the report.
TSNE_SECONDS, REPORT_SECONDS = 20.0, 5.0
BACKBONES = (None, *PRETRAIN_CONFIGS)
# Raise it when the embedding is computed in another way.
EMBEDDING_VERSION = 1


def output_stages(
    settings: DemoSettings, training: list[Stage], transfer: list[Stage]
) -> list[Stage]:
    """Embeddings of the test images, and the report.

    Args:
        settings (DemoSettings): The run.
        training (list[Stage]): From :func:`training_stages`.
        transfer (list[Stage]): From :func:`transfer_stages`.

    Returns:
        list[Stage]: In the order in which they run.
    """
    stages = {stage.name: stage for stage in training}
    embeddings = [
        _embedding_stage(settings, ratio, stages[label_name(ratio)])
        for ratio in BACKBONES
    ]
    upstream = [*training, *transfer, *embeddings]
    return [*embeddings, _report_stage(settings, upstream)]


def _embedding_file(settings: DemoSettings, ratio: float | None) -> Path:
    name = f'{label_name(ratio)}-embedding'
    return settings.stages_dir / name / 'embedding.npz'


def _embedding_stage(
    settings: DemoSettings, ratio: float | None, pretrain: Stage
) -> Stage:
    target = _embedding_file(settings, ratio)
    name = target.parent.name
    version = str(EMBEDDING_VERSION)
    store = _store(settings, name, [pretrain.store.fingerprint, version])

    def run(reporter: Reporter) -> dict:
        features, labels = extract_features(
            pretrain_config(settings, 1.0), backbone_file(settings, ratio)
        )
        reporter.update(0.2, 't-SNE', milestone=True)
        places = embed(features, settings.seed)
        save_arrays(target, dict(places=places, labels=labels))
        return {}

    title = f'Embed the test images by {backbone_title(ratio)}'
    return Stage(
        name, title, TSNE_SECONDS, store, run, (target,), (pretrain.name,)
    )


def _report_stage(settings: DemoSettings, upstream: list[Stage]) -> Stage:
    digests = [stage.store.fingerprint for stage in upstream]
    store = _store(settings, 'report', digests)
    names = OUTPUT_FILES + (TRANSFER_FILES if settings.transfer else ())

    def run(reporter: Reporter) -> dict:
        results = {stage.name: stage.store.result for stage in upstream}
        curves = {
            ratio: read_curves(settings.stages_dir / label_name(ratio))
            for ratio in PRETRAIN_CONFIGS
        }
        summary = build_summary(
            settings,
            results,
            curves,
            collect_versions(settings.transfer),
            describe_machine(),
        )
        pictures = {
            CURVES: plot_curves(summary),
            EMBEDDING: _embedding_picture(settings, summary),
        }
        if settings.transfer:
            pictures[TRANSFER] = plot_transfer(summary)
            pictures[PREDICTIONS] = plot_predictions(settings)
        _write_report(settings, summary, pictures)
        return {}

    files = tuple(settings.work_dir / name for name in names)
    after = tuple(stage.name for stage in upstream)
    return Stage(
        'report', 'Write the report', REPORT_SECONDS, store, run, files, after
    )


def _embedding_picture(settings: DemoSettings, summary: dict) -> bytes:
    scores = {None: summary['random_init']['knn_top1']}
    for entry in summary['pretrain']:
        scores[entry['label_ratio']] = entry['knn_top1']
    places = {}
    for ratio in BACKBONES:
        with np.load(_embedding_file(settings, ratio)) as arrays:
            places[ratio], labels = arrays['places'], arrays['labels']
    return plot_embedding(places, labels, FASHIONMNIST_CATEGORITES, scores)


def _write_report(
    settings: DemoSettings, summary: dict, pictures: dict[str, bytes]
) -> None:
    for name, picture in pictures.items():
        write_atomic(settings.work_dir / name, picture)
    folder = settings.work_dir
    write_atomic(folder / 'report.md', markdown_report(summary))
    write_atomic(folder / 'report.html', html_report(summary, pictures))
    write_json(folder / SUMMARY, summary)


def _store(
    settings: DemoSettings, name: str, digests: list[str]
) -> StageStore:
    digest = fingerprint(name, settings.seed, digests)
    return StageStore(settings.stages_dir / name, digest)
