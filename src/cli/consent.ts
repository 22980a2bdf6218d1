import { VmcorralError } from '../model/errors.js';
import type { CliIo } from './io.js';

/**
 * Returns where the user agrees: by --yes, or by answering on the terminal. Without a terminal nobody can be asked,
 * and nothing is destroyed on a guess.
 * @throws USAGE without --yes and terminal, CANCELLED when the answer is no
 */
export async function assertConsent(io: CliIo, hasYes: boolean, question: string): Promise<void> {
  if (hasYes) return;
  if (!io.interactive) {
    throw new VmcorralError('USAGE', 'this needs --yes where nobody can be asked', {
      hint: `the question is: ${question}`,
    });
  }
  if (!(await io.confirm(question))) throw new VmcorralError('CANCELLED', 'nothing done');
}
