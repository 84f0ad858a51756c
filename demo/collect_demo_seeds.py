r"""Put summaries of the demo with different seeds into one JSON.

for seed in 0 1 2; do
    python tools/demo.py --seed $seed --work-dir work_dirs/demo_seed$seed
done
python tools/misc/collect_demo_seeds.py work_dirs/demo_seed?/summary.json \
    --out docs/benchmarks/demo_seeds.json
"""

import argparse
import json
from pathlib import Path

from mmunimoco.utils.atomic import write_json

from .seeds import collect_seeds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('summaries', type=Path, nargs='+')
    parser.add_argument('--out', type=Path, required=True)
    args = parser.parse_args()
    summaries = [json.loads(path.read_text()) for path in args.summaries]
    write_json(args.out, collect_seeds(summaries))


if __name__ == '__main__':
    main()
