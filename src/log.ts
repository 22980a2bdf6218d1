/** pino, with what must never be in a log taken out. */

import { type DestinationStream, type Logger, pino } from 'pino';
import { VmcorralError } from './model/errors.js';

export type Log = Logger;

export interface LogOptions {
  readonly level: string;
  /** Where the lines go; default stdout. */
  readonly destination?: DestinationStream;
}

export function createLog(options: LogOptions): Log {
  return pino(
    {
      level: options.level,
      base: {},
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: ['*.password', '*.token', '*.headers.authorization', 'headers.authorization', 'authorization'],
        censor: '***',
      },
      serializers: { err: describeError },
    },
    options.destination ?? pino.destination({ dest: 1, sync: true }),
  );
}

/** Ours by what they say; the stack only of what isn't ours, which is a fault of the program. */
function describeError(error: unknown): unknown {
  if (error instanceof VmcorralError) {
    const cause = error.cause instanceof Error ? { cause: error.cause.message } : {};
    return { ...error.toRecord(), ...cause, ...(error.code === 'INTERNAL' ? { stack: error.stack } : {}) };
  }
  return pino.stdSerializers.err(error as Error);
}
