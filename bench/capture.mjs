/** One guest dumped by virsh and by vmcorral; see capture.bench.ts. */

import { runInLab } from './processes.mjs';

export const run = () => runInLab('capture.bench.ts');
