"""Steps on no device: tensors on PyTorch's meta device have shapes and no numbers. Where a GPU would make the host wait
for it, one that is not there cannot answer; here it is counted, and a stand-in answers.

    with Waits() as waits:
        one step, all of its tensors on the meta device
    waits.read, waits.sent, waits.checked
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
#: linear algebra after which a GPU's host looks whether it went well, as torch documents it (`torch.linalg`), by the
#: names of its operations; what is made of several (`inv`, `solve`) ends with one that says so by itself
CHECKED = ("linalg_eig", "_linalg_eigh", "linalg_pinv", "_linalg_svd")


class Waits(TorchDispatchMode):
    """read: the shapes of what went from the device to the host. sent: of what the host sent there and waited for, as
    it does unless the copy is `non_blocking`. checked: linear algebra whose success the host reads (`cholesky`, `inv`).

    An operation whose shape hangs on numbers (`nonzero`, a mask as an index) would wait as well; on the meta device it
    is an error, and so is `lstsq`. What a kernel does inside is not seen: that it reads numbers (`matrix_exp`), copies
    an index that is on the host, waits for memory, or for a library that does. On a GPU
    `torch.cuda.set_sync_debug_mode` sees most of that."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[int, ...]] = []
        self.sent: list[tuple[int, ...]] = []
        self.checked: list[str] = []

    @property
    def count(self) -> int:
        return len(self.read) + len(self.sent) + len(self.checked)

    def stand_in(self, tensor: Tensor) -> Tensor:
        """Ones, and twos on the diagonal of a matrix: losses, or a Gramian of tasks that agree."""
        ones = torch.ones(tensor.shape, dtype=tensor.dtype)
        return ones + torch.eye(*tensor.shape, dtype=tensor.dtype) if tensor.dim() == 2 else ones

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            self.read.append(())
            return self.stand_in(args[0]).item()
        if func in (aten._to_copy.default, aten.copy_.default):
            here = func is aten.copy_.default
            source, target = args[1] if here else args[0], args[0].device if here else kwargs.get("device")
            to_meta = source.is_meta if target is None else torch.device(target).type == "meta"
            if source.is_meta and not to_meta:
                self.read.append(tuple(source.shape))
                known = self.stand_in(source)
                return args[0].copy_(known) if here else known.to(kwargs.get("dtype") or source.dtype)
            if to_meta and not source.is_meta and not (kwargs.get("non_blocking") or (here and args[2:] == (True,))):
                self.sent.append(tuple(source.shape))
        if (name := checked(func, args, kwargs)) and args[0].is_meta:
            self.checked.append(name)
        return func(*args, **kwargs)


def checked(func: Any, args: Any, kwargs: Any) -> str:
    """The name of linear algebra that is checked, as in `torch.linalg`; of any other operation nothing."""
    name = func.overloadpacket.__name__
    if name == "_linalg_check_errors":
        return str(args[1]).split(".")[-1]
    if name not in CHECKED and not kwargs.get("check_errors"):
        return ""
    return name.removeprefix("_").removeprefix("linalg_")
