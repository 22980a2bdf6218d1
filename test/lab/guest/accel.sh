#!/bin/bash
# accel.sh KERNEL INITRD: prints "kvm" where a probe boot under KVM reaches the guest's init, else "tcg".
# That /dev/kvm exists proves nothing: in some nested machines QEMU starts, and the guest kernel then hangs for ever.
# The answer is cached for as long as this machine stays booted.
set -euo pipefail
lab=${VMCORRAL_LAB_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/.lab}
boot=$(cat /proc/sys/kernel/random/boot_id); cache=$lab/accel; mkdir -p "$lab"
if read -r was answer <"$cache" 2>/dev/null && [ "$was" = "$boot" ]; then echo "$answer"; exit; fi
answer=tcg
if [ -w /dev/kvm ]; then
  log=$(mktemp)
  timeout -k 1 "${VMCORRAL_KVM_PROBE_SECONDS:-12}" qemu-system-x86_64 -M q35 -accel kvm -m 256 -display none -nodefaults \
    -no-reboot -serial "file:$log" -kernel "$1" -initrd "$2" -append 'console=ttyS0 panic=-1 tick=0 panic_at=0' \
    >/dev/null 2>&1 </dev/null || true
  ! grep -qa 'LAB READY' "$log" || answer=kvm
  rm -f "$log"
fi
echo "$boot $answer" >"$cache"; echo "$answer"
