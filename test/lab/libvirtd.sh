#!/bin/bash
# libvirtd.sh DIR: becomes a libvirtd whose configuration, state and sockets all lie under DIR, and which neither sees nor
# touches those of the system: a mount namespace of its own, with DIR's folders bound over the places compiled into it.
# Without systemd, virtlogd or writable cgroups. The socket is DIR/run/libvirt-sock. As root.
set -euo pipefail
dir=$1
if [ "${2:-}" != inside ]; then
  mkdir -p "$dir"/{etc,lib,run,cache,log}
  cat >"$dir/etc/qemu.conf" <<-CONF
	user = "root"
	group = "root"
	remember_owner = 0
	security_driver = "none"
	cgroup_controllers = [ ]
	namespaces = [ ]
	stdio_handler = "file"
	CONF
  # what a test wants besides
  [ ! -e "$dir/qemu.conf.more" ] || cat "$dir/qemu.conf.more" >>"$dir/etc/qemu.conf"
  # QEMU's build-time user must exist, even when qemu.conf names another; on a lean system it doesn't
  for f in passwd group; do cp /etc/$f "$dir/etc.$f"; done
  grep -q '^libvirt-qemu:' /etc/passwd || echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>"$dir/etc.passwd"
  for g in libvirt-qemu kvm; do grep -q "^$g:" /etc/group || echo "$g:x:64055:" >>"$dir/etc.group"; done
  printf '%s\n' 'auth_unix_rw = "none"' 'unix_sock_group = "root"' 'log_outputs = "2:stderr"' >"$dir/etc/libvirtd.conf"
  # slave: what is mounted later under DIR/mnt on the outside (a small tmpfs as a full spool) shows up inside too.
  # In a chroot that is no mount point this can't be set; the check below then decides.
  propagation=slave; unshare --mount --propagation slave true 2>/dev/null || propagation=unchanged
  exec unshare --mount --propagation $propagation bash "$0" "$dir" inside
fi
mkdir -p "$dir/probe"; mount --bind "$dir/etc" "$dir/probe"
if grep -qF " $dir/probe " "/proc/$PPID/mountinfo"; then
  umount "$dir/probe"
  echo "mounts made here would show up outside: bind this chroot's folder onto itself first (mount --bind DIR DIR)" >&2; exit 1
fi
bind() { [ -e "$2" ] || mkdir -p "$2"; mount --bind "$1" "$2"; }
bind "$dir/etc" /etc/libvirt; bind "$dir/lib" /var/lib/libvirt; bind "$dir/run" /run/libvirt
bind "$dir/cache" /var/cache/libvirt; bind "$dir/log" /var/log/libvirt
bind "$dir/etc.passwd" /etc/passwd; bind "$dir/etc.group" /etc/group
PATH=$PATH:/usr/sbin exec libvirtd --pid-file "$dir/libvirtd.pid" --config /etc/libvirt/libvirtd.conf
