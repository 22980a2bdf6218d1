#!/bin/bash
# janitor.sh DIR: waits until its standard input closes (its starter stopped, or was killed), then ends what runs in the lab
# folder DIR (libvirtd and guests, found by their mount namespace), unmounts and removes the folder.
set -uo pipefail
dir=$1; case $dir in */vmclab-*) ;; *) exit 2 ;; esac
trap '' INT TERM HUP
cat >/dev/null
ours() { # pids of all that lives in the lab's mount namespace: libvirtd, guests, what they started
  grep -lsE "/${dir##*/}/lib(//deleted)? /var/lib/libvirt " /proc/[0-9]*/mountinfo | cut -d/ -f3; }
for _ in $(seq 100); do
  pids=$(ours); [ -n "$pids" ] || break
  kill -9 $pids 2>/dev/null; sleep 0.05; done
awk -v d="$dir/" 'index($5 "/", d) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r m; do umount -l "$m"; done
rm -rf --one-file-system "$dir"
