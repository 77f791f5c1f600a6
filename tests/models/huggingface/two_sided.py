"""Encoder-decoders and speech models."""

from collections.abc import Callable
from typing import Any

import torch

from ..case import Case, Cut, floats, tokens
from .tiny import TEXT, VOCAB, ids_both_sides, tiny

BART = {
    "vocab_size": VOCAB,
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
T5 = {
    "vocab_size": VOCAB,
    "d_model": 48,
    "d_kv": 14,
    "d_ff": 80,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6,
    "decoder_start_token_id": 0,
}
WAV2VEC2 = {
    **TEXT,
    "conv_dim": [24, 32],
    "conv_kernel": [8, 4],
    "conv_stride": [4, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0,
}
WHISPER = {
    **{key: value for key, value in BART.items() if key != "max_position_embeddings"},
    "num_mel_bins": 10,
    "max_source_positions": 13,
    "max_target_positions": 15,
    "suppress_tokens": [],
    "begin_suppress_tokens": [],
}


def _mel_and_ids() -> dict[str, Any]:
    return {
        "input_features": floats(10, 26),
        "decoder_input_ids": tokens(7, VOCAB),
        "use_cache": False,
    }


def _wave() -> dict[str, Any]:
    return {"input_values": floats(200)}


def _spectrogram() -> dict[str, Any]:
    return {"input_values": floats(18, 16)}


def _image_and_ids() -> dict[str, Any]:
    ids = tokens(7, VOCAB)
    ids[:, -1] = 2
    return {"input_ids": ids, "pixel_values": torch.randn(2, 3, 20, 20)}


def _two(
    name: str,
    model: str,
    config: dict[str, Any],
    inputs: Callable[[], dict[str, Any]] = ids_both_sides,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    return tiny(name, model, config, inputs, family="hf two-sided", cut=cut, note=note)


TOWERS = {
    "text_config": TEXT,
    "vision_config": {**TEXT, "image_size": 20, "patch_size": 5, "hidden_size": 40},
    "projection_dim": 28,
}

CASES = [
    _two("hf_t5", "T5ForConditionalGeneration", T5, note="heads do not fill the width"),
    _two(
        "hf_t5_gated",
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    _two("hf_bart", "BartForConditionalGeneration", BART, note="one embedding for both sides"),
    _two("hf_pegasus", "PegasusForConditionalGeneration", BART),
    _two("hf_marian", "MarianMTModel", BART, note="fixed sinusoidal positions"),
    _two("hf_whisper", "WhisperForConditionalGeneration", WHISPER, _mel_and_ids),
    _two("hf_wav2vec2", "Wav2Vec2ForCTC", WAV2VEC2, _wave, note="weight norm, group norm"),
    _two("hf_hubert", "HubertForCTC", {**WAV2VEC2, "feat_extract_norm": "layer"}, _wave),
    _two(
        "hf_ast",
        "ASTForAudioClassification",
        {
            **TEXT,
            "num_mel_bins": 16,
            "max_length": 18,
            "patch_size": 6,
            "frequency_stride": 5,
            "time_stride": 6,
            "num_labels": 11,
        },
        _spectrogram,
    ),
    _two("hf_clip", "CLIPModel", TOWERS, _image_and_ids, note="two towers compared by a product"),
]
