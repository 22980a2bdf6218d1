#!/bin/bash
# Builds the guest that the lab boots: Debian's cloud kernel (unpacked, never installed) and a busybox initrd.
#   build.sh [--debug] [--crash-me]
#     --debug     also unpacks the kernel's debug vmlinux (a download of about 280 MB)
#     --crash-me  the initrd also has /mod/crash-me.ko, built from crash-me.c (14 MB of kernel headers to download), and there
#                 is a kernel that knows machine checks, which the cloud kernel doesn't (70 MB to download)
# Prints, one a line: RELEASE, KERNEL path, INITRD path, VMLINUX path (empty without --debug ever run), GENERIC KERNEL path
# (empty without --crash-me ever run).
# Everything is cached in VMCORRAL_LAB_DIR (default: .lab in the checkout) under the kernel's release.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lab=${VMCORRAL_LAB_DIR:-$(cd "$here/../../.." && pwd)/.lab}
mkdir -p "$lab"; lab=$(cd "$lab" && pwd)
debug= crash_me=
for word; do case $word in --debug) debug=1 ;; --crash-me) crash_me=1 ;; *) echo "build.sh: unknown option $word" >&2; exit 2 ;; esac; done
say() { printf 'guest: %s\n' "$*" >&2; }

exec 9>"$lab/guest.lock"; flock 9          # two test runs must not build the same files at once

# Debian's name for "the newest cloud kernel" depends on the concrete image. Once built, no apt is needed any more.
newest() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-/{print $2; exit}'; }
fresh_index() { say "refreshing apt's package index"; apt-get -o DPkg::Lock::Timeout=300 -qq update >&2; }
if [ -s "$lab/guest.release" ]; then rel=$(cat "$lab/guest.release"); else
  img=$(newest); [ -n "$img" ] || { fresh_index; img=$(newest); }
  [ -n "$img" ] || { say "apt knows no linux-image-cloud-amd64: are Debian's package sources configured?"; exit 1; }
  rel=${img#linux-image-}
fi
dir=$lab/guest/$rel; vmlinux=$dir/vmlinux; generic=$dir/vmlinuz-generic; mkdir -p "$dir"

# download PACKAGE -> path of the .deb, in a folder of its own that the caller removes
download() {
  local d; d=$(mktemp -d "$dir/deb.XXXXXX"); chmod 755 "$d"
  get() { (cd "$d" && apt-get -qq -o APT::Sandbox::User=root download "$1" >&2); }
  get "$1" 2>/dev/null || { fresh_index; get "$1"; } || { rm -rf "$d"; say "apt could not download $1"; return 1; }
  ls "$d"/*.deb
}

if [ ! -s "$dir/vmlinuz" ]; then
  say "downloading linux-image-$rel"
  deb=$(download "linux-image-$rel"); t=$dir/tree; rm -rf "$t"; mkdir "$t"; dpkg -x "$deb" "$t"; rm -rf "$(dirname "$deb")"
  mkdir -p "$dir/modules"
  for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio_balloon \
           virtio_mem qemu_fw_cfg pvpanic pvpanic-mmio pvpanic-pci; do
    f=$(find "$t" -name "$m.ko*" | head -1)
    case $f in '') ;; *.xz) xz -dc "$f" >"$dir/modules/$m.ko" ;; *.zst) zstd -qdc "$f" >"$dir/modules/$m.ko" ;;
      *) cp "$f" "$dir/modules/$m.ko" ;; esac
  done
  cp "$t/boot/vmlinuz-$rel" "$dir/vmlinuz.part"; rm -rf "$t"; mv "$dir/vmlinuz.part" "$dir/vmlinuz"
fi

# unpacked, not installed: the package would replace the busybox that a system has
if [ ! -s "$dir/busybox" ]; then
  say "downloading busybox-static"
  deb=$(download busybox-static)
  dpkg-deb --fsys-tarfile "$deb" | tar -x -O --wildcards '*/bin/busybox' >"$dir/busybox.part"
  rm -rf "$(dirname "$deb")"; chmod 755 "$dir/busybox.part"; mv "$dir/busybox.part" "$dir/busybox"
fi
chrt=$(command -v chrt)                    # busybox has none in Debian; hang_at needs it
initrd=$dir/initrd-$(cat "$0" "$here/init" "$dir/busybox" "$chrt" | sha256sum | cut -c1-12).gz
if [ ! -s "$initrd" ]; then
  find "$dir" -name "initrd-*" -mmin +1440 -delete
  r=$(mktemp -d "$dir/root.XXXXXX"); mkdir "$r"/{bin,dev,proc,sys,tmp,ram,mod}
  cp "$dir/busybox" "$r/bin/busybox"; cp "$dir"/modules/*.ko "$r/mod/"; install -m755 "$here/init" "$r/init"
  for f in "$chrt" $(ldd "$chrt" | grep -o '/[^ ]*'); do install -D "$f" "$r$f"; done; cp "$chrt" "$r/bin/chrt"
  (cd "$r" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$initrd.part"
  rm -rf "$r"; mv "$initrd.part" "$initrd"
fi

# build_crash_me KO: against the headers of exactly this release, unpacked, never installed
build_crash_me() {
  local t=$dir/headers deb headers package
  rm -rf "$t"; mkdir -p "$t/crash-me"
  unpack() { deb=$(download "$1"); dpkg -x "$deb" "$t"; }
  say "downloading linux-headers-$rel"
  unpack "linux-headers-$rel" || { say "is $rel still in Debian? If not, remove $lab/guest.release for a newer one"; return 1; }
  for package in $(dpkg-deb -f "$deb" Depends | grep -oE 'linux-(headers|kbuild)-[^ ,]+'); do
    rm -rf "$(dirname "$deb")"; unpack "$package"; done
  rm -rf "$(dirname "$deb")"; headers=$t/usr/src/linux-headers-$rel
  sed -i "s#^include /usr/src#include $t/usr/src#" "$headers/Makefile"
  cp "$here/crash-me.c" "$t/crash-me/"; printf '%s\n' 'obj-m := crash-me.o' 'ccflags-y := -fmacro-prefix-map=$(src)/=' >"$t/crash-me/Kbuild"
  # The headers name the compiler that built the kernel: this system's own will do. Type data (needs pahole) is not wanted.
  make -s -C "$headers" M="$t/crash-me" CC=gcc CONFIG_DEBUG_INFO_BTF_MODULES= modules >&2
  strip --strip-debug -o "$1.part" "$t/crash-me/crash-me.ko"
  rm -rf "$t"; mv "$1.part" "$1"; }
if [ -n "$crash_me" ]; then
  ko=$dir/crash-me-$(cat "$here/crash-me.c" | sha256sum | cut -c1-12).ko
  [ -s "$ko" ] || build_crash_me "$ko"
  whole=${initrd%.gz}-$(cat "$ko" | sha256sum | cut -c1-12).gz
  if [ ! -s "$whole" ]; then # the kernel unpacks archives that follow one another
    r=$(mktemp -d "$dir/root.XXXXXX"); mkdir "$r/mod"; cp "$ko" "$r/mod/crash-me.ko"
    { cat "$initrd"; (cd "$r" && echo mod/crash-me.ko | cpio -o -H newc -R 0:0 --quiet | gzip -1); } >"$whole.part"
    rm -rf "$r"; mv "$whole.part" "$whole"
  fi
  initrd=$whole
  if [ ! -s "$generic" ]; then
    say "downloading linux-image-${rel/cloud-/}"
    deb=$(download "linux-image-${rel/cloud-/}")
    dpkg-deb --fsys-tarfile "$deb" | tar -x -O --wildcards './boot/vmlinuz-*' >"$generic.part"
    rm -rf "$(dirname "$deb")"; mv "$generic.part" "$generic"
  fi
fi

if [ -n "$debug" ] && [ ! -s "$vmlinux" ]; then
  say "downloading linux-image-$rel-dbg (about 280 MB, only its vmlinux is kept)"
  deb=$(download "linux-image-$rel-dbg")
  dpkg-deb --fsys-tarfile "$deb" | tar -x -O --wildcards "*/debug/boot/vmlinux-$rel" >"$vmlinux.part"
  rm -rf "$(dirname "$deb")"; mv "$vmlinux.part" "$vmlinux"
fi

echo "$rel" >"$lab/guest.release"
printf '%s\n' "$rel" "$dir/vmlinuz" "$initrd" "$([ ! -s "$vmlinux" ] || echo "$vmlinux")" \
  "$([ ! -s "$generic" ] || echo "$generic")"
