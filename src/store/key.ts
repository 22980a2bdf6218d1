import { VmcorralError } from '../model/errors.js';

const PART = /^[A-Za-z0-9._%+-]{1,255}$/;

/**
 * Any text as one part of a key: [A-Za-z0-9._-] stay, every other byte becomes %XX. Long names are cut and given a
 * number made from the whole, so that two long names stay two. The true name is in the manifest.
 */
export function keyPart(text: string): string {
  let safe = '';
  for (const byte of Buffer.from(text, 'utf8')) {
    const char = String.fromCharCode(byte);
    safe += /[A-Za-z0-9._-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  if (safe === '' || /^\.+$/.test(safe)) safe = safe.replaceAll('.', '%2E') || '%00';
  if (safe.length <= 120) return safe;
  // FNV-1a, 32 bits: only tells long names apart, needs no strength; the folder below it holds the capture's id.
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text, 'utf8')) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return `${safe.slice(0, 110).replace(/%[0-9A-F]?$/, '')}-${hash.toString(16).padStart(8, '0')}`;
}

/** @throws REFUSED when the key could leave the store or mean something to a file system or URL */
export function assertKey(key: string): void {
  const parts = key.split('/');
  if (key.length <= 1024 && parts.every((part) => PART.test(part) && part !== '.' && part !== '..')) return;
  throw new VmcorralError('REFUSED', `not a key of a store: ${JSON.stringify(key.slice(0, 200))}`, {
    hint: 'keys are relative, parts are made of A-Z a-z 0-9 . _ % + -',
  });
}
