"""tensorgrad: tensors with gradients, on NumPy, C++ or CuPy kernels; PyTorch's names and semantics."""
from .ops import create, elementwise, inplace, pointwise, reduce, shape_core, operators
from .ops.create import *
from .ops.elementwise import elementwise
from .autograd import backward as _b
from .autograd.backward import grad
from .autograd.grad_mode import *
from .tensor import Tensor
from .ops.pointwise import *
