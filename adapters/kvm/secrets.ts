/**
 * What in a guest's definition is secret, or likely to be. Without VIR_DOMAIN_XML_SECURE libvirt leaves out display
 * passwords only; command lines, firmware data and cookies it prints as they are.
 */

const REMOVED = 'removed';

/** Attributes that hold a secret by their name, wherever they stand. */
const SECRET_ATTRIBUTE = /^(passwd|password|passphrase|secret|token|key|cookie)$/i;
/** Arguments of QEMU that carry or name a secret: `-object secret,data=…`, `password=…`, fw_cfg credentials … */
const SECRET_ARGUMENT = /secret|passw|passphrase|token|cookie|credential|data=|string=|key=|private/i;
/** user:password@ in an address. */
const USER_INFO = /(\b[a-z][a-z0-9+.-]*:\/\/)[^/@\s]*@/gi;
/** Words of a kernel command line. */
const SECRET_WORD = /((?:[\w.-]*(?:passw|secret|token|credential)[\w.-]*|(?:[\w.-]*\.)?key)=)\S+/gi;

/** Elements whose whole text is secret. */
const SECRET_TEXT: ReadonlySet<string> = new Set([
  'cookie',
  'session',
  'dhCert',
  'idBlock',
  'idAuth',
  'hostData',
  'passphrase',
]);

/** @param path names of the elements down to the one that has the attribute */
export function scrubAttribute(path: readonly string[], name: string, value: string): string {
  const element = path.at(-1) ?? '';
  if (SECRET_ATTRIBUTE.test(name)) return REMOVED;
  // <secret type='ceph' uuid='…'/> points at a secret of libvirt's; who has the dump needn't know where it lies.
  if (element === 'secret' && name !== 'type') return REMOVED;
  if (element === 'qemu:env' && name === 'value') return REMOVED;
  if (element === 'qemu:arg' && name === 'value' && SECRET_ARGUMENT.test(value)) return REMOVED;
  return value.replace(USER_INFO, `$1${REMOVED}@`);
}

/** True when the text of the element at `path` must go. */
export function scrubsText(path: readonly string[]): boolean {
  const element = path.at(-1) ?? '';
  if (SECRET_TEXT.has(element)) return true;
  // <sysinfo type='fwcfg'> and SMBIOS OEM strings carry ignition files and systemd credentials.
  return element === 'entry' && path.includes('sysinfo') && (path.includes('oemStrings') || path.at(-2) === 'sysinfo');
}

/** Text that stays, less what looks like a secret in it (kernel command lines, addresses). */
export function scrubText(path: readonly string[], text: string): string {
  const cleaned = text.replace(USER_INFO, `$1${REMOVED}@`);
  return path.at(-1) === 'cmdline' || path.at(-1) === 'initarg'
    ? cleaned.replace(SECRET_WORD, `$1${REMOVED}`)
    : cleaned;
}
