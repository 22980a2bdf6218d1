#!/bin/bash
# Builds the guest that the lab boots: Debian's cloud kernel (unpacked, never installed) and a busybox initrd.
#   build.sh [--debug] [SUITE FLAVOUR]
#     --debug          also unpacks the kernel's debug vmlinux (a download of about 280 MB)
#     SUITE FLAVOUR    of another Debian release or machine: trixie cloud-amd64, bookworm rt-amd64, bookworm cloud-arm64 …;
#                      else the newest cloud kernel that this system's own apt knows
# Prints, one a line: RELEASE, KERNEL path, INITRD path, VMLINUX path (empty without --debug ever run).
# Everything is cached in VMCORRAL_LAB_DIR (default: .lab in the checkout) under the kernel's release.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lab=${VMCORRAL_LAB_DIR:-$(cd "$here/../../.." && pwd)/.lab}
mkdir -p "$lab"; lab=$(cd "$lab" && pwd)
debug=; [ "${1:-}" != --debug ] || { debug=1; shift; }
suite=${1:-}; flavour=${2:-cloud-amd64}; arch=${flavour##*-}
say() { printf 'guest: %s\n' "$*" >&2; }

exec 9>"$lab/guest.lock"; flock 9          # two test runs must not build the same files at once

known=$lab/guest${suite:+-$suite-$flavour}.release; apt=()
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
dir=$lab/guest/$rel; vmlinux=$dir/vmlinux; mkdir -p "$dir"

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

if [ -n "$debug" ] && [ ! -s "$vmlinux" ]; then
  say "downloading linux-image-$rel-dbg (about 280 MB, only its vmlinux is kept)"
  deb=$(download "linux-image-$rel-dbg")
  dpkg-deb --fsys-tarfile "$deb" | tar -x -O --wildcards "*/debug/boot/vmlinux-$rel" >"$vmlinux.part"
  rm -rf "$(dirname "$deb")"; mv "$vmlinux.part" "$vmlinux"
fi

echo "$rel" >"$known"
printf '%s\n' "$rel" "$dir/vmlinuz" "$initrd" "$([ ! -s "$vmlinux" ] || echo "$vmlinux")"
