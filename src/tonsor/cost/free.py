"""The operators that do no arithmetic: they only move, make, choose or look up."""

from __future__ import annotations

from tonsor.cost.terms import FREE, free

__all__ = ["FREE"]

free(  # views and other arrangements
    "aten.view", "aten.reshape", "aten._unsafe_view", "aten._reshape_alias", "aten.flatten",
    "aten.unflatten", "aten.view_as", "aten.reshape_as", "aten.ravel", "aten._reshape_copy",
    "aten.view_copy", "aten.t", "aten.numpy_T", "aten.mT", "aten.mH", "aten.adjoint",
    "aten.matrix_H", "aten.t_copy", "aten.transpose", "aten.transpose_", "aten.swapaxes",
    "aten.swapdims", "aten.transpose_copy", "aten.permute", "aten.permute_copy", "aten.movedim",
    "aten.moveaxis", "aten.unsqueeze", "aten.unsqueeze_", "aten.unsqueeze_copy", "aten.squeeze",
    "aten.squeeze_", "aten.squeeze_copy", "aten.expand", "aten.expand_as", "aten.broadcast_to",
    "aten.expand_copy", "aten.repeat", "aten.tile", "aten.repeat_interleave", "aten.cat",
    "aten.concat", "aten.concatenate", "aten.stack", "aten.split", "aten.split_with_sizes",
    "aten.chunk", "aten.unsafe_split", "aten.tensor_split", "aten.unsafe_chunk",
    "aten.unsafe_split_with_sizes", "aten.hsplit", "aten.vsplit", "aten.slice",
    "aten.slice_copy", "aten.narrow", "aten.narrow_copy", "aten.select", "aten.select_copy",
    "aten.unbind", "aten.unbind_copy", "aten.flip", "aten.roll", "aten.rot90", "aten.unfold",
    "aten.diagonal", "aten.diag_embed", "aten.tril", "aten.triu", "aten.tril_", "aten.triu_",
    "aten.view_as_real", "aten.view_as_complex", "aten.view_as_real_copy", "aten.as_strided",
    "aten.slice_scatter", "aten.select_scatter", "aten.diagonal_scatter", "aten.im2col",
    "aten.pad", "aten.constant_pad_nd", "aten.pixel_shuffle", "aten.pixel_unshuffle",
    "aten.channel_shuffle", "aten.native_channel_shuffle", "aten.col2im", "aten.real",
    "aten.imag", "aten.complex", "aten.max_unpool1d", "aten.max_unpool2d", "aten.max_unpool3d",
    *(f"aten.{kind}_pad{n}d" for kind in ("reflection", "_reflection", "replication")
      for n in (1, 2, 3)),
)  # fmt: skip
free(  # copies, and what is an identity in eval mode
    "aten.clone", "aten.detach", "aten.detach_", "aten.alias", "aten.contiguous", "aten.to",
    "aten._to_copy", "aten.lift_fresh", "aten.lift_fresh_copy", "aten.type_as", "aten.cpu",
    "aten.float", "aten.double", "aten.half", "aten.bfloat16", "aten.conj", "aten._conj",
    "aten.resolve_conj", "aten.resolve_neg", "aten.positive", "aten.requires_grad_",
    "aten.copy_", "aten.set_", "aten.dropout", "aten.dropout_", "aten.native_dropout",
    "aten.feature_dropout", "aten.feature_dropout_", "aten.alpha_dropout",
    "aten.alpha_dropout_", "aten.feature_alpha_dropout",
)  # fmt: skip
free(  # tensors made from nothing
    "aten.zeros", "aten.ones", "aten.full", "aten.empty", "aten.new_zeros", "aten.new_ones",
    "aten.new_full", "aten.new_empty", "aten.empty_strided", "aten.new_empty_strided",
    "aten.scalar_tensor", "aten.empty_permuted", "aten.arange", "aten.linspace",
    "aten.logspace", "aten.eye", "aten.tril_indices", "aten.triu_indices", "aten.rand",
    "aten.randn", "aten.randint", "aten.randperm", "aten.normal", "aten.hann_window",
    "aten.hamming_window", "aten.blackman_window", "aten._efficientzerotensor", "aten.tensor",
    "aten.range", "aten.zeros_like", "aten.ones_like", "aten.empty_like", "aten.full_like",
    "aten.rand_like", "aten.randn_like", "aten.bernoulli", "aten.bernoulli_", "aten.uniform_",
    "aten.normal_", "aten.fill", "aten.fill_", "aten.zero_", "aten.one_hot",
)  # fmt: skip
free(  # looking up, choosing, ordering
    "aten.embedding", "aten.index", "aten._unsafe_index", "aten.index_select", "aten.gather",
    "aten.take_along_dim", "aten.index_copy", "aten.index_copy_", "aten.index_fill",
    "aten.index_fill_", "aten.scatter", "aten.scatter_", "aten.index_put", "aten.index_put_",
    "aten._unsafe_index_put", "aten._index_put_impl_", "aten.nonzero", "aten.masked_select",
    "aten.bincount", "aten.unique", "aten._unique2", "aten.searchsorted", "aten.histc",
    "aten.unique_consecutive", "aten.where", "aten.masked_fill", "aten.masked_fill_",
    "aten.argmax", "aten.argmin", "aten.median", "aten.nanmedian", "aten.mode",
    "aten.kthvalue", "aten.quantile", "aten.nanquantile", "aten.sort", "aten.argsort",
    "aten.topk", "aten.msort",
)  # fmt: skip
free(  # questions that Python asks, and promises that it makes
    "aten._local_scalar_dense", "aten.item", "aten.equal", "aten.is_nonzero",
    "aten._assert_async", "aten._functional_assert_async", "aten._assert_scalar",
    "aten._assert_tensor_metadata", "aten._linalg_check_errors", "aten.sym_size",
    "aten.sym_numel", "aten.is_same_size", "aten.sym_constrain_range",
    "aten.sym_constrain_range_for_size",
)  # fmt: skip
