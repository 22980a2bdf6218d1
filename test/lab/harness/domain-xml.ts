/** A kernel that a guest can boot, and what goes with it; see test/lab/guest/build.sh. */
export interface GuestKernel {
  readonly release: string;
  readonly kernel: string;
  readonly initrd: string;
  /** With debug symbols; undefined unless asked for at some time. */
  readonly vmlinux: string | undefined;
  /** LiME's module for it; undefined unless asked for at some time. */
  readonly lime: string | undefined;
}

/** What a guest of the lab can be. Every field has a default that suits most tests. */
export interface GuestOptions {
  /** Memory in MiB; 512. */
  readonly memoryMiB?: number;
  /** vCPUs; 2. */
  readonly cpus?: number;
  /** Of `buildKernel`; the lab's own unless given. */
  readonly kernel?: GuestKernel;
  /** libvirt's machine type; q35. `virt` is aarch64, emulated, and has no panic device that Debian's kernels know. */
  readonly machine?: 'q35' | 'pc' | 'virt';
  /** What libvirt does at a panic; preserve. */
  readonly onCrash?: 'preserve' | 'destroy' | 'restart' | 'coredump-destroy' | 'coredump-restart';
  /** How a panic is told to QEMU; isa (`none`: not at all). */
  readonly panicDevice?: 'isa' | 'none';
  /** Whether the guest can publish its VMCOREINFO; true. */
  readonly vmcoreinfo?: boolean;
  /** Action of an i6300esb watchdog; the word `watchdog=S` in `cmdline` arms it. None unless given. */
  readonly watchdog?: 'reset' | 'shutdown' | 'poweroff' | 'pause' | 'none' | 'dump' | 'inject-nmi';
  /** Words for the kernel command line: `fill=MB tick=MS panic_at=S hang_at=S watchdog=S`, see test/lab/guest/init. */
  readonly cmdline?: string;
  /** More XML inside `<devices>`. */
  readonly devices?: string;
  /** More XML inside `<domain>`, such as `<cpu>` (machine `virt` has a cortex-a57 without it) or `<qemu:commandline>`. */
  readonly domain?: string;
}

/** Where things of one guest lie on this machine. Paths of sockets are short (107 bytes are the limit). */
export interface GuestFiles {
  readonly kernel: string;
  readonly initrd: string;
  readonly console: string;
  readonly shell: string;
  readonly ticks: string;
}

/** Text made safe for an XML attribute or element. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"'\r\n\t]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** The libvirt definition of a lab guest: no network, no disk, three serial ports (console with log, shell, ticks). */
export function domainXml(
  name: string,
  uuid: string,
  type: 'kvm' | 'qemu',
  files: GuestFiles,
  options: GuestOptions,
): string {
  const { memoryMiB = 512, cpus = 2, machine = 'q35', onCrash = 'preserve', panicDevice = 'isa' } = options;
  const isArm = machine === 'virt';
  const unixPort = (path: string, port: number): string =>
    `<serial type='unix'><source mode='bind' path='${escapeXml(path)}'/>
      <target ${isArm ? "type='pci-serial' " : ''}port='${port}'/></serial>`;
  const consoleWord = `console=${isArm ? 'ttyAMA0' : 'ttyS0'}`;
  return `<domain type='${isArm ? 'qemu' : type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${escapeXml(name)}</name>
  <uuid>${uuid}</uuid>
  <memory unit='MiB'>${memoryMiB}</memory>
  <vcpu>${cpus}</vcpu>
  <os>
    <type arch='${isArm ? 'aarch64' : 'x86_64'}' machine='${machine}'>hvm</type>
    <kernel>${escapeXml(files.kernel)}</kernel>
    <initrd>${escapeXml(files.initrd)}</initrd>
    <cmdline>${escapeXml(`${consoleWord} ${options.cmdline ?? ''}`.trim())}</cmdline>
  </os>
  <features>${isArm ? '' : '<acpi/><apic/>'}${(options.vmcoreinfo ?? true) ? "<vmcoreinfo state='on'/>" : ''}</features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>${onCrash}</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-${isArm ? 'aarch64' : 'x86_64'}</emulator>
    <serial type='pty'><log file='${escapeXml(files.console)}' append='off'/><target port='0'/></serial>
    ${unixPort(files.shell, 1)}
    ${unixPort(files.ticks, 2)}
    <memballoon model='virtio'/>
    ${panicDevice === 'isa' && !isArm ? "<panic model='isa'/>" : ''}
    ${options.watchdog === undefined ? '' : `<watchdog model='i6300esb' action='${options.watchdog}'/>`}
    ${options.devices ?? ''}
  </devices>
  ${options.domain ?? (isArm ? "<cpu mode='custom'><model fallback='forbid'>cortex-a57</model></cpu>" : '')}
</domain>
`;
}
