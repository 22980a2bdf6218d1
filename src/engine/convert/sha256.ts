import type { Hash } from 'node:crypto';

/** Loaded when it is needed: 10 ms of every start, and most conversions digest nothing. */
export const createSha256 = (): Hash => process.getBuiltinModule('node:crypto').createHash('sha256');
