"""The parameters of a step, workflow, signal or query as JSON: encoded, decoded, checked by their annotations."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from jivsd.authoring.errors import InvalidDefinition, InvalidValue


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

    __slots__ = ("_decoder", "kind")

    def __init__(self, kind: Any, where: str) -> None:
        self.kind = kind
        try:
            self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
        except Exception as error:  # msgspec names many reasons, in several exception types
            raise InvalidDefinition(f"{where}: {_shown(kind)} has no JSON form: {error}") from None

    def decode(self, data: bytes | msgspec.Raw) -> Any:
        """Raises msgspec.ValidationError or msgspec.DecodeError."""
        return self._decoder.decode(data)


def _shown(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


class Signature:
    """The parameters of a function behind its first `skip` ones (self, ctx), and its result.

    Raises:
        InvalidDefinition: `*args`, `**kwargs` or keyword-only parameters, or a type without a JSON form.
    """

    __slots__ = ("_arguments", "_defaults", "_inputs", "_required", "names", "result", "where")

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
            return msgspec.json.encode(args)
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
            return msgspec.json.encode(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"{self.where}: an argument has no JSON form: {error}") from None

    def decode_input(self, data: bytes, *, strict: bool = False) -> tuple[Any, ...]:
        """Decode an input into arguments; `strict` also refuses fields that the types do not have.

        Raises:
            InvalidValue: it does not fit; the message names the field.
        """
        try:
            value = self._inputs.decode(data)
        except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
            raise InvalidValue(f"{self.where}: invalid input: {error}") from None
        if strict and (extra := unknown_field(msgspec.json.decode(data), value)) is not None:
            raise InvalidValue(f"{self.where}: invalid input: unknown field - at `${extra}`")
        if not self.names:
            return ()
        if len(self.names) == 1:
            if value is None and data.strip() == b"null" and self._defaults and not self._takes_null():
                return self._defaults
            return (value,)
        return tuple(getattr(value, name) for name in self.names)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of an input."""
        return msgspec.json.schema(self._inputs.kind)

    def struct_fields(self) -> set[str]:
        """The fields of the one parameter, if there is one and it is a struct."""
        kinds = get_args(self._arguments.kind)
        if len(self.names) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], msgspec.Struct):
            return set(kinds[0].__struct_fields__)
        return set()

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
                fields.append((name, kind, msgspec.field(default_factory=lambda value=default: value)))
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


def unknown_field(raw: Any, value: Any, path: str = "") -> str | None:
    """The path of a field in the raw JSON that the decoded value's structs do not have; None if there is none."""
    if isinstance(value, msgspec.Struct) and isinstance(raw, dict):
        fields = {field.encode_name: field.name for field in msgspec.structs.fields(value)}
        tag = value.__struct_config__.tag_field
        for name, inner in raw.items():
            if name in fields:
                found = unknown_field(inner, getattr(value, fields[name]), f"{path}.{name}")
            else:
                found = None if name == tag else f"{path}.{name}"
            if found is not None:
                return found
    elif isinstance(value, (list, tuple)) and isinstance(raw, list):
        for index, (inner, item) in enumerate(zip(raw, value, strict=False)):
            if (found := unknown_field(inner, item, f"{path}[{index}]")) is not None:
                return found
    elif isinstance(value, dict) and isinstance(raw, dict):
        for name, inner in raw.items():
            if name in value and (found := unknown_field(inner, value[name], f"{path}.{name}")) is not None:
                return found
    return None
