"""Writes the trained network as GGUF, and reads it back for the exam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import jinja2
import numpy as np
from tokenizers import Tokenizer

import vocab
from model import Params, Shape

DESCRIPTION = (
    "A small demo model built into Potluck. It was trained from scratch on text written for the project "
    "and knows only how to use Potluck; it is not a general assistant."
)
NAMES = {
    "attn_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
    "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip


def write(path: Path, params: Params, shape: Shape, tokenizer: Tokenizer, merges: list[tuple[str, str]]) -> None:
    """Writes matrices as Q8_0 and norms as F32, with all that an engine needs to run it."""
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    describe(writer, shape)
    add_tokenizer(writer, tokenizer, merges)
    add_tensor(writer, "token_embd.weight", params["embed"])
    for i in range(shape.layers):
        for ours, theirs in NAMES.items():
            add_tensor(writer, f"blk.{i}.{theirs}.weight", params[ours][i])
    add_tensor(writer, "output_norm.weight", params["out_norm"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)  # a reader never sees half a file


def describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """General and architecture metadata."""
    writer.add_type("model")
    writer.add_name("guide")
    writer.add_basename("guide")
    writer.add_author("The Potluck authors")
    writer.add_license("apache-2.0")
    writer.add_description(DESCRIPTION)
    writer.add_tags(["demo", "potluck", "text-generation"])
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, merges: list[tuple[str, str]]) -> None:
    """Token table, merges, special tokens and chat template."""
    table = tokenizer.get_vocab()
    tokens = sorted(table, key=table.__getitem__)
    end = table[vocab.END]
    kinds = [gguf.TokenType.CONTROL if t in vocab.SPECIAL else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(vocab.CHAT_TEMPLATE)


def add_tensor(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    """Adds one tensor: Q8_0 for matrices, F32 for vectors."""
    data = np.asarray(value, np.float32)
    if data.ndim == 1:
        writer.add_tensor(name, data)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)


class Loaded:
    """A GGUF file read back: dequantised weights, tokenizer and chat template."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.fields = {k: f.contents() for k, f in reader.fields.items()}
        self.tensors = {
            t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors
        }
        self.types = {t.name: t.tensor_type.name for t in reader.tensors}
        tokens = self.fields["tokenizer.ggml.tokens"]
        merges = [tuple(m.split(" ")) for m in self.fields["tokenizer.ggml.merges"]]
        self.tokenizer = vocab.assemble({t: i for i, t in enumerate(tokens)}, merges)
        self.end = int(self.fields["tokenizer.ggml.eos_token_id"])
        self.template = jinja2.Environment().from_string(self.fields["tokenizer.chat_template"])
        self.shape = Shape(
            vocab=len(tokens),
            dim=self.fields["llama.embedding_length"],
            layers=self.fields["llama.block_count"],
            heads=self.fields["llama.attention.head_count"],
            kv_heads=self.fields["llama.attention.head_count_kv"],
            ffn=self.fields["llama.feed_forward_length"],
            context=self.fields["llama.context_length"],
            rope_base=self.fields["llama.rope.freq_base"],
            norm_eps=self.fields["llama.attention.layer_norm_rms_epsilon"],
        )

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation, rendered by the file's own template."""
        text = self.template.render(messages=messages, add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)
