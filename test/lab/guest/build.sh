#!/bin/bash
# Builds the guest that the lab boots: Debian's cloud kernel (unpacked, never installed) and a busybox initrd.
#   build.sh [--debug] [--crash-me] [--lime] [SUITE [FLAVOUR]]
#     --debug          also unpacks the kernel's debug vmlinux (a download of about 280 MB)
#     --crash-me       the initrd also has /mod/crash-me.ko, built from crash-me.c (14 MB of kernel headers to download)
#     --lime           also builds LiME's module, of Debian's package, against the same headers
#     SUITE FLAVOUR    of another Debian release or machine: trixie cloud-amd64, bookworm rt-amd64, bookworm cloud-arm64 …;
#                      SUITE '': what this system's own apt knows. Without both: its newest cloud kernel
# Prints, one a line: RELEASE, KERNEL path, INITRD path, VMLINUX path (empty without --debug ever run), LIME.KO path (likewise).
# Everything is cached in VMCORRAL_LAB_DIR (default: .lab in the checkout) under the kernel's release.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lab=${VMCORRAL_LAB_DIR:-$(cd "$here/../../.." && pwd)/.lab}
mkdir -p "$lab"; lab=$(cd "$lab" && pwd)
debug= crash_me= want_lime=
while :; do case ${1:-} in --debug) debug=1 ;; --crash-me) crash_me=1 ;; --lime) want_lime=1 ;;
  -*) echo "build.sh: unknown option $1" >&2; exit 2 ;; *) break ;; esac; shift; done
suite=${1:-}; flavour=${2:-cloud-amd64}; arch=${flavour##*-}
say() { printf 'guest: %s\n' "$*" >&2; }

exec 9>"$lab/guest.lock"; flock 9          # two test runs must not build the same files at once

known=$lab/guest${1:+-$suite}${2:+-$flavour}.release; apt=()
# shellcheck source=private-apt.sh
[ -z "$suite" ] || { . "$here/private-apt.sh"; private_apt "$lab/apt/$suite-$arch" "$suite" "$arch"; }
# Debian's name for "the newest kernel" depends on the concrete image. Once built, no apt is needed any more.
depends() { { apt-cache "${apt[@]}" depends "$1" 2>/dev/null || true; } | awk '/Depends: linux-/{print $2}'; }
newest() { depends "linux-image-$flavour" | sed -n "/^linux-image-[0-9]/{p;q}"; }
fresh_index() { say "refreshing apt's package index"; apt-get "${apt[@]}" -o DPkg::Lock::Timeout=300 -qq update >&2; }
if [ -s "$known" ]; then rel=$(cat "$known"); else
  img=$(newest); [ -n "$img" ] || { fresh_index; img=$(newest); }
  [ -n "$img" ] || { say "apt knows no linux-image-$flavour${suite:+ in $suite}: are Debian's package sources configured?"; exit 1; }
  rel=${img#linux-image-}
fi
dir=$lab/guest/$rel; vmlinux=$dir/vmlinux; lime=$dir/lime.ko; mkdir -p "$dir"

# download PACKAGE -> path of the .deb, in a folder of its own that the caller removes
download() {
  local d; d=$(mktemp -d "$dir/deb.XXXXXX"); chmod 755 "$d"
  get() { (cd "$d" && apt-get "${apt[@]}" -qq -o APT::Sandbox::User=root download "$1" >&2); }
  get "$1" 2>/dev/null || { fresh_index; get "$1"; } || { rm -rf "$d"; say "apt could not download $1"; return 1; }
  ls "$d"/*.deb
}

if [ ! -s "$dir/vmlinuz" ]; then
  say "downloading linux-image-$rel"
  t=$dir/tree; rm -rf "$t"; mkdir "$t"
  # Since 7.x the image's package is empty: the kernel and its modules are packages that it depends on
  for p in "linux-image-$rel" $(depends "linux-image-$rel" | grep -E "^linux-(binary|modules)-" || true); do
    deb=$(download "$p"); dpkg -x "$deb" "$t"; rm -rf "$(dirname "$deb")"
  done
  mkdir -p "$dir/modules"
  for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio_balloon \
           virtio_mem qemu_fw_cfg pvpanic pvpanic-mmio pvpanic-pci; do
    f=$(find "$t" -name "$m.ko*" | head -1)
    case $f in '') ;; *.xz) xz -dc "$f" >"$dir/modules/$m.ko" ;; *.zst) zstd -qdc "$f" >"$dir/modules/$m.ko" ;;
      *) cp "$f" "$dir/modules/$m.ko" ;; esac
  done
  cp "$(find "$t" -name "vmlinuz*" -type f | head -1)" "$dir/vmlinuz.part"; rm -rf "$t"; mv "$dir/vmlinuz.part" "$dir/vmlinuz"
fi

# unpacked, not installed: the package would replace the busybox that a system has
if [ ! -s "$dir/busybox" ]; then
  say "downloading busybox-static"
  deb=$(download busybox-static)
  dpkg-deb --fsys-tarfile "$deb" | tar -x -O --wildcards '*/bin/busybox' >"$dir/busybox.part"
  rm -rf "$(dirname "$deb")"; chmod 755 "$dir/busybox.part"; mv "$dir/busybox.part" "$dir/busybox"
fi
# busybox has none in Debian; hang_at needs it, and only guests of this machine's kind get it
chrt=; [ "$arch" != "$(dpkg --print-architecture)" ] || chrt=$(command -v chrt)
initrd=$dir/initrd-$(cat "$0" "$here/init" "$dir/busybox" $chrt | sha256sum | cut -c1-12).gz
if [ ! -s "$initrd" ]; then
  find "$dir" -name "initrd-*" -mmin +1440 -delete
  r=$(mktemp -d "$dir/root.XXXXXX"); mkdir "$r"/{bin,dev,proc,sys,tmp,ram,mod}
  cp "$dir/busybox" "$r/bin/busybox"; cp "$dir"/modules/*.ko "$r/mod/"; install -m755 "$here/init" "$r/init"
  [ -z "$chrt" ] || { for f in "$chrt" $(ldd "$chrt" | grep -o '/[^ ]*'); do install -D "$f" "$r$f"; done; cp "$chrt" "$r/bin/chrt"; }
  (cd "$r" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$initrd.part"
  rm -rf "$r"; mv "$initrd.part" "$initrd"
fi

# build_module NAME KO PREPARE: against the headers of exactly this release, unpacked, never installed. PREPARE gets the folder
# that the sources go to.
build_module() {
  local t=$dir/headers deb headers package
  rm -rf "$t"; mkdir -p "$t/$1"
  unpack() { deb=$(download "$1"); dpkg -x "$deb" "$t"; }
  say "downloading linux-headers-$rel"
  unpack "linux-headers-$rel" || { say "is $rel still in Debian? If not, remove $known for a newer one"; return 1; }
  for package in $(dpkg-deb -f "$deb" Depends | grep -oE 'linux-(headers|kbuild)-[^ ,]+'); do
    rm -rf "$(dirname "$deb")"; unpack "$package"; done
  rm -rf "$(dirname "$deb")"; headers=$t/usr/src/linux-headers-$rel
  sed -i "s#^include /usr/src#include $t/usr/src#" "$headers/Makefile"
  "$3" "$t/$1"
  # The headers name the compiler that built the kernel: this system's own will do. Type data (needs pahole) is not wanted.
  make -s -C "$headers" M="$t/$1" CC=gcc CONFIG_DEBUG_INFO_BTF_MODULES= modules >&2
  strip --strip-debug -o "$2.part" "$t/$1/$1.ko"
  rm -rf "$t"; mv "$2.part" "$2"; }

if [ -n "$crash_me" ]; then
  crash_me_source() { cp "$here/crash-me.c" "$1/"; printf '%s\n' 'obj-m := crash-me.o' 'ccflags-y := -fmacro-prefix-map=$(src)/=' >"$1/Kbuild"; }
  ko=$dir/crash-me-$(cat "$here/crash-me.c" | sha256sum | cut -c1-12).ko
  [ -s "$ko" ] || build_module crash-me "$ko" crash_me_source
  whole=${initrd%.gz}-$(cat "$ko" | sha256sum | cut -c1-12).gz
  if [ ! -s "$whole" ]; then # the kernel unpacks archives that follow one another
    r=$(mktemp -d "$dir/root.XXXXXX"); mkdir "$r/mod"; cp "$ko" "$r/mod/crash-me.ko"
    { cat "$initrd"; (cd "$r" && echo mod/crash-me.ko | cpio -o -H newc -R 0:0 --quiet | gzip -1); } >"$whole.part"
    rm -rf "$r"; mv "$whole.part" "$whole"
  fi
  initrd=$whole
fi

lime_source() {
  local deb; say "downloading lime-forensics-dkms"
  deb=$(download lime-forensics-dkms); dpkg -x "$deb" "$1/deb"; rm -rf "$(dirname "$deb")"
  mv "$1"/deb/usr/src/lime-*/* "$1/"; rm -rf "$1/deb"; }
[ -z "$want_lime" ] || [ -s "$lime" ] || build_module lime "$lime" lime_source

if [ -n "$debug" ] && [ ! -s "$vmlinux" ]; then
  say "downloading linux-image-$rel-dbg (about 280 MB, only its vmlinux is kept)"
  deb=$(download "linux-image-$rel-dbg")
  dpkg-deb --fsys-tarfile "$deb" | tar -x -O --wildcards "*/debug/boot/vmlinux-$rel" >"$vmlinux.part"
  rm -rf "$(dirname "$deb")"; mv "$vmlinux.part" "$vmlinux"
fi

echo "$rel" >"$known"
printf '%s\n' "$rel" "$dir/vmlinuz" "$initrd" "$([ ! -s "$vmlinux" ] || echo "$vmlinux")" "$([ ! -s "$lime" ] || echo "$lime")"
