"""Digests of a file's pages, by readers that share nothing with ours: plain Python for ELF, raw and Xen cores, libkdumpfile for
what it opens.

    page-digests.py elf|raw|kdumpfile FILE FIRST COUNT    one digest a page of 4096 bytes, `-` for one that is not there
    page-digests.py xen FILE FIRST COUNT TOP…             the same of a Xen core. TOP: frames of top page tables of a PV guest, in hex:
                                                          all that they lead to are page tables, read with guest frames in their entries
    page-digests.py registers FILE                        JSON: of each NT_PRSTATUS of an ELF core the registers, of each QEMU note all
"""
import hashlib
import json
import os
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
                return os.pread(file.fileno(), PAGE, offset + address - paddr)
        return None
    if len(loads) < 100:
        return read
    starts = [paddr for paddr, _, _ in loads]
    import bisect
    def read_many(address):
        i = bisect.bisect_right(starts, address) - 1
        if i < 0 or address + PAGE > loads[i][0] + loads[i][2]:
            return None
        return os.pread(file.fileno(), PAGE, loads[i][1] + address - loads[i][0])
    return read_many


def raw_reader(path):
    file = open(path, 'rb')
    def read(address):
        page = os.pread(file.fileno(), PAGE, address)
        return page if len(page) == PAGE else None
    return read


def xen_reader(path, tops):
    file = open(path, 'rb')
    def at(offset, size):
        return os.pread(file.fileno(), size, offset)
    shoff, = struct.unpack('<Q', at(40, 8))
    count, names = struct.unpack('<HH', at(60, 4))
    sections = [struct.unpack('<IIQQQQIIQQ', at(shoff + 64 * i, 64)) for i in range(count)]
    strings = at(*sections[names][4:6])
    place = {strings[s[0]:strings.index(b'\0', s[0])].decode(): s[4:6] for s in sections}
    is_pv = '.xen_p2m' in place
    table = at(*place['.xen_p2m' if is_pv else '.xen_pfn'])
    entries = list(struct.iter_unpack('<QQ', table)) if is_pv else [(frame, frame) for frame, in struct.iter_unpack('<Q', table)]
    index = {frame: i for i, (frame, _) in enumerate(entries) if frame != 2**64 - 1}
    frame_of = {machine: frame for frame, machine in entries}
    page = lambda frame: at(place['.xen_pages'][0] + index[frame] * PAGE, PAGE)
    tables = {}
    def take(frame, level):
        if frame in tables:
            return
        words = list(struct.unpack('<512Q', page(frame)))
        tables[frame] = words
        for slot, entry in enumerate(words):
            if not entry & 1:
                continue
            target = frame_of.get(entry >> 12 & 0xffffffffff)
            if target is None:
                words[slot] = entry & ~1 # not the guest's: as if it were not there, the number stays
                continue
            words[slot] = entry & ~0x000ffffffffff000 | target << 12
            # Slots 256 to 271 of top tables are Xen's
            if level > 1 and not (level == 4 and 256 <= slot < 272):
                if level < 4 and entry & 0x80:
                    raise SystemExit(f'frame {frame:#x} maps a large page: no PV guest can')
                take(target, level - 1)
    for top in tops:
        take(int(top, 16), 4)
    def read(address):
        frame = address // PAGE
        if frame in tables:
            return struct.pack('<512Q', *tables[frame])
        return page(frame) if frame in index else None
    return read


def kdumpfile_reader(path):
    import kdumpfile
    dump = kdumpfile.kdumpfile(path)
    # Of a Xen core it knows machine addresses, too
    space = kdumpfile.KDUMP_KPHYSADDR if dump.attr['file.format'] == 'xc_core_elf' else kdumpfile.KDUMP_MACHPHYSADDR
    def read(address):
        try:
            return dump.read(space, address, PAGE)
        except kdumpfile.exceptions.NoDataException:
            return None
    return read


def digests(read, first, count):
    empty = bytes(PAGE)
    zero = hashlib.blake2b(empty, digest_size=8).hexdigest()
    lines = []
    for page in range(first, first + count):
        content = read(page * PAGE)
        if content is None:
            lines.append('-')
        elif content == empty:
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
    kind, path, first, count, *tops = sys.argv[1:]
    readers = {'elf': elf_reader, 'raw': raw_reader, 'kdumpfile': kdumpfile_reader, 'xen': lambda path: xen_reader(path, tops)}
    digests(readers[kind](path), int(first), int(count))
