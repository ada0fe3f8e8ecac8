"""Measure the project against the plain way of doing the same: ``python -m benchmarks.run``.

Writes a Markdown table, the same as JSON, and a plot of how cost grows. Ratios mean more than rates: compare
rates only between runs on one machine with nothing else running.
"""

from __future__ import annotations

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import torch

from benchmarks import features_demo, measures, memory, open_pipeline, prediction, training
from benchmarks.case import Case, Result, measure
from lib.models.precision import cpu_has_bf16
from lib.utils.errors import UserError, run_command

GROUPS = ("prediction", "training", "measures", "features_demo", "open_pipeline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="small inputs and one round: minutes, rough")
    parser.add_argument("--rounds", type=int, help="rounds per case (default 5, with --quick 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains this")
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=GROUPS)
    parser.add_argument("--output", type=Path, default=Path("output/benchmarks"))
    parser.add_argument("--no-scaling", action="store_true", help="leave out the plot")
    parser.add_argument("--memory", type=int, nargs="*", metavar="FRAMES", default=[],
                        help="measure the peak memory of evaluating videos of so many frames")  # fmt: skip
    args = parser.parse_args()
    device, rounds = torch.device(args.device), args.rounds or (1 if args.quick else 5)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: there is none; use cpu")
    results = []
    for group in args.groups:
        for case in find_cases(group, device, args.quick):
            if args.only in case.name:
                results.append(measure(case, rounds))
                print(row(results[-1]), flush=True)
    peaks = []
    for frames in args.memory:
        peaks.append((frames, *memory.peak("fast", frames)))
        print("evaluate.py, {} frames: peak {:.2f} GB, {:.0f} s".format(*peaks[-1]), flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    facts = machine(device)
    scaling = {} if args.no_scaling else prediction.scaling(device, args.quick)
    content = {
        "machine": facts,
        "rounds": rounds,
        "results": [{**asdict(r), "ratio": r.ratio} for r in results],
    }
    content |= {"peak_memory": peaks, "scaling": scaling}
    (args.output / "benchmarks.json").write_text(json.dumps(content, indent=1))
    (args.output / "benchmarks.md").write_text(table(results, facts, rounds, peaks))
    if scaling:
        plot(scaling, args.output / "scaling.png")
    print(f"written to {args.output}")


def find_cases(group: str, device: torch.device, quick: bool) -> list[Case]:
    modules: dict[str, Any] = {
        "prediction": prediction,
        "training": training,
        "measures": measures,
        "features_demo": features_demo,
        "open_pipeline": open_pipeline,
    }
    return modules[group].cases(device, quick)


def machine(device: torch.device) -> dict[str, str]:
    """What the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    facts = {
        "CPU": models[0] if models else platform.processor(),
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability() + (", bf16" if cpu_has_bf16() else ""),
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
    }
    if device.type == "cuda":
        facts["GPU"] = torch.cuda.get_device_name(device)
    return facts


def row(result: Result) -> str:
    return (
        f"| {result.name} | {result.unit}/s | {result.naive:.4g} | {result.fast:.4g} | {result.ratio:.2f} |"
    )


def table(
    results: list[Result], facts: dict[str, str], rounds: int, peaks: list[tuple[int, float, float]]
) -> str:
    """Markdown."""
    lines = [f"{name}: {value}  " for name, value in facts.items()]
    lines += [f"medians of {rounds} interleaved rounds", ""]
    lines += ["| case | unit | naive | ours | ratio |", "|---|---|---|---|---|", *map(row, results), ""]
    if peaks:
        lines += ["| evaluate.py, one video | peak memory | time |", "|---|---|---|"]
        lines += [f"| {frames} frames | {gb:.2f} GB | {seconds:.0f} s |" for frames, gb, seconds in peaks]
    return "\n".join(lines) + "\n"


def plot(scaling: prediction.Scaling, path: Path) -> None:
    """One panel per title, both axes logarithmic."""
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    figure, axes = pyplot.subplots(1, len(scaling), figsize=(4 * len(scaling), 3.4))
    for axis, (title, curves) in zip(axes, scaling.items()):
        for name, points in curves.items():
            axis.plot(*zip(*points), marker="o", label=name)
        what, how = title.split(": ")
        axis.set(xlabel=what, ylabel=how)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axis.grid(which="both", alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run_command(main)
