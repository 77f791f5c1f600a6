"""Decoder language models: attention, mixtures of experts, and state spaces."""

from collections.abc import Callable
from typing import Any

from ..case import Case, Cut
from .tiny import TEXT, VOCAB, ids, tiny

GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False}
GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 48,
    "n_inner": 80,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {**TEXT, "ffn_dim": 80, "word_embed_proj_dim": 48}
BLOOM = {"vocab_size": VOCAB, "hidden_size": 48, "n_layer": 2, "n_head": 4}
FALCON = {"vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
MPT = {"vocab_size": VOCAB, "d_model": 48, "n_layers": 2, "n_heads": 4, "max_seq_len": 40}
EXPERTS = {**GROUPED, "num_experts_per_tok": 2, "initializer_range": 0.15}
MAMBA = {"vocab_size": VOCAB, "hidden_size": 48, "state_size": 6, "num_hidden_layers": 2}


def _decoder(
    name: str,
    model: str,
    config: dict[str, Any],
    inputs: Callable[[], dict[str, Any]] | None = None,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    inputs = inputs or ids(use_cache=False)
    return tiny(name, model, config, inputs, family="hf decoder", cut=cut, note=note)


CASES = [
    _decoder("hf_gpt2", "GPT2LMHeadModel", GPT2, note="Conv1D layers, tied output"),
    _decoder("hf_gpt2_cache", "GPT2LMHeadModel", GPT2, ids(), note="cache in the output"),
    _decoder("hf_llama", "LlamaForCausalLM", GROUPED, note="4 query heads on 2 key heads"),
    _decoder("hf_llama_cache", "LlamaForCausalLM", GROUPED, ids(), note="cache in the output"),
    _decoder(
        "hf_llama_eager",
        "LlamaForCausalLM",
        {**GROUPED, "attn_implementation": "eager", "tie_word_embeddings": True},
        note="plain matrix products, tied output",
    ),
    _decoder(
        "hf_llama_classifier",
        "LlamaForSequenceClassification",
        {**GROUPED, "num_labels": 3},
        note="reads the last token that is not padding",
    ),
    _decoder("hf_mistral", "MistralForCausalLM", {**GROUPED, "sliding_window": 4}),
    _decoder("hf_qwen2", "Qwen2ForCausalLM", GROUPED, note="bias on q, k and v only"),
    _decoder("hf_qwen3", "Qwen3ForCausalLM", GROUPED, note="norms inside each head"),
    _decoder(
        "hf_gemma2",
        "Gemma2ForCausalLM",
        {**GROUPED, "tie_word_embeddings": True, "sliding_window": 4, "query_pre_attn_scalar": 16},
        note="weight + 1 norms, soft caps, tied output, scaled embedding",
    ),
    _decoder("hf_olmo2", "Olmo2ForCausalLM", GROUPED, note="norms over all heads at once"),
    _decoder("hf_granite", "GraniteForCausalLM", {**GROUPED, "residual_multiplier": 0.5}),
    _decoder("hf_cohere", "CohereForCausalLM", GROUPED, note="parallel attention and MLP"),
    _decoder(
        "hf_stablelm",
        "StableLmForCausalLM",
        {**TEXT, "num_attention_heads": 6, "num_key_value_heads": 2},
        note="partial rotation",
    ),
    _decoder(
        "hf_phi",
        "PhiForCausalLM",
        {**TEXT, "partial_rotary_factor": 0.5},
        note="parallel attention and MLP, partial rotation",
    ),
    _decoder("hf_phi3", "Phi3ForCausalLM", GROUPED, note="fused qkv, fused gate and value"),
    _decoder(
        "hf_gpt_neox",
        "GPTNeoXForCausalLM",
        {**TEXT, "rotary_pct": 0.5},
        note="qkv interleaved head by head",
    ),
    _decoder("hf_gptj", "GPTJForCausalLM", {**GPT2, "rotary_dim": 6}, note="paired rotation"),
    _decoder("hf_opt", "OPTForCausalLM", OPT, note="learned positions, tied output"),
    _decoder("hf_bloom", "BloomForCausalLM", BLOOM, note="alibi, qkv interleaved head by head"),
    _decoder(
        "hf_falcon",
        "FalconForCausalLM",
        {**FALCON, "multi_query": True, "parallel_attn": True, "bias": False},
        note="multi-query heads packed into one matrix",
    ),
    _decoder("hf_mpt", "MptForCausalLM", MPT, note="alibi, fused qkv by chunk"),
    _decoder("hf_mixtral", "MixtralForCausalLM", {**EXPERTS, "num_local_experts": 3}, cut="partly"),
    _decoder(
        "hf_qwen2_moe",
        "Qwen2MoeForCausalLM",
        {
            **EXPERTS,
            "num_experts": 3,
            "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 56,
        },
        cut="partly",
        note="routed experts beside a shared one",
    ),
    _decoder("hf_mamba", "MambaForCausalLM", MAMBA, cut="partly", note="selective state space"),
    _decoder(
        "hf_mamba2",
        "Mamba2ForCausalLM",
        {**MAMBA, "num_heads": 6, "head_dim": 16, "expand": 2, "n_groups": 2, "chunk_size": 4},
        cut="partly",
        note="states by head",
    ),
]
