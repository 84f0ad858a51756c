"""A checkout in which tools/install.sh and test.sh install and run nothing.

The Python of an environment is a script that records its arguments, and PATH
holds only the commands that a test allows.
"""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ('tools/install.sh', 'tools/test.sh', 'tools/build_mmcv_wheel.sh')
FILES += ('tools/misc', 'requirements')
COMMANDS = (
    *('awk', 'bash', 'cat', 'cksum', 'df', 'dirname', 'env', 'getconf'),
    *('grep', 'ls', 'mkdir', 'mktemp', 'rm', 'sed', 'tail', 'tr'),
)
# Succeeds at everything except what matches the regular expression FAILS. A
# wheel of mmcv can be downloaded if WHEEL is set.
FAKE_PYTHON = """\
#!/usr/bin/env bash
# One write: both ends of a pipeline record their calls at the same time.
line=$*
printf '%s\\n' "${line//$'\\n'/ }" >>"$CALLS"
case "$*" in
    *progress.py*) cat ;;
    *sys.version_info*) echo "${FAKE_VERSION:-3.11}" ;;
    *sys.prefix*) echo "$VIRTUAL_ENV" ;;
    *other_packages*) echo "${OTHER_PACKAGES:-}" ;;
    *freeze*) echo torch==9 ;;
    *' download '*--dest*onedl-mmcv*)
        [ -n "${WHEEL:-}" ] || exit 1
        folder=${line#*--dest } folder=${folder%% *}
        mkdir "$folder" && : >"$folder/onedl_mmcv-1.whl"
        ;;
esac
[[ -z "${FAILS:-}" || ! "$*" =~ $FAILS ]]
"""


def write_script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Checkout:
    """Copies of the files that the scripts read, and a PATH of its own."""

    def __init__(self, folder):
        self.root = folder / 'checkout'
        for name in FILES:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, target)
        (self.root / 'mmunimoco/.mim/configs').mkdir(parents=True)
        for name in ('setup.py', 'mmunimoco/version.py'):
            shutil.copy2(ROOT / name, self.root / name)
        self.bin = folder / 'bin'
        self.bin.mkdir()
        for name in COMMANDS:
            (self.bin / name).symlink_to(shutil.which(name))
        self.calls = folder / 'calls'
        self.stamp = self.root / '.venv/mmunimoco-install.txt'

    def add_command(self, name, text):
        (self.bin / name).unlink(missing_ok=True)
        write_script(self.bin / name, text)

    def add_environment(self, name='.venv'):
        write_script(self.root / name / 'bin/python', FAKE_PYTHON)

    def write_stamp(self, dev, transfer):
        code = (
            f'ROOT={self.root} REQUIREMENTS={self.root}/requirements\n'
            f'. {self.root}/tools/misc/install_checks.sh\nstamp_key'
        )
        key = subprocess.check_output(['bash', '-c', code], text=True)
        self.stamp.write_text(f'{key.strip()} {dev} {transfer}\n')

    def run(self, *arguments, script='install.sh', **variables):
        self.calls.write_text('')
        return subprocess.run(
            ['bash', self.root / 'tools' / script, *arguments],
            env={'PATH': str(self.bin), 'CALLS': str(self.calls)} | variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def installs(self):
        """Arguments of each call of ``pip install``."""
        lines = self.calls.read_text().splitlines()
        return [line for line in lines if ' install ' in line]


def error_line(done):
    """The only line on standard error."""
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('tools/install.sh: ')
    return line
