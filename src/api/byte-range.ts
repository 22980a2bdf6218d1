/** The Range header for one range of bytes (RFC 9110, section 14). */

export type RangeAnswer =
  | { readonly kind: 'whole' }
  /** Bytes `start` up to and including `last`. */
  | { readonly kind: 'part'; readonly start: number; readonly last: number }
  | { readonly kind: 'unsatisfiable' };

/**
 * What a Range header asks for in a file of that size. A header that isn't one range of bytes is ignored, as the RFC
 * wants: the whole file is a correct answer to it.
 */
export function parseRange(header: string | undefined, sizeBytes: number): RangeAnswer {
  const match = /^bytes=[ \t]*(\d{0,16})-(\d{0,16})[ \t]*$/i.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return { kind: 'whole' };
  if (match[1] === '') {
    const length = Math.min(Number(match[2]), sizeBytes);
    return length === 0 ? { kind: 'unsatisfiable' } : { kind: 'part', start: sizeBytes - length, last: sizeBytes - 1 };
  }
  const start = Number(match[1]);
  const last = match[2] === '' ? Number.POSITIVE_INFINITY : Number(match[2]);
  if (last < start) return { kind: 'whole' };
  if (start >= sizeBytes) return { kind: 'unsatisfiable' };
  return { kind: 'part', start, last: Math.min(last, sizeBytes - 1) };
}
