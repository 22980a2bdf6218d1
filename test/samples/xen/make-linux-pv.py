#!/usr/bin/env python3
"""Makes linux-pv.core and its listing out of `xl dump-core` of a panicked PV Linux guest: keeps its page tables, VMCOREINFO and
the kernel's name, and fills all other pages with zeros (96 MiB then pack to some 100 KB). Shares nothing with vmcorral.
   make-linux-pv.py CORE OUT PGD...     PGD: frames of processes' top tables, as drgn lists them from the kernel's pgd_list"""
import struct, sys
d = open(sys.argv[1], 'rb').read()
shoff, = struct.unpack_from('<Q', d, 40); n, = struct.unpack_from('<H', d, 60)
sh = [struct.unpack_from('<IIQQQQIIQQ', d, shoff + 64 * i) for i in range(n)]
names = d[sh[1][4]:sh[1][4] + sh[1][5]]
sec = {names[s[0]:names.index(b'\0', s[0])].decode(): s for s in sh[1:]}
table, pages, cpus = sec['.xen_p2m'], sec['.xen_pages'][4], sec['.xen_prstatus']
p2m = list(struct.iter_unpack('<QQ', d[table[4]:table[4] + table[5]]))
at = {pfn: pages + 4096 * i for i, (pfn, _) in enumerate(p2m)}
pfn_of = {mfn: pfn for pfn, mfn in p2m}
page = lambda pfn: d[at[pfn]:at[pfn] + 4096]
MASK = 0x000ffffffffff000
info = next(p for p in at if page(p)[12:22] == b'VMCOREINFO' and page(p)[24:34] == b'OSRELEASE=')
kv = dict(l.split('=', 1) for l in page(info)[24:].split(b'\0')[0].decode().splitlines())
image = lambda name: int(kv['SYMBOL(%s)' % name], 16) - 0xffffffff80000000 + int(kv['NUMBER(phys_base)'])
context = lambda i, o: struct.unpack_from('<Q', d, cpus[4] + i * cpus[9] + o)[0]
ncpu = cpus[5] // cpus[9]
roots = {'swapper_pg_dir': image('swapper_pg_dir') >> 12}
for i in range(ncpu):
    roots['cr3 of vCPU %d' % i] = pfn_of[context(i, 5008) >> 12]
    if context(i, 4992): roots['cr1 of vCPU %d' % i] = pfn_of[context(i, 4992) >> 12]
for g in sys.argv[3:]: roots['process at frame ' + g] = int(g, 16)
tables = set()
def walk(pfn, level):
    tables.add(pfn)
    if level == 1: return
    for k, (e,) in enumerate(struct.iter_unpack('<Q', page(pfn))):
        if e & 1 and not (level == 4 and 256 <= k < 272) and (e & MASK) >> 12 in pfn_of: walk(pfn_of[(e & MASK) >> 12], level - 1)
for r in roots.values():
    walk(r, 4)
def translate(root, va):
    t = root
    for shift in (39, 30, 21, 12):
        e, = struct.unpack_from('<Q', page(t), 8 * ((va >> shift) & 511))
        if not e & 1: return None
        t = pfn_of[(e & MASK) >> 12]
    return t << 12 | va & 4095
def user_pages(root):
    """Addresses of programs that are mapped; any address in each page will do."""
    found = []
    def down(pfn, level, base):
        for k, (e,) in enumerate(struct.iter_unpack('<Q', page(pfn))):
            if len(found) == 6 or (level == 4 and k > 255): return
            if e & 1 and (e & MASK) >> 12 in pfn_of:
                va = base | k << (12 + 9 * (level - 1))
                if level == 1: found.append(va + 0xabc)
                else: down(pfn_of[(e & MASK) >> 12], level - 1, va)
    down(root, 4, 0)
    return found
out = bytearray(len(d))
out[:pages], out[table[4]:] = d[:pages], d[table[4]:]
for p in tables | {info, image('init_uts_ns') >> 12}: out[at[p]:at[p] + 4096] = page(p)
open(sys.argv[2], 'wb').write(out)
with open(sys.argv[2] + '.txt', 'w') as o:
    o.write('tables %d\nrelease %s\n' % (len(tables), kv['OSRELEASE']))
    for name, root in roots.items():
        o.write('# %s: top table, virtual address, where it leads\n' % name)
        kernel = [int(kv['SYMBOL(%s)' % s], 16) + 8 for s in ('_stext', 'swapper_pg_dir', 'init_uts_ns')]
        for va in kernel + [0xffff888000000000 + (root << 12), context(0, 672)] + user_pages(root):
            pa = translate(root, va)
            o.write('at 0x%x 0x%x %s\n' % (root << 12, va, 'nothing' if pa is None else hex(pa)))
