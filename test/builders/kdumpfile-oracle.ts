/** Pages of a dump as libkdumpfile (python3-libkdumpfile) sees them: a reader that shares nothing with ours. */

import { execFileSync } from 'node:child_process';

const SCRIPT = `
import sys, hashlib
import kdumpfile
dump = kdumpfile.kdumpfile(sys.argv[1])
size = dump.attr['arch.page_size']
out = []
for line in sys.stdin:
    first, count = map(int, line.split())
    for pfn in range(first, first + count):
        try:
            page = dump.read(kdumpfile.KDUMP_MACHPHYSADDR, pfn * size, size)
            out.append(hashlib.sha256(page).hexdigest()[:16])
        except (kdumpfile.exceptions.NoDataException, kdumpfile.exceptions.CorruptException):
            out.append('-')
print('\\n'.join(out))
`;

/** One short digest a page, `-` for a page that the dump doesn't have, or lost when its writer's disk was full. */
export function kdumpfilePages(
  path: string,
  runs: readonly { readonly firstPage: number; readonly pageCount: number }[],
): string[] {
  const input = runs.map(({ firstPage, pageCount }) => `${firstPage} ${pageCount}`).join('\n');
  // Debian's own Python: the package is not in others.
  const output = execFileSync('/usr/bin/python3', ['-c', SCRIPT, path], {
    input,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  return output.trim().split('\n');
}
