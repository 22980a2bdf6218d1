"""Digests of a file's pages, by readers that share nothing with ours: plain Python for ELF and raw, libkdumpfile for what it opens.

    page-digests.py elf|raw|kdumpfile FILE FIRST COUNT    one digest a page of 4096 bytes, `-` for one that is not there
    page-digests.py registers FILE                        JSON: of each NT_PRSTATUS of an ELF core the registers, of each QEMU note all
"""
import hashlib
import json
import struct
import sys

PAGE = 4096


def program_headers(file):
    """(type, offset, paddr, filesz) of an ELF64 core with fewer than 0xffff of them."""
    head = file.read(64)
    if head[:6] != b'\x7fELF\x02\x01':
        raise SystemExit('no 64-bit little-endian ELF file')
    phoff, = struct.unpack_from('<Q', head, 32)
    size, count = struct.unpack_from('<HH', head, 54)
    file.seek(phoff)
    table = file.read(size * count)
    for at in range(0, size * count, size):
        kind, _, offset, _, paddr, filesz = struct.unpack_from('<IIQQQQ', table, at)
        yield kind, offset, paddr, filesz


def elf_reader(path):
    file = open(path, 'rb')
    loads = sorted((paddr, offset, filesz) for kind, offset, paddr, filesz in program_headers(file) if kind == 1 and filesz > 0)
    def read(address):
        for paddr, offset, filesz in loads:
            if paddr <= address and address + PAGE <= paddr + filesz:
                file.seek(offset + address - paddr)
                return file.read(PAGE)
        return None
    if len(loads) < 100:
        return read
    starts = [paddr for paddr, _, _ in loads]
    import bisect
    def read_many(address):
        i = bisect.bisect_right(starts, address) - 1
        if i < 0 or address + PAGE > loads[i][0] + loads[i][2]:
            return None
        file.seek(loads[i][1] + address - loads[i][0])
        return file.read(PAGE)
    return read_many


def raw_reader(path):
    file = open(path, 'rb')
    def read(address):
        file.seek(address)
        page = file.read(PAGE)
        return page if len(page) == PAGE else None
    return read


def kdumpfile_reader(path):
    import kdumpfile
    dump = kdumpfile.kdumpfile(path)
    def read(address):
        try:
            return dump.read(kdumpfile.KDUMP_MACHPHYSADDR, address, PAGE)
        except kdumpfile.exceptions.NoDataException:
            return None
    return read


def digests(read, first, count):
    zero = hashlib.blake2b(bytes(PAGE), digest_size=8).hexdigest()
    lines = []
    for page in range(first, first + count):
        content = read(page * PAGE)
        if content is None:
            lines.append('-')
        elif content.count(0) == PAGE:
            lines.append(zero)
        else:
            lines.append(hashlib.blake2b(content, digest_size=8).hexdigest())
    sys.stdout.write('\n'.join(lines))


def notes(path):
    with open(path, 'rb') as file:
        for kind, offset, _, filesz in list(program_headers(file)):
            if kind != 4:
                continue
            file.seek(offset)
            area, at = file.read(filesz), 0
            while at + 12 <= len(area):
                name, size, number = struct.unpack_from('<III', area, at)
                start = at + 12 + (name + 3 & ~3)
                yield area[at + 12:at + 12 + name].rstrip(b'\0').decode(), number, area[start:start + size]
                at = start + (size + 3 & ~3)


def registers(path):
    cores = [struct.unpack_from('<27Q', desc, 112) for owner, number, desc in notes(path) if owner == 'CORE' and number == 1]
    qemu = [desc.hex() for owner, _, desc in notes(path) if owner == 'QEMU']
    # Not orig_rax (15): no hypervisor has it.
    print(json.dumps({'cores': [[hex(word) for i, word in enumerate(words) if i != 15] for words in cores], 'qemu': qemu}))


if sys.argv[1] == 'registers':
    registers(sys.argv[2])
else:
    readers = {'elf': elf_reader, 'raw': raw_reader, 'kdumpfile': kdumpfile_reader}
    digests(readers[sys.argv[1]](sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
