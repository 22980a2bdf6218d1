"""The memory of QEMU's ELF dump as raw and LiME files.

    make-simple.py raw|lime ELF OUT    only memory below 4 GiB that starts with the guest's RAM: no firmware

LiME: magic, version 1, first and last address (inclusive), 8 reserved bytes; then the bytes (LiME, lime.h).
"""
import struct
import sys

kind, source, target = sys.argv[1:]
with open(source, 'rb') as file, open(target, 'wb') as out:
    head = file.read(64)
    phoff, = struct.unpack_from('<Q', head, 32)
    size, count = struct.unpack_from('<HH', head, 54)
    for i in range(count):
        file.seek(phoff + i * size)
        kind_of, _, offset, _, paddr, filesz = struct.unpack_from('<IIQQQQ', file.read(size))
        if kind_of != 1 or paddr >= 0xC0000000:
            continue
        if kind == 'lime':
            out.write(struct.pack('<IIQQ8x', 0x4C694D45, 1, paddr, paddr + filesz - 1))
        else:
            out.seek(paddr)
        file.seek(offset)
        while filesz > 0:
            piece = file.read(min(filesz, 1 << 20))
            out.write(piece)
            filesz -= len(piece)
