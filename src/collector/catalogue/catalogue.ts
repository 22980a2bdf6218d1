/** What can be asked about all dumps: read from the manifests in the store, which alone make a dump exist. */

import type { Readable } from 'node:stream';
import { VmcorralError } from '../../model/errors.js';
import { DUMP_FILE, MANIFEST_FILE, type Manifest } from '../../model/manifest.js';
import type { Store } from '../../store/store.js';
import { MAX_MANIFEST_BYTES, parseManifest } from './manifest-schema.js';

export interface CatalogueEntry {
  readonly manifest: Manifest;
  /** Key of the dump's folder. */
  readonly key: string;
}

export class Catalogue {
  readonly #store: Store;
  readonly #onDamaged: (key: string, error: unknown) => void;
  /** Manifests are never changed: one that was read once stays as it is while key and size are the same. */
  readonly #known = new Map<string, { readonly sizeBytes: number; readonly manifest: Manifest }>();

  /** @param onDamaged told of each manifest that can't be read; such a dump is not listed */
  constructor(store: Store, onDamaged: (key: string, error: unknown) => void) {
    this.#store = store;
    this.#onDamaged = onDamaged;
  }

  get store(): Store {
    return this.#store;
  }

  /** All dumps, newest first. */
  async list(): Promise<CatalogueEntry[]> {
    const entries: CatalogueEntry[] = [];
    const seen = new Set<string>();
    for await (const { key, sizeBytes } of this.#store.list('')) {
      if (!key.endsWith(`/${MANIFEST_FILE}`)) continue;
      seen.add(key);
      const manifest = await this.#load(key, sizeBytes);
      if (manifest) entries.push({ manifest, key: key.slice(0, -MANIFEST_FILE.length - 1) });
    }
    for (const key of this.#known.keys()) if (!seen.has(key)) this.#known.delete(key);
    return entries.sort((a, b) => (a.manifest.capturedAt < b.manifest.capturedAt ? 1 : -1));
  }

  /** By whole id, or by a start or end of it that only one dump has. @throws NOT_FOUND, USAGE where several match */
  async get(id: string): Promise<CatalogueEntry> {
    const all = await this.list();
    const exact = all.find(({ manifest }) => manifest.id === id);
    if (exact) return exact;
    const near =
      id.length < 4 ? [] : all.filter(({ manifest }) => manifest.id.startsWith(id) || manifest.id.endsWith(id));
    if (near.length === 1 && near[0]) return near[0];
    if (near.length > 1) {
      throw new VmcorralError('USAGE', `${near.length} dumps match "${id}"`, {
        hint: near
          .slice(0, 5)
          .map(({ manifest }) => manifest.id)
          .join(', '),
      });
    }
    throw new VmcorralError('NOT_FOUND', `no dump ${JSON.stringify(id.slice(0, 80))}`, {
      hint: 'vmcorral dumps lists what there is',
    });
  }

  /** A file of a dump. @throws NOT_FOUND when the manifest does not name it */
  async open(entry: CatalogueEntry, name: string, range?: { start: number; last: number }): Promise<Readable> {
    fileOf(entry.manifest, name);
    return await this.#store.get(`${entry.key}/${name}`, range);
  }

  location(entry: CatalogueEntry): string {
    return this.#store.locate(`${entry.key}/${DUMP_FILE}`);
  }

  /** The manifest goes first: from then on the dump does not exist, whatever happens. */
  async remove(entry: CatalogueEntry): Promise<void> {
    await this.#store.remove(`${entry.key}/${MANIFEST_FILE}`);
    this.#known.delete(`${entry.key}/${MANIFEST_FILE}`);
    for await (const { key } of this.#store.list(`${entry.key}/`)) await this.#store.remove(key);
  }

  async #load(key: string, sizeBytes: number): Promise<Manifest | undefined> {
    const known = this.#known.get(key);
    if (known?.sizeBytes === sizeBytes) return known.manifest;
    try {
      if (sizeBytes > MAX_MANIFEST_BYTES)
        throw new VmcorralError('CORRUPT', `${key} is too large for a manifest: ${sizeBytes} bytes`);
      const chunks: Buffer[] = [];
      for await (const chunk of (await this.#store.get(key)) as AsyncIterable<Buffer>) chunks.push(chunk);
      const manifest = parseManifest(Buffer.concat(chunks).toString('utf8'), key);
      this.#known.set(key, { sizeBytes, manifest });
      return manifest;
    } catch (error) {
      this.#onDamaged(key, error);
      return undefined;
    }
  }
}

/** @throws NOT_FOUND, naming the files there are */
export function fileOf(manifest: Manifest, name: string): Manifest['files'][number] {
  const file = manifest.files.find((candidate) => candidate.name === name);
  if (file) return file;
  throw new VmcorralError('NOT_FOUND', `dump ${manifest.id} has no file ${JSON.stringify(name.slice(0, 80))}`, {
    hint: `it has: ${manifest.files.map((candidate) => candidate.name).join(', ')}`,
  });
}
