/** libvirt's save images around a stream; written from its qemu_saveimage.h, sharing nothing with src/. */

export interface SaveOptions {
  readonly magic?: string;
  readonly version?: number;
  /** 0 raw, 1 gzip, 2 bzip2, 3 xz, 4 lzop, 5 zstd, 6 sparse. */
  readonly format?: number;
  readonly bigEndian?: boolean;
  readonly xml?: string;
  /** What the header says of the XML's length, where it lies. */
  readonly xmlBytes?: number;
}

export const SAVE_HEADER_BYTES = 92;

export function buildSave(stream: Uint8Array, options: SaveOptions = {}): Buffer {
  const xml = Buffer.concat([Buffer.from(`${options.xml ?? '<domain/>'}\0`), Buffer.alloc(1000)]);
  const header = Buffer.alloc(SAVE_HEADER_BYTES);
  header.write(options.magic ?? 'LibvirtQemudSave', 'latin1');
  const words = [options.version ?? 2, options.xmlBytes ?? xml.length, 1, options.format ?? 0, 0];
  for (const [i, word] of words.entries()) {
    if (options.bigEndian === true) header.writeUInt32BE(word, 16 + 4 * i);
    else header.writeUInt32LE(word, 16 + 4 * i);
  }
  return Buffer.concat([header, xml, stream]);
}
