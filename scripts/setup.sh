#!/bin/bash
# Prepares a Debian 12 or 13 machine that has only Node: Debian packages, npm packages, build. Says what it installs first.
#   setup.sh --run    what vmcorral and its demo need
#   setup.sh --lab    the same, and what the tests judge with (crash, drgn, gdb, makedumpfile); the default
# Runs before any npm ci, changes nothing when nothing is missing. Services of newly installed packages are neither started
# nor enabled, and what already runs is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

case ${1:---lab} in --run) lab= ;; --lab) lab=1 ;; *) die "unknown option $1 (--run or --lab)" ;; esac
[ "$(uname -s)/$(uname -m)" = Linux/x86_64 ] || die "vmcorral's lab needs Linux on x86-64; this is $(uname -s) on $(uname -m)"
command -v node >/dev/null || die "Node is missing: install Node 20.19 or newer (Debian 13: apt-get install nodejs npm)"
command -v npm >/dev/null || die "npm is missing: install it beside Node (Debian: apt-get install npm)"
node -e 'const [a,b]=process.versions.node.split(".").map(Number);process.exit(a>20||(a===20&&b>=19)?0:1)' ||
  die "Node $(node -v) is too old: vmcorral needs 20.19 or newer (Debian 12's own is older; Debian 13's will do)"

# Debian package, and the thing it is needed for: a program, a library, a file
needs='redis-server         program redis-server valkey-server
libdeflate0          library libdeflate.so.0
libisal2             library libisal.so.2
liblzo2-2            library liblzo2.so.2
libsnappy1v5         library libsnappy.so.1
libzstd1             library libzstd.so.1
zlib1g               library libz.so.1
liblzma5             library liblzma.so.5
libbz2-1.0           library libbz2.so.1.0
libvirt0             library libvirt-qemu.so.0
qemu-system-x86      program qemu-system-x86_64
libvirt-daemon       program libvirtd
libvirt-daemon-driver-qemu file /usr/lib*/libvirt/connection-driver/libvirt_driver_qemu.so /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so
libvirt-clients      program virsh
util-linux           program unshare
mount                program mount
cpio                 program cpio
xz-utils             program xz
zstd                 program zstd'
[ -z "$lab" ] || needs="$needs
crash                program crash
makedumpfile         program makedumpfile
gdb                  program gdb
binutils             program readelf
file                 program file
bzip2                program bzip2
lzop                 program lzop
gcc                  program gcc
make                 program make
libelf1              library libelf.so.1
libc6-dev            file /usr/include/stdio.h
libfaketime          file /usr/lib/*/faketime/libfaketime.so.1
qemu-system-arm      program qemu-system-aarch64
python3-drgn         file /usr/lib/python3*/dist-packages/drgn
python3-libkdumpfile file /usr/lib/python3*/dist-packages/*kdumpfile*"

libraries=$(ldconfig -p)
present() { # KIND CANDIDATE…
  local kind=$1 c; shift
  for c in "$@"; do case $kind in
    program) command -v "$c" >/dev/null && return ;;
    library) case $libraries in *"$c "*) return ;; esac ;;
    file) [ -e "$c" ] && return ;; esac; done
  return 1; }
missing=()
while read -r package kind rest; do
  # shellcheck disable=SC2086 — patterns and lists are meant to expand
  present "$kind" $rest || missing+=("$package"); done <<<"$needs"

install_packages() {
  local ID=unknown VERSION_ID='' PRETTY_NAME='' by_hand="Install by hand what these Debian packages hold: $*"
  # shellcheck disable=SC1091
  [ ! -r /etc/os-release ] || . /etc/os-release
  case $ID-$VERSION_ID in debian-12 | debian-13) ;; *)
    die "this is ${PRETTY_NAME:-an unknown system}; setup knows Debian 12 and 13 only. $by_hand" ;; esac
  command -v apt-get >/dev/null || die "this Debian has no apt-get. $by_hand"
  [ "$(id -u)" = 0 ] || die "installing needs root. As root: apt-get install --no-install-recommends $*"
  say "installing Debian packages (no services are started): $*"
  local policy=/usr/sbin/policy-rc.d log before after unit new; log=$(mktemp)
  if [ ! -e $policy ]; then # Debian's own way to keep maintainer scripts from starting services; removed again below
    printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy
    # shellcheck disable=SC2064
    trap "rm -f $policy" EXIT
  fi
  before=$(dpkg-query -W -f '${Package}\n' | sort)
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  "${apt[@]}" update >&2 || die "apt-get update failed: see above"
  "${apt[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1 </dev/null ||
    { tail -20 "$log" >&2; die "apt-get could not install: $*"; }
  rm -f "$log"
  # nor at the next boot: what these packages switched on is switched off, with or without systemd
  after=$(dpkg-query -W -f '${Package}\n' | sort); new=$(comm -13 <(echo "$before") <(echo "$after"))
  # shellcheck disable=SC2086
  for unit in $(dpkg -L $new | sed -nE 's#.*/(systemd/system|init\.d)/((redis|valkey|libvirt|virt)[^/@]*)$#\2#p' | sort -u); do
    case $unit in *.service | *.socket | *.timer) deb-systemd-helper disable "$unit" ;; *.*) ;; *) update-rc.d "$unit" disable ;; esac
  done >/dev/null 2>&1 || true
}
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"

# npm ci only when what is installed isn't what the lock file says: it would delete and fetch everything each time
installed() { node -e '
  const want = require("./package-lock.json").packages, have = require("./node_modules/.package-lock.json").packages;
  for (const [path, p] of Object.entries(want))
    if (path && !p.optional && have[path]?.version !== p.version) process.exit(1);' 2>/dev/null; }
if ! installed; then
  say "installing npm packages of package-lock.json"
  npm ci --no-audit --no-fund --loglevel=error >&2 || die "npm ci failed: see above"
fi
# folders count too: their time changes when a file is removed
if [ ! -e dist/.built ] || [ -n "$(find src adapters scripts/bundle.mjs package-lock.json tsconfig.json -newer dist/.built -print -quit)" ]; then
  mkdir -p dist; touch dist/.built.now      # a change in the middle of the build makes the next one build again
  npm run --silent build >&2 || die "the build failed: see above"
  mv dist/.built.now dist/.built
fi
