/** Every readable format under the one contract, and none without. */

import { expect, test } from 'vitest';
import { IMAGE_MAKERS } from '../../../builders/image-makers.js';
import { runImageContract } from '../../../contract/memory-image.js';

for (const maker of IMAGE_MAKERS) runImageContract(maker);

test('the makers have names of their own', () => {
  expect(new Set(IMAGE_MAKERS.map(({ name }) => name)).size).toBe(IMAGE_MAKERS.length);
});
