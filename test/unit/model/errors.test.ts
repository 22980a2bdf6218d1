/** What the system says of disks, out of its own mouth. */

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { expect, test } from 'vitest';
import { exitCodeOf, toVmcorralError } from '#src/model/errors.js';
import { testFolder } from '../../builders/engine-files.js';

test('a disk that gives no bytes is not a fault of vmcorral', () => {
  const fd = fs.openSync('/proc/self/mem', 'r');
  let thrown: unknown;
  try {
    // Nothing is mapped at address 0.
    fs.readSync(fd, Buffer.alloc(1), 0, 1, 0);
  } catch (error) {
    thrown = error;
  } finally {
    fs.closeSync(fd);
  }
  const known = toVmcorralError(thrown);
  expect(known).toMatchObject({ code: 'CORRUPT', facts: { system: 'EIO' } });
  expect(known.hint).toContain('dmesg');
});

test('a file that the file system can not hold is about space, and says which', () => {
  const script = `import { toVmcorralError } from ${JSON.stringify(new URL('../../../dist/src/model/errors.js', import.meta.url).href)};
    import fs from 'node:fs';
    try { fs.writeFileSync(process.argv[1], Buffer.alloc(1 << 20)); }
    catch (error) { const { code, facts, message } = toVmcorralError(error); console.log(JSON.stringify({ code, facts, message })); }`;
  const command = `ulimit -f 8; exec "$0" --input-type=module -e "$1" "$2"`;
  const args = ['-c', command, process.execPath, script, `${testFolder()}/large`];
  const { stdout, stderr } = spawnSync('bash', args, { encoding: 'utf8' });
  expect(JSON.parse(stdout || 'null'), stderr).toMatchObject({ code: 'NO_SPACE', facts: { system: 'EFBIG' } });
});

test('anything else is ours', () => {
  expect(exitCodeOf(new TypeError('x'))).toBe(1);
});
