"""Asks a running node the exam of `guide` and prints the score.

    python check.py                              asks http://127.0.0.1:7685
    python check.py --url http://HOST:PORT --json

Needs nothing but Python's standard library. The exit code is 0 when at least
`--need` answers are right.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

EXAM = Path(__file__).resolve().parent / "eval.jsonl"


def arguments() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--url", default="http://127.0.0.1:7685", help="where the node listens")
    p.add_argument("--model", default="guide")
    p.add_argument("--key", help="API key, where the node wants one")
    p.add_argument("--exam", type=Path, default=EXAM)
    p.add_argument("--need", type=int, default=90, help="right answers needed for exit code 0")
    p.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for one answer")
    p.add_argument("--json", action="store_true", help="print one JSON object with every answer")
    return p.parse_args()


def passes(answer: str, key: list[str | list[str]]) -> bool:
    """Whether `answer` holds every key; a list among the keys means any one of them."""
    text = answer.lower()
    groups = [[k] if isinstance(k, str) else k for k in key]
    return all(any(option.lower() in text for option in group) for group in groups)


def ask(args: argparse.Namespace, question: str) -> str:
    """The node's answer at temperature 0."""
    body = {
        "model": args.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 100,
        "stream": False,
    }
    request = urllib.request.Request(
        args.url.rstrip("/") + "/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    if args.key:
        request.add_header("Authorization", f"Bearer {args.key}")
    with urllib.request.urlopen(request, timeout=args.timeout) as response:
        reply: dict[str, Any] = json.load(response)
    return str(reply["choices"][0]["message"]["content"])


def main() -> int:
    """Asks everything and reports."""
    args = arguments()
    items = [json.loads(line) for line in args.exam.read_text().splitlines() if line.strip()]
    begin, results = time.monotonic(), []
    for item in items:
        try:
            answer = ask(args, item["question"])
        except urllib.error.HTTPError as error:
            print(f"{args.url} answered {error.code}: {error.read()[:300].decode(errors='replace')}", file=sys.stderr)
            return 2
        except (urllib.error.URLError, TimeoutError) as error:
            print(f"no answer from {args.url}: {error}. Is the node running? Start it with `potluck up`.", file=sys.stderr)
            return 2
        results.append({"question": item["question"], "answer": answer, "right": passes(answer, item["key"])})
    right = sum(r["right"] for r in results)
    seconds = round(time.monotonic() - begin, 2)
    if args.json:
        print(json.dumps({"right": right, "of": len(results), "seconds": seconds, "results": results}))
    else:
        for r in results:
            if not r["right"]:
                print(f"wrong: {r['question']}\n       {r['answer']}")
        print(f"{right}/{len(results)} right in {seconds} s")
    return 0 if right >= args.need else 1


if __name__ == "__main__":
    sys.exit(main())
