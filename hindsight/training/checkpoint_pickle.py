"""Read the pickle of a checkpoint without unpickling it: values as they are, tensors as descriptions.

An unpickler builds whatever the functions that it allows are told to build, a tensor of 32 TiB for instance, or an
array whose bytes are taken for pointers. So this reads the pickle first. It knows only the operations by which
torch.save writes numbers, strings, containers and tensors (pickle's protocol 2), and calls nothing. What it gives is a
tree of at most MOST_OBJECTS objects, in which only tensors and short tuples occur twice.
"""

import math
import pickletools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_OBJECTS = 2_000_000
"""Several times what a model of 10,000 tensors on 1,000 ranks takes; 0.5 GB at the very most."""
DEEPEST = 20
"""Containers within containers; a checkpoint of ours has 7."""
MOST_SHARED = 16
"""Longest tuple that may occur several times, such as AdamW's betas."""
ITEM_BYTES = {
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
}
"""Bytes of a number, by the name that PyTorch's storages have before "Storage"."""
MERSENNE_TWISTER = "MT19937"
"""NumPy's generator, whose state is an array of STATE_LENGTH numbers."""
STATE_LENGTH = 624


class DamagedError(ValueError):
    """A checkpoint is truncated, does not match its checksums, or holds what cannot be."""


class ForeignError(ValueError):
    """A checkpoint is intact, but holds something else than numbers, strings and tensors."""


@dataclass(frozen=True)
class Storage:
    """Numbers in an entry of the file.

    Args:
        entry: name of the entry, below data/.
        kind: key of ITEM_BYTES.
        length: how many numbers.
    """

    entry: str
    kind: str
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that the file holds."""

    storage: Storage
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    name: str


class StoredDtype:
    """Stands in for numpy.dtype where a checkpoint is read: that of random state, and no other."""

    def __init__(self, code: object, *flags: object) -> None:
        if code != "u4":
            raise DamagedError(f"a NumPy array of {code!r}")

    def __setstate__(self, state: object) -> None:
        if state != (3, "<", None, None, None, -1, -1, 0):
            raise DamagedError("a NumPy array of another kind than random state")


class StoredArray:
    """Stands in for numpy.ndarray where a checkpoint is read: the state of NumPy's generator, and nothing else."""

    values: NDArray[np.uint32]

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, is_fortran, raw = state
        is_known = version == 1 and shape == (STATE_LENGTH,) and type(dtype) is StoredDtype and is_fortran is False
        if not is_known or type(raw) is not bytes or len(raw) != 4 * STATE_LENGTH:
            raise DamagedError("a NumPy array of another shape than random state")
        self.values = np.frombuffer(raw, "<u4").astype(np.uint32)

    def __getitem__(self, place: int) -> int:
        """Give a number to NumPy, which asks for them one by one when it sets its random state."""
        return int(self.values[place])

    def __reduce__(self) -> Any:
        """Be saved as the array that it stands for."""
        return self.values.__reduce__()


def new_array(*_: object) -> StoredArray:
    """Stand in for the function by which NumPy begins to unpickle an array."""
    return StoredArray()


STAND_INS = {
    "numpy._core.multiarray._reconstruct": new_array,
    "numpy.core.multiarray._reconstruct": new_array,
    "numpy.ndarray": StoredArray,
    "numpy.dtype": StoredDtype,
}
"""What is called instead of NumPy, by full names."""
TENSOR, ORDERED, DURATION = "torch._utils._rebuild_tensor_v2", "collections.OrderedDict", "datetime.timedelta"
ENCODE, VERSION = "_codecs.encode", "torch.torch_version.TorchVersion"
STORAGES = {f"torch.{kind}Storage": kind for kind in ITEM_BYTES}
KNOWN = {TENSOR, ORDERED, DURATION, ENCODE, VERSION, *STAND_INS, *STORAGES}
SCALARS = (str, int, float, bool, type(None), timedelta)


@dataclass
class Content:
    """What a pickle holds.

    Args:
        tree: its value.
        storages: all numbers that it refers to, by their entries.
    """

    tree: Any
    storages: dict[str, Storage]


def read_pickle(data: bytes, sizes: Mapping[str, int]) -> Content:
    """Read a pickle.

    Args:
        data: the pickle.
        sizes: bytes of each entry below data/.

    Raises:
        DamagedError: it holds what cannot be.
        ForeignError: it holds something else than numbers, strings and tensors.
    """
    try:
        reader = _Reader(sizes)
        tree = reader.read(data)
        _check_depth(tree)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        if isinstance(error, DamagedError | ForeignError):
            raise
        raise DamagedError(f"its pickle is malformed ({type(error).__name__})") from error
    return Content(tree, reader.storages)


@dataclass
class _Reader:
    sizes: Mapping[str, int]
    storages: dict[str, Storage] = field(default_factory=dict)
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def read(self, data: bytes) -> Any:
        argument: Any
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > MOST_OBJECTS:
                raise DamagedError(f"more than {MOST_OBJECTS:,} objects")
            match opcode.name:
                case "PROTO" if argument == 2:
                    pass
                case "STOP":
                    return self.stack.pop()
                case "NONE":
                    self.stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    self.stack.append(opcode.name == "NEWTRUE")
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    self.stack.append(argument)
                case "EMPTY_DICT":
                    self.stack.append({})
                case "EMPTY_LIST":
                    self.stack.append([])
                case "EMPTY_TUPLE":
                    self.stack.append(())
                case "MARK":
                    self.marks.append(self.stack)
                    self.stack = []
                case "TUPLE":
                    items = self._items()
                    self.stack.append(tuple(items))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    self.stack.append(tuple([self.stack.pop() for _ in range(int(opcode.name[-1]))][::-1]))
                case "APPEND" | "APPENDS":
                    items = [self.stack.pop()] if opcode.name == "APPEND" else self._items()
                    self._top(list).extend(items)
                case "SETITEM" | "SETITEMS":
                    items = [self.stack.pop() for _ in "kv"][::-1] if opcode.name == "SETITEM" else self._items()
                    self._set(self._top(dict), items)
                case "BINPUT" | "LONG_BINPUT":
                    self.memo[argument] = self.stack[-1]
                case "BINGET" | "LONG_BINGET":
                    self.stack.append(_shared(self.memo[argument]))
                case "GLOBAL":
                    self.stack.append(_known(argument.replace(" ", ".", 1)))
                case "BINPERSID":
                    self.stack.append(self._storage(self.stack.pop()))
                case "REDUCE" | "NEWOBJ":
                    arguments = self.stack.pop()
                    self.stack.append(_call(self.stack.pop(), arguments))
                case "BUILD":
                    self._build(self.stack.pop())
                case _:
                    raise ForeignError(f"the operation {opcode.name}")
        raise DamagedError("its pickle has no end")

    def _items(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ForeignError(f"items of a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _set(self, target: dict[str, Any], items: Sequence[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str or key in target:
                raise ForeignError("a key that is no string, or is there twice")
            target[key] = value

    def _storage(self, identity: Any) -> Storage:
        what, kind, entry, location, length = identity
        if what != "storage" or type(kind) is not _Global or kind.name not in STORAGES:
            raise ForeignError("a reference to something else than numbers")
        if type(entry) is not str or type(location) is not str or type(length) is not int:
            raise DamagedError("a reference to numbers that is malformed")
        storage = Storage(entry, STORAGES[kind.name], length)
        if self.sizes.get(entry) != length * ITEM_BYTES[storage.kind]:
            raise DamagedError(f"data/{_short(entry)} has not the {length} numbers that it should have")
        if self.storages.setdefault(entry, storage) != storage:
            raise DamagedError(f"data/{_short(entry)} is used as numbers of two kinds")
        return storage

    def _build(self, state: Any) -> None:
        target = self.stack[-1]
        if isinstance(target, StoredArray | StoredDtype):
            target.__setstate__(state)
        elif type(target) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
            raise ForeignError("the state of an object")  # that of a module's OrderedDict is its version numbers
        else:
            _check_depth(state)


def _known(name: str) -> _Global:
    if name not in KNOWN:
        raise ForeignError(_short(name))
    return _Global(name)


def _shared(value: Any) -> Any:
    """Allow what may occur twice: a tree in which anything might would be endless to walk through."""
    is_small = type(value) is tuple and len(value) <= MOST_SHARED and all(isinstance(item, SCALARS) for item in value)
    if is_small or isinstance(value, (*SCALARS, bytes, _Global, Storage, StoredTensor, StoredDtype)):
        return value
    raise ForeignError("the same container several times")


def _call(function: Any, arguments: Any) -> Any:
    """Build what a call stands for."""
    if type(function) is not _Global or type(arguments) is not tuple:
        raise ForeignError("a call of something that was not named")
    match function.name:
        case name if name in STAND_INS:
            return STAND_INS[name](*arguments)
        case _ if function.name == ORDERED and not arguments:
            return {}
        case _ if function.name == DURATION and all(type(number) is int for number in arguments):
            return timedelta(*arguments)
        case _ if function.name == VERSION and len(arguments) == 1 and type(arguments[0]) is str:
            return arguments[0]
        case _ if function.name == ENCODE and len(arguments) == 2 and arguments[1] == "latin1":
            return str(arguments[0]).encode("latin1")
        case _ if function.name == TENSOR:
            return _tensor(*arguments)
    raise ForeignError(f"a call of {function.name}")


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, needs_gradient: Any, hooks: Any) -> StoredTensor:
    numbers = (offset, *shape, *stride)
    is_plain = type(storage) is Storage and type(shape) is type(stride) is tuple and len(shape) == len(stride) <= 8
    if not is_plain or any(type(number) is not int or number < 0 for number in numbers) or hooks != {}:
        raise DamagedError("a tensor that is malformed")
    count = math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if count and (count > storage.length or last >= storage.length):
        raise DamagedError(f"a tensor of shape {_short(str(shape))} in {storage.length} numbers")
    return StoredTensor(storage, shape)


def _check_depth(tree: Any) -> None:
    """Raise DamagedError where containers are too deep within each other for those who walk by recursion."""
    waiting = [(tree, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise DamagedError(f"containers more than {DEEPEST} deep within each other")
        if isinstance(value, dict):
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(item, depth + 1) for item in value]


def _short(text: str) -> str:
    """Write what a file holds in a line of a message."""
    return ascii(text[:80])[1:-1]
