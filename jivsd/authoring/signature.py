"""The parameters of a step, workflow, signal or query as JSON: encoded, decoded, checked by their annotations."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin, get_type_hints

import msgspec
import msgspec.inspect

from jivsd.authoring.errors import InvalidDefinition, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterator


def hints_of(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """The resolved annotations of a function.

    Raises:
        InvalidDefinition: an annotation names something that the module does not have at run time.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except Exception as error:  # an annotation is any expression
        raise InvalidDefinition(
            f"{where}: an annotation cannot be resolved ({error}); import its type at run time, not only for typing"
        ) from None


class Codec:
    """JSON for one type: what `encode` accepts, `decode` gives back as that type."""

    __slots__ = ("decode", "kind")
    decode: Callable[[bytes | msgspec.Raw], Any]
    """Raises msgspec.ValidationError or msgspec.DecodeError."""

    def __init__(self, kind: Any, where: str) -> None:
        self.kind = kind
        try:
            self.decode = msgspec.json.Decoder(kind).decode
            parts = parts_of(kind)
        except Exception as error:  # msgspec names many reasons, in several exception types
            raise InvalidDefinition(f"{where}: {shown(kind)} has no JSON form: {error}") from None
        for part in parts:
            if isinstance(part, msgspec.inspect.CustomType):
                raise InvalidDefinition(f"{where}: {shown(part.cls)} has no JSON form; {_instead(part.cls)}")


@lru_cache(512)
def codec_of(kind: Any, where: str) -> Codec:
    """The codec of a type that is named where it is used, which may be often. See `Codec`."""
    return Codec(kind, where)


def _instead(kind: type) -> str:
    return "write Any for any JSON value" if kind is object else "a msgspec.Struct has one"


def shown(kind: Any) -> str:
    """A type as people write it."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


@lru_cache(512)
def parts_of(kind: Any) -> tuple[msgspec.inspect.Type, ...]:
    """A type and the types inside of it, each once."""
    found: dict[int, msgspec.inspect.Type] = {}
    pending: list[Any] = [msgspec.inspect.type_info(kind)]
    while pending:
        part = pending.pop()
        if isinstance(part, msgspec.inspect.Field):
            pending.append(part.type)
        elif isinstance(part, tuple):
            pending.extend(cast("tuple[Any, ...]", part))
        elif isinstance(part, msgspec.inspect.Type) and id(part) not in found:
            found[id(part)] = part
            pending.extend(getattr(part, name) for name in part.__struct_fields__)
    return tuple(found.values())


class Signature:
    """The parameters of a function behind its first `skip` ones (self, ctx), and its result.

    Raises:
        InvalidDefinition: `*args`, `**kwargs` or keyword-only parameters, or a type without a JSON form.
    """

    __slots__ = ("_arguments", "_defaults", "_encoder", "_inputs", "_required", "names", "result", "where")

    def __init__(self, function: Callable[..., Any], skip: int, where: str) -> None:
        self.where = where
        hints = hints_of(function, where)
        parameters = list(inspect.signature(function).parameters.values())[skip:]
        for parameter in parameters:
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                raise InvalidDefinition(
                    f"{where}: parameter {parameter.name!r} is {parameter.kind.description}; "
                    "the journal needs plain parameters with names"
                )
        self.names = tuple(parameter.name for parameter in parameters)
        self._required = sum(parameter.default is parameter.empty for parameter in parameters)
        self._defaults = tuple(p.default for p in parameters if p.default is not p.empty)
        kinds = [hints.get(name, Any) for name in self.names]
        self._arguments = Codec(tuple[tuple(kinds)] if kinds else tuple[()], where)
        unordered = any(
            isinstance(part, msgspec.inspect.SetType | msgspec.inspect.FrozenSetType)
            for part in parts_of(self._arguments.kind)
        )
        # the hash of the arguments must not depend on the order of a set, which is another in every process
        self._encoder = msgspec.json.Encoder(order="deterministic" if unordered else None)
        self._check_defaults(kinds)
        self._inputs = _input_codec(self.names, kinds, self._required, self._defaults, where)
        self.result = Codec(result_kind(hints.get("return", Any)), f"{where}, its result")

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Encode a call's arguments as a JSON array.

        Raises:
            TypeError: the arguments do not fit the parameters, or one has no JSON form.
        """
        if kwargs or len(args) != len(self.names):
            args = self._bind(args, kwargs)
        try:
            return self._encoder.encode(args)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"{self.where}: an argument has no JSON form: {error}") from None

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Decode what `encode` made.

        Raises:
            TypeError: an argument is not of its annotated type.
        """
        try:
            return self._arguments.decode(data)
        except msgspec.ValidationError as error:
            raise TypeError(f"{self.where}: {self._named(str(error))}") from None

    def encode_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Encode arguments in the form in which people write an input.

        One parameter: its value; several: an object by name; none: null.
        """
        args = self._bind(args, kwargs)
        value = None if not args else args[0] if len(self.names) == 1 else dict(zip(self.names, args, strict=True))
        try:
            return self._encoder.encode(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"{self.where}: an argument has no JSON form: {error}") from None

    def decode_input(self, data: bytes, *, strict: bool = False) -> tuple[Any, ...]:
        """Decode an input into arguments; `strict` also refuses fields that the types do not have.

        Raises:
            InvalidValue: it does not fit; the message names the field.
        """
        try:
            value = self._inputs.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidValue(f"{self.where}: invalid input: {error}") from None
        if strict and (extra := unknown_field(msgspec.json.decode(data), value)) is not None:
            raise InvalidValue(f"{self.where}: invalid input: unknown field - at `${extra}`")
        if not self.names:
            return ()
        if len(self.names) == 1:
            if value is None and self._defaults and not self._takes_null():
                return copy.deepcopy(self._defaults)
            return (value,)
        return tuple(getattr(value, name) for name in self.names)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of an input."""
        return msgspec.json.schema(self._inputs.kind)

    @property
    def input_kind(self) -> Any:
        """The type of an input."""
        return self._inputs.kind

    def struct_fields(self) -> set[str]:
        """The fields of the one parameter, if there is one and it is a struct."""
        kinds = get_args(self._arguments.kind)
        if len(self.names) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], msgspec.Struct):
            return set(kinds[0].__struct_fields__)
        return set()

    def _check_defaults(self, kinds: list[Any]) -> None:
        defaulted = range(self._required, len(self.names))
        for index, default in zip(defaulted, self._defaults, strict=True):
            try:
                msgspec.json.decode(msgspec.json.encode(default), type=kinds[index])
            except (TypeError, ValueError, OverflowError) as error:
                raise InvalidDefinition(
                    f"{self.where}: parameter {self.names[index]!r} is {shown(kinds[index])}, "
                    f"which its default {default!r} is not: {error}"
                ) from None

    def _takes_null(self) -> bool:
        kind = get_args(self._arguments.kind)[0]
        return kind is Any or kind is None or type(None) in get_args(kind)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        missing = object()
        bound = [*args, *([missing] * (len(self.names) - len(args)))]
        for name, value in kwargs.items():
            if name not in self.names:
                raise TypeError(f"{self.where} has no parameter {name!r}; it has {self._listed()}")
            if bound[self.names.index(name)] is not missing:
                raise TypeError(f"{self.where} got parameter {name!r} twice")
            bound[self.names.index(name)] = value
        if len(bound) > len(self.names):
            raise TypeError(f"{self.where} takes {self._listed()}, but got {len(args)} arguments")
        for index, value in enumerate(bound):
            if value is missing:
                if index < self._required:
                    raise TypeError(f"{self.where} lacks its argument {self.names[index]!r}")
                bound[index] = self._defaults[index - self._required]
        return tuple(bound)

    def _listed(self) -> str:
        return ", ".join(self.names) or "no parameters"

    def _named(self, message: str) -> str:
        for index, name in enumerate(self.names):
            message = message.replace(f"`$[{index}]", f"`{name}")
        return message


def _input_codec(
    names: tuple[str, ...], kinds: list[Any], required: int, defaults: tuple[Any, ...], where: str
) -> Codec:
    match len(names):
        case 0:
            return Codec(None, where)
        case 1:
            return Codec(kinds[0] | None if defaults and kinds[0] is not Any else kinds[0], where)
        case _:
            fields: list[Any] = list(zip(names[:required], kinds, strict=False))
            for name, kind, default in zip(names[required:], kinds[required:], defaults, strict=True):
                fields.append((name, kind, msgspec.field(default_factory=partial(copy.deepcopy, default))))
            try:
                struct = msgspec.defstruct("Input", fields, forbid_unknown_fields=True, kw_only=True)
            except TypeError as error:
                raise InvalidDefinition(f"{where}: {error}") from None
            return Codec(struct, where)


def result_kind(kind: Any) -> Any:
    """The type that an annotation promises once it is awaited."""
    if get_origin(kind) in (Awaitable, Coroutine):
        return get_args(kind)[-1]
    return kind


def unknown_field(raw: Any, value: Any) -> str | None:
    """The path of a field in the raw JSON that the decoded value's types do not have; None if there is none."""
    return next(_unknown_fields(raw, value, ""), None)


def _unknown_fields(raw: Any, value: Any, path: str) -> Iterator[str]:
    if isinstance(raw, list) and isinstance(value, list | tuple):
        pairs = zip(cast("list[Any]", raw), cast("list[Any]", value), strict=False)
        for index, (inner, item) in enumerate(pairs):
            yield from _unknown_fields(inner, item, f"{path}[{index}]")
    elif isinstance(raw, dict) and (fields := _fields_of(value)) is not None:
        for name, inner in cast("dict[str, Any]", raw).items():
            if name in fields:
                yield from _unknown_fields(inner, fields[name], f"{path}.{name}")
            elif not isinstance(value, dict):
                yield f"{path}.{name}"


def _fields_of(value: Any) -> dict[str, Any] | None:
    """The values inside of `value` by the names that they have in JSON; None if it has no such parts."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if isinstance(value, msgspec.Struct):
        fields = {field.encode_name: getattr(value, field.name) for field in msgspec.structs.fields(value)}
        tag = value.__struct_config__.tag_field
        return fields if tag is None else fields | {tag: None}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None
