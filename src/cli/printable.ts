/** Text of others (guest names, kernel messages) made fit for a terminal. JSON carries it raw. */

/**
 * Everything that moves the cursor, is invisible, reverses what follows, or has no glyph: controls, format characters
 * (bidi marks and zero-width ones are among them), lone surrogates, private and unassigned code points, odd spaces.
 */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const UNSAFE_BUT_NEWLINE = /(?!\n)[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

const NAMED: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\x1b': '\\e' };

/** Code points shown of a name at most; combining marks count, so a pile of them stays small. */
const NAME_LIMIT = 64;

/**
 * One line that shows `text` and nothing else: escapes with a backslash (a backslash itself is doubled), cut in the
 * middle with `…` beyond `limit` characters, so that names with the same start can be told apart.
 */
export function printable(text: string, options: { readonly limit?: number } = {}): string {
  const limit = options.limit ?? NAME_LIMIT;
  // Cut before escaping: an escape is never torn, and a huge name costs nothing.
  const head = [...text.slice(0, limit * 2)];
  const isLong = text.length > limit * 2 || head.length > limit;
  if (!isLong) return escapeAll(text);
  const tail = [...text.slice(-limit)].slice(-Math.floor((limit - 1) / 2));
  return `${escapeAll(head.slice(0, limit - 1 - tail.length).join(''))}…${escapeAll(tail.join(''))}`;
}

/** A sentence or a few lines: newlines stay, each further line indented, so that none can pass for one of ours. */
export function printableText(text: string): string {
  return text.replace(UNSAFE_BUT_NEWLINE, escapeChar).replaceAll('\n', '\n  ');
}

function escapeAll(text: string): string {
  return text.replaceAll('\\', '\\\\').replace(UNSAFE, escapeChar);
}

function escapeChar(char: string): string {
  const code = char.codePointAt(0) ?? 0;
  if (NAMED[char] !== undefined) return NAMED[char];
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0')}`;
  return `\\u{${code.toString(16)}}`;
}
