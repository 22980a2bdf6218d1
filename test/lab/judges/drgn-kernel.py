"""Asks drgn about a kernel's dump: its log, tasks and their stacks, and memory by virtual address. Run by drgn, 0.0.31 or newer.

    drgn -q -c DUMP -s VMLINUX drgn-kernel.py      one JSON document

Memory is of all kinds that a kernel maps: its image, the direct map, the array of struct pages, modules, stacks between
their guard pages. Where an address leads is asked of drgn's own walk of the page tables, also where the dump's headers name
virtual addresses; null: nowhere.
"""
import hashlib
import json
import sys

from drgn import FaultError, sizeof
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import follow_phys, page_to_pfn, virt_to_page
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg

PAGE = prog['PAGE_SIZE'].value_()
# Of x86-64 and arm64; no symbol has it (asm/page_64_types.h, asm/memory.h).
THREAD_SIZE = 1 << 14
PIECES, TASKS = [], []


def piece(what, address, length):
    try:
        physical = follow_phys(prog['init_mm'].address_of_(), address).value_()
    except FaultError:
        physical = None
    try:
        content = prog.read(address, length)
    except FaultError:
        content = None
    # Dumps that name no virtual addresses have one way only.
    if content is not None and content[:1] != prog.read(physical, 1, True):
        raise SystemExit(f'{what} at {address:#x} is not what {physical:#x} holds')
    digest = None if content is None else hashlib.sha256(content).hexdigest()
    PIECES.append({
        'what': what, 'address': hex(address), 'length': length,
        'physical': None if physical is None else hex(physical), 'digest': digest})


def stack_of(task):
    # Not behind user frames: there drgn reads on, and in an ELF file finds physical memory at virtual 0.
    if task.mm:
        return None
    try:
        return str(prog.stack_trace(task))
    except (ValueError, LookupError) as error:
        return str(error) # it runs


def object(what, value):
    piece(what, value.address_, sizeof(value))


piece('code', prog.symbol('_stext').address, 1 << 16)
piece('banner', prog.symbol('linux_banner').address, 128)
object('jiffies', prog['jiffies_64'])
piece('top page table', prog['init_mm'].pgd.value_(), PAGE)
text = prog['prb'].text_data_ring
piece('text of the log', text.data.value_(), 1 << text.size_bits.value_())
for task in for_each_task(prog):
    TASKS.append([task.pid.value_(), task.comm.string_().decode(), stack_of(task)])
    # What follows has as many registers as the CPU, not as the type: reading on, drgn leaves the object.
    piece('task', task.value_(), prog.type('struct task_struct').member('thread').offset)
    stack = task.stack.value_()
    piece('stack', stack, THREAD_SIZE)
    piece('guard page', stack - PAGE, PAGE)
    page = virt_to_page(task)
    object('struct page', page[0])
    # Across frames that are nobody's neighbours: what lies around a task, at level 31 too.
    piece('frame of a task', task.value_() // PAGE * PAGE, PAGE)
    if page_to_pfn(page) != follow_phys(prog['init_mm'].address_of_(), task).value_() // PAGE:
        raise SystemExit(f'task {task.pid.value_()} is not on its page')
for module in list_for_each_entry('struct module', prog['modules'].address_of_(), 'list'):
    object('module', module[0])

crashed = prog.crashed_thread().object
json.dump({
    'release': prog['init_uts_ns'].name.release.string_().decode(),
    'log': get_dmesg(prog).decode(),
    'crashed': crashed.comm.string_().decode(),
    'stack': str(prog.stack_trace(crashed)),
    'tasks': TASKS,
    'pieces': PIECES,
}, sys.stdout)
