/** Where a kernel sees physical memory, proven by its page tables. Virtual addresses as the CPU has them. */
export interface KernelMaps {
  /** Of a byte of RAM in the kernel's direct map; undefined where it does not map it. */
  directMap(physical: number): bigint | undefined;
  /** The kernel's own code and data: `size` bytes from `physical` stand at `virtual` too. */
  readonly image: { readonly virtual: bigint; readonly physical: number; readonly size: number } | undefined;
}
