"""The stages that draw and report what the others found."""

import numpy as np
from joblib import Parallel, cpu_count, delayed
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES
from threadpoolctl import threadpool_limits

from mmunimoco.utils.atomic import write_atomic
from mmunimoco.utils.versions import collect_versions, describe_machine

from .configs import pretrain_config
from .curves import read_curves
from .embedding import embed, extract_features, save_arrays
from .plots import plot_curves, plot_embedding
from .progress import Reporter
from .report import html_report, markdown_report
from .settings import PRETRAIN_CONFIGS, DemoSettings
from .stages import Stage, backbone_file, label_name
from .store import StageStore, fingerprint, write_json
from .summary import build_summary
from .transfer_plots import plot_predictions, plot_transfer

SUMMARY, CURVES, EMBEDDING = 'summary.json', 'curves.png', 'embedding.png'
OUTPUT_FILES = (SUMMARY, 'report.md', 'report.html', CURVES, EMBEDDING)
TRANSFER, PREDICTIONS = 'transfer.png', 'predictions.png'
TRANSFER_FILES = (TRANSFER, PREDICTIONS)
# Guessed seconds: of one t-SNE, and of the report.
TSNE_SECONDS, REPORT_SECONDS = 10.0, 5.0
BACKBONES = (None, *PRETRAIN_CONFIGS)
# Raise it when the embedding is computed in another way. 2: of normalised
# images.
EMBEDDING_VERSION = 2


def output_stages(
    settings: DemoSettings, training: list[Stage], transfer: list[Stage]
) -> list[Stage]:
    """Embedding of the test images, and the report.

    Args:
        settings (DemoSettings): The run.
        training (list[Stage]): From :func:`training_stages`.
        transfer (list[Stage]): From :func:`transfer_stages`.

    Returns:
        list[Stage]: In the order in which they run.
    """
    digests = [stage.store.fingerprint for stage in training]
    embedding = _embedding_stage(settings, digests)
    upstream = [*training, *transfer]
    return [embedding, _report_stage(settings, upstream, embedding)]


def _embedding_stage(settings: DemoSettings, digests: list[str]) -> Stage:
    version = str(EMBEDDING_VERSION)
    store = _store(settings, 'embedding', [*digests, version])
    target = store.folder / 'embedding.npz'

    def run(reporter: Reporter) -> dict:
        cfg = pretrain_config(settings, 1.0)
        names = [label_name(ratio) for ratio in BACKBONES]
        features = []
        for done, ratio in enumerate(BACKBONES):
            reporter.update(
                0.3 * done / len(names), 'features of ' + names[done]
            )
            found, labels = extract_features(
                cfg, backbone_file(settings, ratio)
            )
            features.append(found)
        reporter.update(0.3, 't-SNE', milestone=True)
        places = _embed_all(features, settings.seed)
        save_arrays(
            target, dict(zip(names, places, strict=True), labels=labels)
        )
        return {}

    weight = TSNE_SECONDS * len(BACKBONES)
    title = 'Embed the test images'
    return Stage('embedding', title, weight, store, run, (target,))


def _embed_all(features: list[np.ndarray], seed: int) -> list[np.ndarray]:
    # t-SNE holds no lock while it computes. It limits the threads of BLAS
    # itself, but the one that is done first lifts that limit for the others,
    # and OpenBLAS fills the terminal with warnings; one around all stays.
    with threadpool_limits(1, user_api='blas'):
        return Parallel(n_jobs=cpu_count(), prefer='threads')(
            delayed(embed)(found, seed) for found in features
        )


def _report_stage(
    settings: DemoSettings,
    upstream: list[Stage],
    embedding: Stage,
) -> Stage:
    done = [*upstream, embedding]
    digests = [stage.store.fingerprint for stage in done]
    store = _store(settings, 'report', digests)
    names = OUTPUT_FILES + (TRANSFER_FILES if settings.transfer else ())

    def run(reporter: Reporter) -> dict:
        results = {stage.name: stage.store.result for stage in done}
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
            EMBEDDING: _embedding_picture(embedding, summary),
        }
        if settings.transfer:
            pictures[TRANSFER] = plot_transfer(summary)
            pictures[PREDICTIONS] = plot_predictions(settings)
        _write_report(settings, summary, pictures)
        return {}

    files = tuple(settings.work_dir / name for name in names)
    return Stage(
        'report', 'Write the report', REPORT_SECONDS, store, run, files
    )


def _embedding_picture(embedding: Stage, summary: dict) -> bytes:
    scores = {None: summary['random_init']['knn_top1']}
    for entry in summary['pretrain']:
        scores[entry['label_ratio']] = entry['knn_top1']
    with np.load(embedding.outputs[0]) as arrays:
        places = {ratio: arrays[label_name(ratio)] for ratio in BACKBONES}
        labels = arrays['labels']
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
