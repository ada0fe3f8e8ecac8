"""Evaluate a checkpoint: ``python evaluate.py --dataset 3dpw --cfg ...``; see lib/commands/evaluate.py."""

from lib.commands import run

if __name__ == "__main__":
    run("evaluate")
