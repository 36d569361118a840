"""What Python asks of a run that no replay could answer: it raises, or is noted as a place where the function may be
cut."""

from __future__ import annotations

from types import CodeType
from typing import Any

from ..errors import CompileError
from .known import Known
from .signature import owner
from .standing import StandIns
from .users_line import at_users_line, is_users_call, line_in

__all__ = ["Refusing"]


class Refusing(Known):
    """A listener that refuses what a program can't hold; the arguments are those of ``Trace``."""

    standing: StandIns

    def __init__(self, arguments: list[Any], splits: bool, code: CodeType | None, reach: Any):
        super().__init__(arguments)
        self.splits = splits
        self.code = code
        self.reach = reach
        self.refused: str | None = None  # why there is no program, said once the function has returned
        self.unsplit: str | None = None  # why no program can be written of the run, where it may be cut
        self.unsplit_at: int | None = None  # the function's line where that was

    def moves(self, tensor: Any, device: Any) -> None:
        where = at_users_line(3)
        self.refuse(
            f"compile: a tensor of shape {tuple(tensor.shape)} on {tensor.device} is moved to {device}{where}. A "
            "program computes on one device and copies nothing between two. Move the tensor before the call and pass "
            f"it as an argument, or keep it on {device} from the start (model.to(...) before compile); results can be "
            "moved behind the call. Or give compile(..., fallback=True)."
        )

    def history_read(self, tensor: Any) -> None:
        if is_users_call(("tensor.py",)):
            self._is_leaf_here(tensor, "is_leaf or grad_fn of argument {} is read", "Pass what is asked for beside it")

    def retains(self, tensor: Any) -> None:
        self._is_leaf_here(tensor, "retain_grad() or retains_grad of argument {}", "Call it outside")

    def _is_leaf_here(self, tensor: Any, asked: str, instead: str) -> None:
        """Refuses what is asked of an argument's history, of which it has none here."""
        number = self.standing.number(tensor)
        if number is not None:
            self._refuse_now(
                f"compile: {asked.format(number)}{at_users_line(4)}, which was computed outside of the compiled "
                f"function: within it, it is a leaf. {instead}, or give compile(..., fallback=True)."
            )

    def size_read(self, tensor: Any) -> None:
        whole = owner(tensor._data)
        arrays = {key: watch() for key, watch in self.watches.items() if self.values[key] in self.arguments}
        if any(array is not None and owner(array) is whole for array in arrays.values()):
            where = at_users_line(3)
            self._refuse_now(
                f"compile: the size of an argument's storage is read{where}, of which it may be another part in the "
                "next call. Use numel(), pass the number beside it, or give compile(..., fallback=True)."
            )

    def address_read(self, tensor: Any) -> None:
        if self._stays(tensor._data):
            return
        where = at_users_line(3)
        self.refuse(
            f"compile: data_ptr() is read{where} of a tensor that may lie elsewhere in the next call. A replay runs no "
            "Python. To learn whether two tensors share memory, ask outside of the compiled function and pass what was "
            "found, or give compile(..., fallback=True)."
        )

    def seen_as(self, tensor: Any, dtype: Any) -> None:
        if self._stays(tensor._data):
            return
        where = at_users_line(3)
        self.refuse(
            f"compile: elements of {tensor.dtype} are seen as {dtype}{where}, which no program can follow. Do it "
            "outside of the compiled function, or give compile(..., fallback=True)."
        )

    def _stays(self, array: Any) -> bool:
        """Whether an array lies where it is in the next call too, or another program is written."""
        found = self.values.get(id(array))
        root = self._root(array) if found is None else found.root
        if root is not None and (root.array is None or root in self.arguments):
            return False
        states = () if self.reach is None else (t._data for _, t in self.reach.tensors.values())
        return any(owner(state) is owner(array) for state in states)

    def copies_settings(self, optimizer: Any) -> None:
        where = at_users_line(3)
        self.refuse(
            f"compile: state_dict() of a {type(optimizer).__name__}{where} copies numbers that a program reads anew in "
            "each call, such as the learning rate. A replay runs no Python, so the copy would stay as it is. Call it "
            "outside of the compiled function, or give compile(..., fallback=True)."
        )

    def unheard(self, what: str) -> None:
        where = at_users_line(4)
        self.refuse(
            f"compile: {what}{where} is run that was written of another function. It can't be a part of this one: "
            "compile the two as one function, or call backward() outside."
        )

    def _refuse_now(self, why: str) -> None:
        """Where a run may go on without a program, what stood for an argument is that very one from now on."""
        self.refuse(why)
        self.standing.show()

    def refuse(self, why: str, at: int | None = None) -> None:
        """Raises CompileError, or notes where the function may be cut: at this line of it, by default where it is."""
        if not self.splits:
            self.refused = self.refused or why  # should the function handle it as an error of its own
            raise CompileError(why)
        if self.unsplit is None:
            self.unsplit = why
            self.unsplit_at = line_in(self.code) if at is None and self.code is not None else at
