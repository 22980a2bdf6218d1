"""Which pages a dump level leaves out, by plain Python: a judge for kernels that makedumpfile does not know.

    page-levels.py ELF OUT LEVEL…    writes OUT.LEVEL: one bit a page, set where it is left out; zero pages don't count

The ELF file must carry the guest's VMCOREINFO as a note. The rules are those of makedumpfile's README and
IMPLEMENTATION (1.7.6) and of the kernel's page-flags.h; x86-64 and aarch64 with pages of 4 KiB.
"""
import mmap
import struct
import sys

PAGE = 4096
LOADS, INFO = [], {}


def open_elf(path):
    with open(path, 'rb') as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    phoff, = struct.unpack_from('<Q', data, 32)
    size, count = struct.unpack_from('<HH', data, 54)
    for i in range(count):
        kind, _, offset, _, paddr, filesz = struct.unpack_from('<IIQQQQ', data, phoff + i * size)
        if kind == 1 and filesz:
            LOADS.append((paddr, filesz, offset))
        elif kind == 4:
            # namesz, descsz, type, then the padded name; the text ends with its size, by no zero
            start = data.find(b'VMCOREINFO\0\0OSRELEASE=', offset, offset + filesz)
            length, = struct.unpack_from('<I', data, start - 8)
            for line in data[start + 12:start + 12 + length].rstrip(b'\0').decode().splitlines():
                key, _, value = line.partition('=')
                INFO[key] = value
    LOADS.sort()
    return data


def physical(address, length):
    for paddr, filesz, offset in LOADS:
        if paddr <= address and address + length <= paddr + filesz:
            at = offset + address - paddr
            return DATA[at:at + length]
    return None


def symbol(name):
    return int(INFO[f'SYMBOL({name})'], 16)


def number(name, default=None):
    text = INFO.get(f'NUMBER({name})')
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        return int(text, 16)


def walk_x86():
    root = symbol('swapper_pg_dir') - 0xffffffff80000000 + number('phys_base')
    shifts = [48, 39, 30, 21, 12] if number('pgtable_l5_enabled', 0) else [39, 30, 21, 12]
    def translate(address):
        table = root
        for shift in shifts:
            entry, = struct.unpack('<Q', physical(table + (address >> shift & 511) * 8, 8))
            if not entry & 1:
                return None
            table = entry & 0x000ffffffffff000
            if shift == 12 or entry & 0x80 and shift <= 30:
                return (table & ~((1 << shift) - 1)) | address & ((1 << shift) - 1)
    return translate


def walk_arm64():
    root = (symbol('swapper_pg_dir') - number('kimage_voffset')) % 2**64
    bits = 64 - number('TCR_EL1_T1SZ')
    wide = bits > 48 # LPA2: bits 9:8 of an entry are address bits 51:50
    shifts = [48, 39, 30, 21, 12] if wide else [39, 30, 21, 12]
    def translate(address):
        table = root
        for i, shift in enumerate(shifts):
            index = address >> shift & ((1 << bits - shift) - 1 if i == 0 else 511)
            entry, = struct.unpack('<Q', physical(table + index * 8, 8))
            if not entry & 1:
                return None
            table = entry & (0x0003fffffffff000 if wide else 0x0000fffffffff000)
            if wide:
                table |= (entry >> 8 & 3) << 50
            if shift == 12 or not entry & 2:
                return (table & ~((1 << shift) - 1)) | address & ((1 << shift) - 1)
    return translate


def virtual(address, length):
    out = bytearray()
    while length:
        part = min(length, PAGE - address % PAGE)
        at = TRANSLATE(address)
        out += (physical(at, part) if at is not None else None) or bytes(part)
        address, length = address + part, length - part
    return bytes(out)


def sections():
    """(first page, struct pages) of each section that has memory."""
    bits, size = number('SECTION_SIZE_BITS', 27), int(INFO['SIZE(mem_section)'])
    per_root, pages = PAGE // size, 1 << bits - 12
    top = max(paddr + filesz for paddr, filesz, _ in LOADS) // PAGE
    for root in range(-(-top // pages // per_root) + 1):
        at, = struct.unpack('<Q', virtual(symbol('mem_section') + root * 8, 8))
        if not at:
            continue
        table = virtual(at, PAGE)
        for i in range(per_root):
            value, = struct.unpack_from('<Q', table, i * size)
            nr = root * per_root + i
            if value & 3 == 3 and nr * pages < top:
                start = (value & ~63) + nr * pages * STRUCT & 2**64 - 1
                yield nr * pages, virtual(start, pages * STRUCT)


def flag(name):
    bit = number(name)
    return 0 if bit is None else 1 << bit


def mapcount(name):
    value = number(name)
    return None if value is None else (value + 2**31) % 2**32 - 2**31


def left_out(level):
    """Yields (first, count) of blocks."""
    lru, private, swapcache, backed, slab_flag, poison = map(flag, (
        'PG_lru', 'PG_private', 'PG_swapcache', 'PG_swapbacked', 'PG_slab', 'PG_hwpoison'))
    head_mask = number('PG_head_mask')
    slab_type, buddy, offline, unaccepted, huge_type = map(mapcount, (
        'PAGE_SLAB_MAPCOUNT_VALUE', 'PAGE_BUDDY_MAPCOUNT_VALUE', 'PAGE_OFFLINE_MAPCOUNT_VALUE',
        'PAGE_UNACCEPTED_MAPCOUNT_VALUE', 'PAGE_HUGETLB_MAPCOUNT_VALUE'))
    field = lambda name: int(INFO[f'OFFSET(page.{name})'])
    o_flags, o_map, o_mapping, o_private = map(field, ('flags', '_mapcount', 'mapping', 'private'))
    o_head = field('compound_head' if 'OFFSET(page.compound_head)' in INFO else 'compound_info')
    orders = int(INFO['LENGTH(zone.free_area)'])
    if not level & 14 and not poison and not (level & 16 and buddy is not None):
        return
    for first, array in SECTIONS:
        count, skip = len(array) // STRUCT, 0
        for i in range(count):
            if i < skip:
                continue
            base = i * STRUCT
            flags, = struct.unpack_from('<Q', array, base + o_flags)
            kind, = struct.unpack_from('<i', array, base + o_map)
            mapping, = struct.unpack_from('<Q', array, base + o_mapping)
            if struct.unpack_from('<Q', array, base + o_head)[0] & 1:
                continue
            slab = kind == slab_type if slab_type is not None else bool(flags & slab_flag)
            order, huge = 0, False
            if flags & head_mask and i + 1 < count:
                second, = struct.unpack_from('<Q', array, base + STRUCT + o_flags)
                if huge_type is not None:
                    order, huge = second & 255, kind == huge_type
                elif number('PG_hugetlb') is not None:
                    order, huge = second & 255, bool(second & flag('PG_hugetlb'))
                else:
                    order = array[base + STRUCT + field('compound_order')]
                    huge = array[base + STRUCT + field('compound_dtor')] == number('HUGETLB_PAGE_DTOR')
            anon = mapping & 1 and not slab
            cache = flags & lru or flags & swapcache and (flags & backed or not backed)
            if level & 16 and not slab and kind == buddy:
                order, = struct.unpack_from('<Q', array, base + o_private)
                if order >= orders:
                    continue
            elif level & 16 and kind == unaccepted and kind is not None:
                order = orders - 1
            elif level & 2 and cache and not flags & private and not anon or level & 4 and cache and not anon:
                pass
            elif level & 8 and (anon or huge):
                pass
            elif flags & poison or not slab and kind == offline and kind is not None:
                pass
            else:
                continue
            skip = i + (1 << order)
            yield first + i, 1 << order


DATA = open_elf(sys.argv[1])
TRANSLATE = walk_arm64() if number('kimage_voffset') is not None else walk_x86()
STRUCT = int(INFO['SIZE(page)'])
SECTIONS = list(sections())
LIMIT = max(paddr + filesz for paddr, filesz, _ in LOADS) // PAGE
for level in map(int, sys.argv[3:]):
    bitmap = bytearray(LIMIT // 8 + 1)
    for start, length in left_out(level):
        for page in range(start, min(start + length, LIMIT)):
            bitmap[page >> 3] |= 1 << (page & 7)
    with open(f'{sys.argv[2]}.{level}', 'wb') as out:
        out.write(bitmap)
