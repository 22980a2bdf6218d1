/** The reading end of a FIFO, owned by the thread that starts a conversion and closed from there at any moment. */

import fs from 'node:fs';
import { toVmcorralError, VmcorralError } from '../../model/errors.js';
import { detach } from './libc.js';

export class FifoEnd {
  readonly fd: number;
  /** Of /dev/null: what `fd` stands for once it was released. */
  readonly emptyFd: number;

  /** Opens without waiting for a writer. @throws UNSUPPORTED when it isn't a FIFO */
  constructor(path: string) {
    try {
      this.fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    } catch (error) {
      throw toVmcorralError(error);
    }
    if (!fs.fstatSync(this.fd).isFIFO()) {
      fs.closeSync(this.fd);
      throw new VmcorralError('UNSUPPORTED', `${path} is not a FIFO`, {
        hint: 'a regular file is converted as one',
        facts: { path },
      });
    }
    this.emptyFd = fs.openSync('/dev/null', 'r');
  }

  /** Lets the writer go (SIGPIPE or EPIPE at its next write), whatever the reading thread does right now. */
  release(): void {
    detach(this.fd, this.emptyFd);
  }

  /** When no thread uses it any more. */
  close(): void {
    fs.closeSync(this.fd);
    fs.closeSync(this.emptyFd);
  }
}
