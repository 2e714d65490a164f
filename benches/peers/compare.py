"""Measures Potluck's CPU engine against llama.cpp on the same files, alternating, and prints a table.

Random weights in the shapes of real 0.5B and 1B models are written once; then both engines run in turn, each in
a process of its own, so that a machine whose speed drifts slows both. Medians and the spread are reported, and
the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIGURES = ["prefill_tps", "decode_tps", "ttft_s", "rss_bytes"]


def target_dir() -> pathlib.Path:
    """Where cargo puts binaries."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def run_json(command: list[str]) -> dict:
    """Runs a command whose last line of output is a JSON object."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def model_file(out: pathlib.Path, size: str, dtype: str) -> pathlib.Path:
    """Writes a model of this size and type unless it is there."""
    path = out / f"{size}-{dtype}.gguf"
    if not path.exists():
        print(f"writing {path.name}", file=sys.stderr)
        tool = target_dir() / "release" / "examples" / "synthetic"
        architecture = "qwen2" if size == "0.5b" else "llama"
        subprocess.run([tool, architecture, size, dtype, path], check=True, stdout=sys.stderr)
    return path


def measure(path: pathlib.Path, args: argparse.Namespace) -> dict:
    """Runs both engines in turn and returns every round of both."""
    common = ["--threads", str(args.threads), "--prompt", "512", "--decode", str(args.decode)]
    ours = [str(target_dir() / "release" / "engine"), str(path), *common]
    peer = [sys.executable, str(HERE / "llama_cpp_peer.py"), str(path), *common]
    rounds = {"potluck": [], "llama.cpp": []}
    for number in range(args.rounds):
        print(f"{path.name}: round {number + 1} of {args.rounds}", file=sys.stderr)
        rounds["potluck"].append(run_json(ours))
        rounds["llama.cpp"].append(run_json(peer))
    return rounds


def spread(values: list[float]) -> str:
    """Median with the lowest and highest value."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def row(name: str, rounds: dict) -> str:
    """One line of the table."""
    ours, peer = rounds["potluck"], rounds["llama.cpp"]

    def column(figure: str, scale: float = 1.0) -> str:
        mine = [r[figure] * scale for r in ours]
        theirs = [r[figure] * scale for r in peer]
        ratio = statistics.median(m / t for m, t in zip(mine, theirs))
        return f"{spread(mine)} | {spread(theirs)} | **{ratio:.2f}**"

    parallel = statistics.median(r["parallel8_tps"] / r["decode_tps"] for r in ours)
    cells = [column("decode_tps"), column("prefill_tps"), column("ttft_s", 1000), column("rss_bytes", 1e-6)]
    return f"| {name} | " + " | ".join(cells) + f" | {parallel:.2f} |"


def table(results: dict) -> str:
    """The whole table in Markdown."""
    head = "| model |"
    for figure in ["decode tok/s", "prefill tok/s", "first token ms", "RSS MB"]:
        head += f" {figure}: Potluck | llama.cpp | ratio |"
    head += " 8 streams ÷ 1 |"
    rule = "|---" * 14 + "|"
    return "\n".join([head, rule, *(row(name, rounds) for name, rounds in results.items())])


def main() -> None:
    """Parses arguments, runs everything, prints the table (or JSON)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["0.5b", "1b"])
    parser.add_argument("--dtypes", nargs="+", default=["Q8_0", "Q4_0", "Q4_K"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches" / "out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for size in args.sizes:
        for dtype in args.dtypes:
            path = model_file(args.out, size, dtype)
            results[f"{size} {dtype}"] = measure(path, args)
    if args.json:
        print(json.dumps({"machine": platform.processor(), "results": results}))
        return
    print(f"{platform.machine()}, {args.threads} threads, {args.rounds} rounds each, median (lowest–highest)\n")
    print(table(results))


if __name__ == "__main__":
    main()
