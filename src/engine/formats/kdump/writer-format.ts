/** kdump-compressed as a format that is written. */

import { COMPRESSIONS } from '../../../model/capture.js';
import type { WriterFormat } from '../writer.js';
import { kdumpLosses } from './losses.js';
import { SplitKdumpWriter } from './split-writer.js';
import { KdumpWriter } from './write.js';

export const kdumpWriter: WriterFormat = {
  name: 'kdump',
  title: 'kdump-compressed',
  scope: 'version 6; crash, makedumpfile, drgn, libkdumpfile',
  keeps: 'present, zero, excluded, absent',
  isStream: false,
  canSplit: true,
  compressions: COMPRESSIONS,
  contiguous: false,
  cutsBehind: 'makedumpfile could not filter the dump with it',
  losses: kdumpLosses,
  open: (outputs, facts, compression) =>
    outputs.length === 1
      ? new KdumpWriter(outputs[0]!, facts, compression)
      : new SplitKdumpWriter(outputs, facts, compression),
};
