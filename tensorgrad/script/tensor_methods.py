"""Methods of PyTorch's Tensor that tensorgrad's lacks, so that a program's source can be checked without PyTorch."""

MISSING_METHODS: frozenset[str] = frozenset()
