import json

from demo.curves import read_curves


def _write_log(work_dir, name, lines):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    text = ''.join(
        line if isinstance(line, str) else json.dumps(line) + '\n'
        for line in lines
    )
    (folder / 'scalars.json').write_text(text)


def _train(epoch, loss):
    return dict(lr=0.1, loss=loss, epoch=epoch, iter=1, step=1)


def _val(epoch, top1):
    return {'knn/top1': top1, 'time': 0.1, 'step': epoch}


def test_loss_is_the_mean_of_an_epoch(tmp_path):
    _write_log(
        tmp_path,
        '20260101_000000',
        [_train(1, 4.0), _train(1, 2.0), _val(1, 50.004), _train(2, 1.0)],
    )
    assert read_curves(tmp_path) == dict(
        loss=[[1, 3.0], [2, 1.0]], knn_top1=[[1, 50.0]]
    )


def test_last_run_of_an_interrupted_epoch_counts(tmp_path):
    _write_log(
        tmp_path,
        '20260101_000002',
        [_train(2, 2.0), _val(2, 60.0), _train(3, 1.0), _val(3, 70.0)],
    )
    _write_log(
        tmp_path,
        '20260101_000001',
        [_train(1, 9.0), _val(1, 50.0), _train(2, 8.0), '{"lr": 0.1, "lo'],
    )
    assert read_curves(tmp_path) == dict(
        loss=[[1, 9.0], [2, 2.0], [3, 1.0]],
        knn_top1=[[1, 50.0], [2, 60.0], [3, 70.0]],
    )


def test_evaluation_runs_beside_the_training_do_not_count(tmp_path):
    _write_log(tmp_path / 'knn', '20260101_000001', [_val(0, 1.0)])
    assert read_curves(tmp_path) == dict(loss=[], knn_top1=[])
