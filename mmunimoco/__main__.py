"""The command ``mmunimoco`` (``tools/mmunimoco``, ``python -m mmunimoco``)."""

import argparse
import re
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    'pretrain': 'pre-train on a folder of images, with settings chosen for it',
    'eval': 'score a checkpoint by kNN and a linear probe',
    'embed': 'write the features of the images in a folder',
    'export': 'convert a backbone for other projects',
    'check': 'check in a minute whether a config can run here',
}
# Those that a module of their own describes.
_MODULES = {'export': 'convert', 'check': 'check'}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv (Sequence[str], optional): Its arguments. Defaults to those of
            the process.

    Returns:
        int: Exit status: 0, 1 for an error, 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv else ''
    if name not in COMMANDS:
        return _overview(name)
    prog = f'mmunimoco {name}'
    try:
        return _run(name, prog, argv[1:]) or 0
    except KeyboardInterrupt as error:
        print('; '.join(('interrupted', *error.args)), file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        # What is wrong and what to do. An error from a process of a data
        # loader has the traceback there as its message, and then its own.
        text = re.split(r'^[\w.]+Error: ', str(error), flags=re.MULTILINE)[-1]
        print(f'{prog}: error: {text.strip()}', file=sys.stderr)
        return 1


def _overview(name: str) -> int:
    """Print the commands."""
    lines = [f'  {name:9} {text}' for name, text in COMMANDS.items()]
    text = 'usage: mmunimoco COMMAND ...\n\n' + '\n'.join(lines)
    text += '\n\n`mmunimoco COMMAND --help` lists the arguments of a command.'
    if name in ('', '-h', '--help'):
        print(text)
        return 0
    if name == '--version':
        from mmunimoco import __version__

        print(__version__)
        return 0
    print(f'mmunimoco: error: there is no command {name!r}', file=sys.stderr)
    print(text, file=sys.stderr)
    return 2


def _run(name: str, prog: str, argv: Sequence[str]) -> int | None:
    description = COMMANDS[name]
    # Imported here, because each takes seconds.
    if name in _MODULES:
        module = import_module(f'mmunimoco.commands.{_MODULES[name]}')
        description = module.__doc__
        add_arguments, run = module.add_arguments, module.main
    else:
        from mmunimoco.commands import features, pretrain

        add_arguments, run = {
            'pretrain': (pretrain.add_arguments, pretrain.main),
            'eval': (features.add_eval_arguments, features.evaluate),
            'embed': (features.add_embed_arguments, features.embed),
        }[name]
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    try:
        args = parser.parse_args(argv)
    except ValueError:  # of mmengine's DictAction
        raise ValueError('--cfg-options takes key=value') from None
    return run(args)


if __name__ == '__main__':
    sys.exit(main())
