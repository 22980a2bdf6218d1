#!/bin/bash
# Debian 13's crash, makedumpfile and drgn, which read kernels that Debian 12's don't: unpacked into a folder with all that
# they depend on, run with that folder's own libraries, never installed. Prints the folder of the programs.
# Cached in VMCORRAL_LAB_DIR (default: .lab in the checkout). On Debian 13 or newer the system's own are the ones.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lab=${VMCORRAL_LAB_DIR:-$(cd "$here/../../.." && pwd)/.lab}
mkdir -p "$lab"; lab=$(cd "$lab" && pwd)
suite=trixie; arch=amd64; root=$lab/newer-tools
# shellcheck disable=SC1091
[ "$(. /etc/os-release; echo "$ID-${VERSION_ID:-13}")" = debian-12 ] || { dirname "$(command -v crash)"; exit; }

exec 9>"$lab/newer-tools.lock"; flock 9
if [ ! -d "$root/programs" ]; then
  echo "newer-tools: downloading crash, makedumpfile and drgn of Debian 13" >&2
  # shellcheck source=../guest/private-apt.sh
  . "$here/../guest/private-apt.sh"; private_apt "$lab/apt/$suite-$arch" "$suite" "$arch"
  apt-get "${apt[@]}" -qq update >&2
  apt-get "${apt[@]}" -qq -y -o APT::Sandbox::User=root --no-install-recommends --download-only install crash makedumpfile python3-drgn >&2
  rm -rf "$root"; mkdir "$root"
  for deb in "$lab/apt/$suite-$arch"/cache/archives/*.deb; do dpkg -x "$deb" "$root"; rm "$deb"; done
  mkdir "$root/programs.part"
  python=$(cd "$root/usr/bin" && ls python3.[0-9]*[0-9] | head -1)
  program() { # NAME COMMAND LINE…
    printf '#!/bin/sh\n%sexec "%s/usr/lib64/ld-linux-x86-64.so.2" --library-path "%s" %s "$@"\n' "$3" "$root" \
      "$root/usr/lib/x86_64-linux-gnu" "$2" >"$root/programs.part/$1"; chmod 755 "$root/programs.part/$1"; }
  program crash "'$root/usr/bin/crash'" ''
  program makedumpfile "'$root/usr/bin/makedumpfile'" ''
  program drgn "'$root/usr/bin/$python' '$root/usr/bin/drgn'" "PYTHONHOME='$root/usr' "
  mv "$root/programs.part" "$root/programs"
fi
echo "$root/programs"
