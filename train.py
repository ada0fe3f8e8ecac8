"""Train TCMR: ``python train.py --cfg configs/repr_table4_3dpw_model.yaml``; see lib/commands/train.py."""

from lib.commands import run

if __name__ == "__main__":
    run("train")
