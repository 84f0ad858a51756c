"""Build mmcv with its CUDA ops beside the environment, and try one.

``python -m benchmarks.gpu_check.mmcv_ops --target FOLDER --out FILE.json``
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

# Run where the built mmcv is found first.
PROBE = """
import mmcv, torch
from mmcv.ops import batched_nms, get_compiling_cuda_version
boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]]).cuda()
scores = torch.tensor([0.9, 0.8, 0.7]).cuda()
options = dict(type='nms', iou_threshold=0.5)
kept = batched_nms(boxes, scores, scores.long(), options)[1]
assert kept.tolist() == [0, 2], kept
print(mmcv.__version__, get_compiling_cuda_version())
"""


def build_environment(capability: tuple[int, int]) -> dict[str, str]:
    """Environment in which mmcv compiles for one GPU, with all cores.

    Args:
        capability (tuple[int, int]): Compute capability of the GPU.
    """
    return dict(
        MMCV_WITH_OPS='1',
        FORCE_CUDA='1',
        TORCH_CUDA_ARCH_LIST='{}.{}'.format(*capability),
        MAX_JOBS=str(len(os.sched_getaffinity(0))),
    )


def build_command(source: str | None, target: Path) -> list[str]:
    """Return the command that builds mmcv into a folder.

    Args:
        source (str | None): Folder or archive of mmcv's source; None for the
            installed release, downloaded.
        target (Path): The folder.
    """
    named = [source] if source else [f'onedl-mmcv=={version("onedl-mmcv")}']
    return [
        *(sys.executable, '-m', 'pip', 'install', '--verbose'),
        *('--no-build-isolation', '--no-deps', '--no-cache-dir'),
        *('--no-binary', ':all:', '--target', str(target), *named),
    ]


def probe(target: Path) -> str | None:
    """Run an op on the GPU; what failed goes to standard error.

    Args:
        target (Path): Where mmcv was built; need not exist.

    Returns:
        str | None: Releases of mmcv and of its CUDA, None if it fails.
    """
    path = os.pathsep.join([str(target), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, '-c', PROBE],
        env=os.environ | dict(PYTHONPATH=path),
        stdout=subprocess.PIPE,
        text=True,
    )
    return None if done.returncode else done.stdout.splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--target', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--source')
    args = parser.parse_args()
    start = time.monotonic()
    working, environment = probe(args.target), {}
    if working is None:
        environment = build_environment(torch.cuda.get_device_capability())
        print('building mmcv', environment, flush=True)
        subprocess.run(
            build_command(args.source, args.target),
            env=os.environ | environment,
            check=True,
        )
        working = probe(args.target)
    results = dict(
        mmcv_and_cuda=working,
        built_with=environment or None,
        seconds=round(time.monotonic() - start, 1),
    )
    args.out.write_text(json.dumps(results))
    return int(working is None)


if __name__ == '__main__':
    sys.exit(main())
