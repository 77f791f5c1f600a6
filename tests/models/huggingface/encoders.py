"""Text encoders."""

from collections.abc import Callable
from typing import Any

from ..case import Case, Cut
from .tiny import ENCODER, VOCAB, ids, ids_and_mask, tiny

# The same sizes, spelled the way other configurations spell them.
DISTIL = {
    "vocab_size": VOCAB,
    "dim": 48,
    "hidden_dim": 80,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 40,
    "num_labels": 3,
}


def _encoder(
    name: str,
    model: str,
    config: dict[str, Any],
    inputs: Callable[[], dict[str, Any]] = ids_and_mask,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    return tiny(name, model, config, inputs, family="hf encoder", cut=cut, note=note)


CASES = [
    _encoder("hf_bert", "BertForSequenceClassification", ENCODER),
    _encoder("hf_bert_mlm", "BertForMaskedLM", ENCODER, note="tied output, with its own bias"),
    _encoder(
        "hf_bert_eager",
        "BertModel",
        {**ENCODER, "attn_implementation": "eager", "output_attentions": True},
        note="returns the attention maps",
    ),
    _encoder("hf_roberta", "RobertaForMaskedLM", ENCODER),
    _encoder("hf_distilbert", "DistilBertForSequenceClassification", DISTIL),
    _encoder(
        "hf_albert",
        "AlbertForSequenceClassification",
        {**ENCODER, "embedding_size": 28},
        note="one layer, used twice",
    ),
    _encoder("hf_electra", "ElectraForSequenceClassification", {**ENCODER, "embedding_size": 28}),
    _encoder(
        "hf_deberta_v2",
        "DebertaV2ForSequenceClassification",
        {
            **ENCODER,
            "relative_attention": True,
            "position_buckets": 4,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
        note="disentangled attention on a shared table of positions",
    ),
    _encoder("hf_mpnet", "MPNetForSequenceClassification", ENCODER),
    _encoder(
        "hf_modernbert",
        "ModernBertForMaskedLM",
        {**ENCODER, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4},
        note="fused qkv, gated MLP, local attention",
    ),
    _encoder(
        "hf_mobilebert",
        "MobileBertForSequenceClassification",
        {**ENCODER, "embedding_size": 28, "intra_bottleneck_size": 32, "true_hidden_size": 32},
        note="bottlenecks, three embeddings side by side",
    ),
    _encoder(
        "hf_squeezebert",
        "SqueezeBertForSequenceClassification",
        {**ENCODER, "embedding_size": 48, "q_groups": 2, "k_groups": 2, "v_groups": 2},
        note="grouped one-dimensional convolutions",
    ),
    _encoder("hf_roformer", "RoFormerForSequenceClassification", {**ENCODER, "embedding_size": 28}),
    _encoder(
        "hf_fnet",
        "FNetForSequenceClassification",
        ENCODER,
        ids(),
        "partly",
        "a Fourier transform over channels pins the residual stream",
    ),
    _encoder("hf_convbert", "ConvBertForSequenceClassification", {**ENCODER, "embedding_size": 28}),
]
