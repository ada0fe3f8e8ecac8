"""TFRecord files of ``tf.train.Example`` messages, without TensorFlow.

A file is a row of records: length (uint64), CRC of the length, that many bytes, CRC of the bytes. The bytes
are a protocol buffer; its message types are declared here for the ``protobuf`` package. The CRC is
a masked CRC-32C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ..utils.errors import UserError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {  # name: (field, number, type); "*" = repeated
    "BytesList": [("value", 1, "bytes*")],
    "FloatList": [("value", 1, "float*")],
    "Int64List": [("value", 1, "int64*")],
    "Feature": [
        ("bytes_list", 1, "BytesList"),
        ("float_list", 2, "FloatList"),
        ("int64_list", 3, "Int64List"),
    ],
    "Entry": [("key", 1, "string"), ("value", 2, "Feature")],
    "Features": [("feature", 1, "Entry*")],  # on disk a map is a list of entries
    "Example": [("features", 1, "Features")],
}


def _masked_crc32c(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tcmr", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            label = _FIELD.LABEL_REPEATED if kind.endswith("*") else _FIELD.LABEL_OPTIONAL
            declared = message.field.add(name=field, number=number, label=label)
            kind = kind.rstrip("*")
            if kind in _MESSAGES:
                declared.type, declared.type_name = _FIELD.TYPE_MESSAGE, f".tcmr.{kind}"
            else:
                declared.type = _FIELD.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tcmr.Example"))


Example = _example_class()
"""The message class of ``tf.train.Example``; ``features.feature`` is a list of entries with key and value."""


@dataclass(frozen=True)
class Record:
    """Where a record lies: its bytes start at ``offset`` of ``path``; ``index`` counts from 0."""

    path: Path
    index: int
    offset: int
    length: int

    def read(self) -> dict[str, Any]:
        """Features of the record by name: float32 or int64 arrays (n,), or lists of bytes.

        Raises:
            UserError: the record is damaged.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data, footer = file.read(self.length), file.read(_FOOTER.size)
        if footer != _FOOTER.pack(_masked_crc32c(data)):
            raise self._damaged("its checksum differs")
        try:
            example = Example.FromString(data)
        except DecodeError as error:
            raise self._damaged(f"it holds no tf.train.Example: {error}") from error
        return {entry.key: _value(entry.value) for entry in example.features.feature}

    def _damaged(self, reason: str) -> UserError:
        return UserError(f"{self.path}: record {self.index} is damaged ({reason}); download the file again")


def _value(feature: Any) -> Any:
    if feature.bytes_list.value:
        return list(feature.bytes_list.value)
    if feature.int64_list.value:
        return np.array(feature.int64_list.value, np.int64)
    return np.array(feature.float_list.value, np.float32)


def list_records(path: Path) -> Iterator[Record]:
    """The records of a file, found by reading only their lengths.

    Raises:
        UserError: the file is cut off, or no TFRecord file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = index = 0
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size or _HEADER.unpack(header)[1] != _masked_crc32c(header[:8]):
                raise UserError(
                    f"{path}: no TFRecord at byte {offset}; the file is damaged or of another format"
                )
            length = _HEADER.unpack(header)[0]
            offset += _HEADER.size
            record = Record(path, index, offset, length)
            offset += length + _FOOTER.size
            if offset > size:
                raise UserError(f"{path}: record {index} is cut off; download the file again")
            yield record
            index += 1
