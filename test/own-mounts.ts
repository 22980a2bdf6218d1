import { spawnSync } from 'node:child_process';

/**
 * Arguments of `unshare` for mounts that nobody else sees. In a chroot that is no mount point the root can't be made
 * private; there nothing is shared with others either.
 */
export function ownMounts(): string[] {
  const worksPrivately = spawnSync('unshare', ['--mount', '--propagation', 'private', 'true']).status === 0;
  return ['--mount', '--propagation', worksPrivately ? 'private' : 'unchanged'];
}
