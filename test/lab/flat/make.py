#!/usr/bin/python3
"""Turns an ELF core into what acquisition tools write of the same memory. Shares nothing with src/ or the test builders.

make.py CORE OUT lime      LiME, format=lime: a header and the bytes of each range
make.py CORE OUT avml      AVML --compress: blocks of 16 MiB as snappy streams, blocks of zeros left out
make.py CORE OUT ram       RAM without its holes, the part above 1 MiB first; prints the map

References: LiME doc/README.md; AVML src/image.rs; google/snappy framing_format.txt.
"""

import ctypes
import os
import struct
import subprocess
import sys
import tempfile

BLOCK = 16 << 20
MIB = 1 << 20


def ranges(core):
    """RAM below the firmware, as (address, bytes), touching loads joined."""
    data = open(core, 'rb').read()
    (phoff,) = struct.unpack_from('<Q', data, 32)
    (count,) = struct.unpack_from('<H', data, 56)
    found = []
    for i in range(count):
        kind, _, offset, _, address, size = struct.unpack_from('<IIQQQQ', data, phoff + 56 * i)
        if kind != 1 or 0xfff00000 <= address < 1 << 32:
            continue
        if found and found[-1][0] + len(found[-1][1]) == address:
            found[-1][1].extend(data[offset:offset + size])
        else:
            found.append((address, bytearray(data[offset:offset + size])))
    return sorted(found)


def header(magic, version, address, size):
    return struct.pack('<4sIQQQ', magic, version, address, address + size - 1, 0)


def lime(memory, out):
    for address, data in memory:
        out.write(header(b'EMiL', 1, address, len(data)) + data)


CRC32C = """
#include <stdint.h>
#include <stddef.h>
uint32_t crc32c(const uint8_t *bytes, size_t size) {
  uint32_t crc = ~0u;
  for (size_t i = 0; i < size; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}
"""


def compiled():
    """By the definition, bit by bit: Python itself would take minutes."""
    with tempfile.TemporaryDirectory() as folder:
        library = os.path.join(folder, 'crc32c.so')
        subprocess.run(['gcc', '-O2', '-shared', '-fPIC', '-xc', '-', '-o', library], input=CRC32C.encode(), check=True)
        function = ctypes.CDLL(library).crc32c
    function.restype = ctypes.c_uint32
    return function


def masked_crc32c(data):
    global checksum
    checksum = checksum or compiled()
    crc = checksum(data, ctypes.c_size_t(len(data)))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


checksum = None


def snappy_stream(data):
    library, room = ctypes.CDLL('libsnappy.so.1'), ctypes.create_string_buffer(1 << 17)
    stream = [b'\xff\x06\0\0sNaPpY']
    for at in range(0, len(data), 65536):
        chunk, got = bytes(data[at:at + 65536]), ctypes.c_size_t(1 << 17)
        assert library.snappy_compress(chunk, ctypes.c_size_t(len(chunk)), room, ctypes.byref(got)) == 0
        packed = room.raw[:got.value]
        # snap's writer stores a chunk that shrinks by less than an eighth.
        kind, body = (0, packed) if len(packed) < len(chunk) - len(chunk) // 8 else (1, chunk)
        stream.append(struct.pack('<I', kind | len(body) + 4 << 8) + struct.pack('<I', masked_crc32c(chunk)) + body)
    return b''.join(stream)


def avml(memory, out):
    for address, data in memory:
        for at in range(0, len(data), BLOCK):
            block = data[at:at + BLOCK]
            if not any(block):
                continue
            stream = snappy_stream(block)
            out.write(header(b'AVML', 2, address + at, len(block)) + stream + struct.pack('<Q', len(stream)))


def ram(memory, out):
    high = [(address, data) for address, data in memory if address >= MIB]
    low = [(address, data) for address, data in memory if address < MIB]
    parts = []
    for address, data in high + low:
        parts.append('0x%x:%d' % (address, len(data)))
        out.write(data)
    print(','.join(parts))


if __name__ == '__main__':
    _, core, path, kind = sys.argv
    with open(path, 'wb') as out:
        {'lime': lime, 'avml': avml, 'ram': ram}[kind](ranges(core), out)
