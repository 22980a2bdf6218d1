import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Path of a script in test/lab, also when this code runs compiled, from dist (the demo does). */
export function labFile(name: string): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'test/lab', name))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`test/lab/${name} is not in this checkout`);
    folder = parent;
  }
  return join(folder, 'test/lab', name);
}
