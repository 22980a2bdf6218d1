/** AVML images: records as LiME's, packed with snappy. Read in place, nothing is unpacked beforehand. */

import { assertCodec } from '../../codec/page-codec.js';
import type { ImageFormat } from '../format.js';
import { openRecords } from '../lime/records.js';

const MAGIC = [0x41, 0x56, 0x4d, 0x4c];

export const avmlFormat: ImageFormat = {
  kind: 'image',
  scope: 'version 2 (--compress), read in place; without --compress it is LiME; up to 1 TiB',
  name: 'avml',
  title: 'AVML image',
  sniff: (head) => (MAGIC.every((byte, i) => head[i] === byte) ? 'certain' : 'no'),
  open: (source, { cancelled }) => {
    assertCodec('snappy');
    return openRecords(source, 'avml', cancelled);
  },
};
