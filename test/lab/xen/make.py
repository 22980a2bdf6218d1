#!/usr/bin/env python3
"""Turns an ELF dump of a real guest (QEMU's dump-guest-memory, x86-64) into what `xl dump-core` would write of it.

    make.py ELF OUT hvm
    make.py ELF OUT pv TOP…      TOP: frames of top page tables, in hex: those of the kernel and of all its processes

Prints how many frames the guest has. hvm: `.xen_pfn`, with entries for no page at the end, as xl leaves them. pv: `.xen_p2m` with
the machine frames shuffled, and the page tables as Xen has them: machine frames in all entries, pages of 4 KiB only (tables
for that are added behind the guest's memory), tables mapped read-only, Xen's own slots in the top ones.

Written from Xen's docs/misc/dump-core-format.txt and public headers (xen.h, arch-x86/xen-x86_64.h), layout as seen of xl 4.17.
Shares nothing with the reader that it tests. Only the standard library.
"""
import random
import struct
import sys

PAGE = 4096
NONE = 2**64 - 1
INVALID = 27
# Far above what devices have: entries for those lead to no page of the guest.
MACHINE = 0x1000000
PRESENT, WRITABLE, LARGE = 1, 2, 0x80
FRAME = 0x000ffffffffff000
PAT_OF_LARGE = 1 << 12
XEN_SLOTS = range(256, 272)
GENERAL = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi".split()


class Dump:
    """Memory from address 0 to its first gap, and registers."""

    def __init__(self, path):
        self.file = open(path, "rb")
        head = self.file.read(64)
        table, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        self.file.seek(table)
        headers = self.file.read(size * count)
        loads, self.cpus, self.frames = [], [], {}
        for i in range(count):
            kind, _, offset, _, address, length = struct.unpack_from("<IIQQQQ", headers, i * size)
            if kind == 4:
                self.file.seek(offset)
                self.cpus += list(cpu_states(self.file.read(length)))
            elif kind == 1:
                loads.append((address, offset, length))
        end = 0
        for address, offset, length in sorted(loads):
            if address == end:
                end += length
                for at in range(0, length, PAGE):
                    self.frames[(address + at) // PAGE] = offset + at

    def page(self, frame):
        self.file.seek(self.frames[frame])
        return self.file.read(PAGE)


def cpu_states(notes):
    """Registers of the notes "QEMU" (QEMUCPUState of target/i386/arch_dump.c, version 1)."""
    at = 0
    while at + 12 <= len(notes):
        owner, length, _ = struct.unpack_from("<III", notes, at)
        name = notes[at + 12:at + 12 + owner]
        at += 12 + (owner + 3 & ~3)
        if name == b"QEMU\0":
            names = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()
            cpu = dict(zip(names, struct.unpack_from("<18Q", notes, at + 8)))
            for i, segment in enumerate("cs ds es fs gs ss".split()):
                cpu[segment], cpu[segment + "_base"] = struct.unpack_from("<I12xQ", notes, at + 152 + 24 * i)
            cpu["control"] = struct.unpack_from("<5Q", notes, at + 392)
            cpu["kernel_gs_base"], = struct.unpack_from("<Q", notes, at + 432)
            yield cpu
        at += length + 3 & ~3


class ParavirtualTables:
    """The guest's page tables, made over for Xen: `pages` holds what they become."""

    def __init__(self, dump, tops):
        self.dump, self.pages, self.level_of = dump, {}, {}
        self.next_frame = max(dump.frames) + 1
        for top in tops:
            self.take(top, 4)

    def take(self, frame, level):
        if frame in self.level_of:
            assert self.level_of[frame] == level, f"frame {frame:#x} is a table of two levels"
            return
        self.level_of[frame] = level
        entries = self.pages[frame] = list(struct.unpack("<512Q", self.dump.page(frame)))
        for slot, entry in enumerate(entries):
            if level == 1 or not entry & PRESENT:
                continue
            if level < 4 and entry & LARGE:
                assert level == 2, f"frame {frame:#x} maps a page of 1 GiB"
                entries[slot] = self.split(entry)
            elif (entry & FRAME) // PAGE in self.dump.frames:
                self.take((entry & FRAME) // PAGE, level - 1)

    def split(self, entry):
        """A table of small pages instead of a large one: the bit that says large is another in small ones."""
        first = entry & FRAME & ~0x1fffff
        flags = entry & ~FRAME & ~LARGE | (LARGE if entry & PAT_OF_LARGE else 0)
        frame, self.next_frame = self.next_frame, self.next_frame + 1
        self.level_of[frame] = 1
        self.pages[frame] = [first + PAGE * i | flags for i in range(512)]
        return frame * PAGE | entry & ~FRAME & ~LARGE | WRITABLE

    def finish(self, machine_of):
        for frame, entries in self.pages.items():
            level = self.level_of[frame]
            if level == 4:
                for slot in XEN_SLOTS:
                    assert entries[slot] == 0, f"slot {slot} of top table {frame:#x} is in use"
                    entries[slot] = (0x77000 + slot) * PAGE | 0x63
            for slot, entry in enumerate(entries):
                target = (entry & FRAME) // PAGE
                if not entry & PRESENT or target not in machine_of or level == 4 and slot in XEN_SLOTS:
                    continue
                if level == 1 and target in self.level_of:
                    entry &= ~WRITABLE
                entries[slot] = entry & ~FRAME | machine_of[target] * PAGE


def context(cpu, machine_of):
    """struct vcpu_guest_context of 64 bits. @param machine_of: of PV guests"""
    out = bytearray(5168)
    in_kernel = cpu["cs"] & 3 == 0
    struct.pack_into("<Q", out, 512, 0x20 | (4 if in_kernel else 0))
    struct.pack_into("<15Q", out, 520, *[cpu[name] for name in GENERAL])
    cs, ss = (0xe033, 0xe02b) if machine_of and in_kernel else (cpu["cs"], cpu["ss"])
    struct.pack_into("<QHxxxxxxQQHxxxxxx", out, 648, cpu["rip"], cs, cpu["rflags"], cpu["rsp"], ss)
    struct.pack_into("<4Q", out, 688, cpu["es"], cpu["ds"], cpu["fs"], cpu["gs"])
    control = list(cpu["control"])
    if machine_of:
        control[1], control[3] = 0, machine_of[control[3] // PAGE] * PAGE
    struct.pack_into("<5Q", out, 4984, *control)
    bases = [cpu["gs_base"], cpu["kernel_gs_base"]]
    struct.pack_into("<3Q", out, 5144, cpu["fs_base"], *(bases if in_kernel else reversed(bases)))
    return bytes(out)


def note(kind, desc):
    return struct.pack("<III4s", 4, len(desc), kind, b"Xen\0") + desc


def main(source, target, kind, *tops):
    dump = Dump(source)
    is_pv = kind == "pv"
    tables = ParavirtualTables(dump, [int(top, 16) for top in tops]) if is_pv else None
    frames = sorted(set(dump.frames) | set(tables.pages if tables else ()))
    machine_of = {}
    if tables:
        machines = [MACHINE + i for i in range(len(frames))]
        random.Random(20).shuffle(machines)
        machine_of = dict(zip(frames, machines))
        tables.finish(machine_of)
    invalid = 0 if is_pv else INVALID
    header = struct.pack("<4Q", 0xf00febed if is_pv else 0xf00febee, len(dump.cpus), len(frames) + invalid, PAGE)
    version = struct.pack("<QQ16s", 4, 17, b".7").ljust(1280, b"\0")
    parts = [
        (".note.Xen", 7, 0, note(0x2000000, b"") + note(0x2000001, header) + note(0x2000002, version)
         + note(0x2000003, struct.pack("<Q", 1))),
        (".xen_prstatus", 1, 5168, b"".join(context(cpu, machine_of) for cpu in dump.cpus)),
        (".xen_shared_info", 1, PAGE, bytes(PAGE)),
    ]
    if is_pv:
        table = b"".join(struct.pack("<QQ", frame, machine_of[frame]) for frame in frames)
    else:
        table = struct.pack(f"<{len(frames) + invalid}Q", *frames, *[NONE] * invalid)
    sections, end = [], 64 + 64 * 7
    for name, number, entsize, data in parts:
        sections.append((name, number, end, len(data), entsize))
        end += len(data)
    pages_at = -(-end // PAGE) * PAGE
    table_at = pages_at + (len(frames) + invalid) * PAGE
    sections.append((".xen_pages", 1, pages_at, table_at - pages_at, PAGE))
    sections.append((".xen_p2m" if is_pv else ".xen_pfn", 1, table_at, len(table), 16 if is_pv else 8))
    names = b"\0.shstrtab\0" + b"".join(name.encode() + b"\0" for name, *_ in sections)
    sections.insert(0, (".shstrtab", 3, table_at + len(table), len(names), 0))
    with open(target, "wb") as out:
        out.write(b"\x7fELF\x02\x01\x01\0\x01".ljust(16, b"\0")
                  + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 7, 1) + bytes(64))
        for name, number, at, size, entsize in sections:
            out.write(struct.pack("<IIQQQQIIQQ", names.index(name.encode() + b"\0"), number, 0, 0, at, size, 0, 0, 0, entsize))
        for *_, data in parts:
            out.write(data)
        for i, frame in enumerate(frames):
            changed = tables and tables.pages.get(frame)
            content = struct.pack("<512Q", *changed) if changed else dump.page(frame)
            if content.count(0) != PAGE:
                out.seek(pages_at + i * PAGE)
                out.write(content)
        out.seek(table_at)
        out.write(table + names)
    print(max(frames) + 1)


main(*sys.argv[1:])
