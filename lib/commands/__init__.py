"""The command line: ``tcmr VERB ...``, in a checkout also ``python -m lib VERB ...``.

Each verb is a module with a ``main(argv)``; ``train.py``, ``evaluate.py`` and ``demo.py`` call the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from ..utils.errors import leave_on_signals, run_command
from ..utils.paths import check_data

VERBS = {  # verb: its module, what it does
    "demo": (".demo", "reconstruct everybody in a video"),
    "batch": (".batch", "reconstruct everybody in all videos of a folder, on any number of machines"),
    "train": (".train", "train a temporal encoder"),
    "evaluate": (".evaluate", "measure a checkpoint on a dataset"),
    "live": (".live", "bodies from a camera, a stream or a file as it plays"),
    "export": ("..motion.export", "write a reconstructed scene for other programs"),
    "info": (".info", "what is installed, what is found where, which commands work"),
    "bench": (".bench", "how fast this machine is"),
    "assets": ("..open_data.assets", "fetch the landmark networks and the sample video"),
    "viewer": ("..motion.viewer", "make viewer.html of a reconstructed scene"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``tcmr``."""
    verb, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in VERBS:
        run(verb, rest, prog=f"tcmr {verb}")
        return
    if verb == "--version":
        from .. import __version__

        print(f"tcmr {__version__}")
        return
    text = "usage: tcmr VERB [options]; tcmr VERB --help tells the options\n\n" + "\n".join(
        f"  {name:<10}{what}" for name, (_, what) in VERBS.items()
    )
    if verb in ("-h", "--help"):
        print(text)
        return
    sys.stderr.write(f"error: {verb!r} is no verb of tcmr\n{text}\n")
    sys.exit(2)


def run(verb: str, argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run a verb as a whole command: signals and mistakes end it with one line."""
    leave_on_signals()  # before the libraries are imported, so that Ctrl-C during it is one line, too
    if prog is not None:
        sys.argv[0] = prog  # what argparse calls the command
    module = import_module(VERBS[verb][0], __package__)

    def command() -> None:
        check_data()
        module.main(argv)

    run_command(command)
