"""Measures llama.cpp (through llama-cpp-python's C bindings) on one GGUF file and prints one JSON line.

The same three figures as `potluck-benches --bin engine`: prefill of a prompt, decode of single tokens from an
empty context, time to the first token of the prompt, and the resident memory at the end.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time

import llama_cpp as lib


def resident_bytes() -> int:
    """Resident set of this process, from /proc (bytes)."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def decode(ctx, tokens: list[int]) -> None:
    """Runs one batch and waits for it; raises when llama.cpp refuses it."""
    array = (lib.llama_token * len(tokens))(*tokens)
    status = lib.llama_decode(ctx, lib.llama_batch_get_one(array, len(tokens)))
    if status != 0:
        raise RuntimeError(f"llama_decode returned {status}")
    # Logits are computed by then; touching them makes sure of it.
    assert lib.llama_get_logits_ith(ctx, -1)


def clear(ctx) -> None:
    """Empties the KV cache."""
    lib.llama_memory_clear(lib.llama_get_memory(ctx), True)


def main() -> None:
    """Parses arguments, measures, prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--context", type=int, default=1024)
    args = parser.parse_args()

    @lib.llama_log_callback
    def quiet(_level, _text, _data):
        """llama.cpp is chatty on stderr."""

    lib.llama_log_set(quiet, ctypes.c_void_p(0))
    lib.llama_backend_init()
    started = time.perf_counter()
    model_params = lib.llama_model_default_params()
    model = lib.llama_model_load_from_file(args.model.encode(), model_params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {args.model}")
    params = lib.llama_context_default_params()
    params.n_ctx = args.context
    params.n_batch = args.prompt
    params.n_ubatch = args.prompt
    params.n_threads = args.threads
    params.n_threads_batch = args.threads
    ctx = lib.llama_init_from_model(model, params)
    load = time.perf_counter() - started

    vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    prompt = [(i * 7919 + 13) % vocab for i in range(args.prompt)]
    decode(ctx, prompt[:8])
    clear(ctx)

    started = time.perf_counter()
    decode(ctx, prompt)
    prefill = time.perf_counter() - started
    clear(ctx)

    decode(ctx, prompt[:1])
    started = time.perf_counter()
    for i in range(args.decode):
        decode(ctx, [prompt[(i + 1) % len(prompt)]])
    single = time.perf_counter() - started

    print(
        json.dumps(
            {
                "engine": "llama.cpp",
                "load_s": load,
                "prefill_tps": args.prompt / prefill,
                "ttft_s": prefill,
                "decode_tps": args.decode / single,
                "rss_bytes": resident_bytes(),
            }
        )
    )


if __name__ == "__main__":
    main()
