#!/usr/bin/env python3
"""Turns an ELF dump of a real guest (QEMU's dump-guest-memory, x86-64) into VMware's files.

    make.py ELF OUT --kind vmss|vmsn [--memory inside|vmem] [--registers tags|blocks]
    make.py ELF OUT --kind guest [--version 4]

OUT has no ending: .vmss, .vmsn or .guest and, where memory stands apart, .vmem are added. Written from what crash and
volatility read, and shares nothing with the reader that it tests; crash opens what it makes. Only the standard library.
"""
import argparse
import os
import struct

PAGE = 4096
# What QEMU's dump has between 3 and 4 GiB are devices (video memory, flash); VMware's files have none.
DEVICES = range(0xC0000000, 0x100000000)
# The hole for video memory and option ROMs below 1 MiB is stored, as zeros.
SMALL_GAP = 1 << 20
ZEROS = bytes(65536)
GENERAL = "rax rcx rdx rbx rbp rsp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
SEGMENTS = "es cs ss ds fs gs ldt tr".split()
PT_REGS = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig rip cs rflags rsp ss "
           "fs_base gs_base ds es fs gs").split()


class Dump:
    """Memory and registers of an ELF64 core with few segments."""

    def __init__(self, path):
        self.file = open(path, "rb")
        head = self.file.read(64)
        assert head[:6] == b"\x7fELF\x02\x01", "not a 64-bit little-endian ELF file"
        table, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        self.loads, self.cpus = [], []
        for i in range(count):
            self.file.seek(table + i * size)
            kind, _, offset, _, address, length = struct.unpack("<IIQQQQ", self.file.read(40))
            if kind == 4:
                self.file.seek(offset)
                self.cpus += list(cpu_states(self.file.read(length)))
            elif kind == 1 and length > 0 and address not in DEVICES:
                self.loads.append((address, length, offset))
        self.loads.sort()

    def runs(self):
        """Memory as VMware stores it: [first page, pages], one behind the other."""
        runs = []
        for address, length, _ in self.loads:
            first, end = address // PAGE, -(-(address + length) // PAGE)
            if runs and (first - runs[-1][0] - runs[-1][1]) * PAGE <= SMALL_GAP:
                runs[-1][1] = end - runs[-1][0]
            else:
                runs.append([first, end - first])
        return runs

    def copy(self, out, start):
        """All memory to `start` of a file; zeros become holes. Returns where it ends."""
        page = 0
        for first, pages in self.runs():
            for address, length, offset in self.loads:
                if first * PAGE <= address < (first + pages) * PAGE:
                    at = start + page * PAGE + address - first * PAGE
                    for done in range(0, length, 65536):
                        self.file.seek(offset + done)
                        data = self.file.read(min(65536, length - done))
                        if data != ZEROS[:len(data)]:
                            out.seek(at + done)
                            out.write(data)
            page += pages
        end = start + page * PAGE
        out.truncate(max(end, os.fstat(out.fileno()).st_size))
        return end


def cpu_states(notes):
    """Registers of the notes "QEMU" (QEMUCPUState of target/i386/arch_dump.c, version 1)."""
    at = 0
    while at + 12 <= len(notes):
        owner, length, _ = struct.unpack_from("<III", notes, at)
        name = notes[at + 12:at + 12 + owner]
        at += 12 + (owner + 3 & ~3)
        if name == b"QEMU\0":
            names = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()
            cpu = dict(zip(names, struct.unpack_from("<18Q", notes, at + 8)), orig=0)
            for i, segment in enumerate("cs ds es fs gs ss ldt tr gdt idt".split()):
                cpu[segment], limit, _, _, base = struct.unpack_from("<IIIIQ", notes, at + 152 + 24 * i)
                cpu.update({segment + "_limit": limit, segment + "_base": base})
            for i, value in enumerate(struct.unpack_from("<5Q", notes, at + 392)):
                cpu["cr%d" % i] = value
            yield cpu
        at += length + 3 & ~3


def tag(name, value, size, *indices):
    return head(name, size, indices) + (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def head(name, size, indices):
    return (struct.pack("<BB", len(indices) << 6 | size, len(name)) + name.encode()
            + struct.pack("<%dI" % len(indices), *indices))


def block(name, data, *indices, padding=0, stored=None):
    length = len(data) if stored is None else stored
    return head(name, 63, indices) + struct.pack("<QQH", length, length, padding) + bytes(padding) + data


def cpu_group(cpus, style):
    out = tag("cpu:numVCPUs", len(cpus), 4)
    for n, cpu in enumerate(cpus):
        out += tag("rip", cpu["rip"], 8, n) + tag("eflags", cpu["rflags"], 4, n) + tag("halted", 0, 1, n)
        if style == "blocks":
            out += block("gpregs", struct.pack("<16Q", *[cpu[name] for name in GENERAL]), n)
            out += block("CR64", struct.pack("<9Q", *[cpu["cr%d" % i] for i in range(5)], 0, 0, 0, 0), n)
            out += block("IDTR", struct.pack("<HQ", cpu["idt_limit"], cpu["idt_base"]), n)
        else:
            out += b"".join(tag(name, cpu[name], 8, n) for name in GENERAL)
            for i in range(5):
                out += tag("CR64", cpu["cr%d" % i], 8, n, i) + tag("CR", cpu["cr%d" % i], 4, n, i)
            for name in ("gdt", "idt"):
                out += tag(name.upper() + "R", cpu[name + "_limit"], 2, n, 0)
                out += tag(name.upper() + "R", cpu[name + "_base"], 4, n, 1)
                out += tag(name.upper() + "R", cpu[name + "_base"] >> 32, 4, n, 2)
        for i, segment in enumerate(SEGMENTS):
            out += tag("S", cpu[segment], 4, n, i) + tag("S.base64", cpu[segment + "_base"], 8, n, i)
    return out + b"\0\0"


def memory_group(runs):
    out, page = tag("align_mask", 0xFFFF, 4) + tag("regionsCount", len(runs), 4), 0
    for i, (first, pages) in enumerate(runs):
        out += tag("regionPageNum", page, 4, i) + tag("regionPPN", first, 4, i) + tag("regionSize", pages, 4, i)
        page += pages
    return out


def write_checkpoint(dump, path, kind, inside, style):
    runs = dump.runs()
    size = sum(pages for _, pages in runs) * PAGE
    text = lambda value: value.encode().ljust(256, b"\0")
    checkpoint = (tag("fileversion", 10, 4) + block("ProductName", text("VMware ESX"))
                  + block("VersionNumber", text("7.0.3")) + tag("memSize", size >> 20, 4) + b"\0\0")
    groups = [["Checkpoint", checkpoint], ["cpu", cpu_group(dump.cpus, style)]]
    if kind == "vmsn":
        groups.append(["Snapshot", block("cfgFile", b'displayName = "lab"\n') + b"\0\0"])
    # crash reads 6400 bytes for each group behind the header, and fails where the file is shorter.
    groups.append(["padding", block("pad", bytes(6400 * (len(groups) + 2))) + b"\0\0"])
    groups.append(["memory", memory_group(runs)])
    at, table = 12 + 80 * len(groups), b""
    for name, data in groups:
        table += struct.pack("<64sQQ", name.encode(), at, len(data))
        at += len(data)
    with open(path + "." + kind, "wb") as out:
        out.write(struct.pack("<III", 0xBED2BED2, 8, len(groups)) + table + b"".join(data for _, data in groups))
        if inside:
            bare = len(block("Memory", b"", 0, 0))
            padding = -(at + bare) % 65536
            out.write(block("Memory", b"", 0, 0, padding=padding, stored=size))
            out.seek(dump.copy(out, at + bare + padding))
        out.write(b"\0\0")


def write_guest_dump(dump, path, version):
    runs = dump.runs()
    holes = [(a + n, b - a - n) for (a, n), (b, _) in zip(runs, runs[1:])]
    end = sum(runs[-1])
    gap = {3: 14, 4: 14, 5: 14, 6: 15, 7: 8}[version]
    out = struct.pack("<II", version, len(dump.cpus)) + b"\1".ljust(gap, b"\0")
    out += struct.pack("<QQII", end * PAGE - 1, sum(n for _, n in runs), 0, len(holes))
    out += b"".join(struct.pack("<QQ", *hole) for hole in holes).ljust(32, b"\0")
    out += struct.pack("<I", 1).ljust(11, b"\0") if version == 7 else b""
    for cpu in dump.cpus:
        out += struct.pack("<IQQQ", cpu["cr0"] & 0xFFFFFFFF, cpu["cr2"], cpu["cr3"], cpu["cr4"]) + bytes(80)
        out += struct.pack("<Q", cpu["idt_base"]) + bytes(45 if version < 4 else 42)
        out += struct.pack("<27Q", *[cpu[name] for name in PT_REGS]) + bytes(17)
    with open(path + ".guest", "wb") as file:
        file.write(out + bytes(PAGE * len(dump.cpus)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("elf")
    parser.add_argument("out")
    parser.add_argument("--kind", choices=("vmss", "vmsn", "guest"), required=True)
    parser.add_argument("--memory", choices=("inside", "vmem"), default="vmem")
    parser.add_argument("--registers", choices=("tags", "blocks"), default="tags")
    parser.add_argument("--version", type=int, choices=range(3, 8), default=4)
    options = parser.parse_args()
    dump = Dump(options.elf)
    assert dump.loads and dump.cpus, "no memory or no registers in the dump"
    if options.kind == "guest":
        write_guest_dump(dump, options.out, options.version)
    else:
        write_checkpoint(dump, options.out, options.kind, options.memory == "inside", options.registers)
    if options.kind == "guest" or options.memory == "vmem":
        with open(options.out + ".vmem", "wb") as out:
            dump.copy(out, 0)


if __name__ == "__main__":
    main()
