"""Methods of PyTorch's Tensor that tensorgrad's lacks, so that a program's source can be checked without PyTorch."""

MISSING_METHODS: frozenset[str] = frozenset((
    "as_subclass", "ccol_indices", "chalf", "coalesce", "col_indices", "const_data_ptr", "crow_indices", "dense_dim",
    "dequantize", "dim_order", "eig", "grad_dtype", "hash_tensor", "index", "indices", "int_repr", "ipu", "lstsq",
    "module_load", "mtia", "q_per_channel_axis", "q_per_channel_scales", "q_per_channel_zero_points", "q_scale",
    "q_zero_point", "qscheme", "reinforce", "resize", "resize_as", "resize_as_sparse_",
    "row_indices", "slice_inverse", "smm", "solve", "sparse_dim", "sparse_mask", "sparse_resize_",
    "sparse_resize_and_clear_", "sspaddmm", "storage_type", "symeig", "to_mkldnn", "to_padded_tensor", "to_sparse",
    "to_sparse_bsc", "to_sparse_bsr", "to_sparse_coo", "to_sparse_csc", "to_sparse_csr", "unsafe_split_with_sizes",
    "values", "volatile", "xpu",
))  # fmt: skip
