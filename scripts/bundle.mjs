/**
 * Puts what tsc made into few files, for a quick start: a conversion of a small guest takes half a second, and resolving
 * and reading a hundred modules in each of its threads took two fifths of that (Node 20). Programs of threads and child
 * processes are one file each. All lie in one folder, so they find each other by name from wherever their code came.
 * Packages stay outside, for some look for files around their own; commander is needed by every verb.
 */

import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const BUILT = fileURLToPath(new URL('../dist/', import.meta.url));
const BUNDLE = path.join(BUILT, 'bundle');
const ALONE = [
  ...['coordinator', 'page-worker', 'image-worker', 'receive-worker'].map((name) => `src/engine/convert/${name}.js`),
  'adapters/kvm/child.js',
];

async function bundle(file, options) {
  const built = await rolldown({
    input: path.join(BUILT, file),
    platform: 'node',
    external: (id) => !/^[./]/.test(id) && id !== 'commander',
  });
  await built.write({ dir: BUNDLE, format: 'esm', entryFileNames: '[name].js', sourcemap: true, ...options });
  await built.close();
}

// Pieces of earlier builds stay until `npm run clean`: a daemon that runs still loads its own, by the hash in their names.
for (const file of ALONE) await bundle(file, { codeSplitting: false });
await bundle('src/main.js', { chunkFileNames: '[name]-[hash].js' });
