/** LiME images. */

import type { ImageFormat } from '../format.js';
import { openRecords } from './records.js';

/** `EMiL`. */
const MAGIC = [0x45, 0x4d, 0x69, 0x4c];

export const limeFormat: ImageFormat = {
  kind: 'image',
  scope: 'version 1 (format=lime); compress=1 as zlib; raw and padded with --map',
  name: 'lime',
  title: 'LiME image',
  sniff: (head) => (MAGIC.every((byte, i) => head[i] === byte) ? 'certain' : 'no'),
  open: (source, { cancelled }) => openRecords(source, 'lime', cancelled),
};
