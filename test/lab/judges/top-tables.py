"""Run by drgn on an x86-64 kernel's dump: frames of all top page tables, in hex. Those of processes are in pgd_list."""
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import page_to_pfn

# Of assembly, so without a type.
phys_base = int.from_bytes(prog.read(prog.symbol('phys_base').address, 8), 'little', signed=True)
print(hex(prog['init_mm'].pgd.value_() - 0xffffffff80000000 + phys_base >> 12))
for page in list_for_each_entry('struct page', prog['pgd_list'].address_of_(), 'lru'):
    print(hex(page_to_pfn(page)))
