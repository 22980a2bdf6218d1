/** Plain tables, aligned by the columns that a terminal uses for each character. */

/** Scripts and symbols that take two columns (Unicode EastAsianWidth W and F, in blocks; emoji). */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
const ZERO = /[\p{Mn}\p{Me}]/u;
const STYLING = /\x1b\[[0-9;]*m/g;

/** Columns that `text` takes; our own colour sequences take none. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const char of text.replace(STYLING, '')) {
    if (ZERO.test(char)) continue;
    width += WIDE.test(char) ? 2 : 1;
  }
  return width;
}

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

/** Rows under a head, two spaces between columns, nothing behind the last. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const lines = [columns.map((column) => column.title), ...rows];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => displayWidth(line[index] ?? ''))));
  return lines
    .map((line) =>
      columns
        .map((column, index) => pad(line[index] ?? '', widths[index] ?? 0, column.align ?? 'left'))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** `name  value` lines, values one under the other. */
export function formatPairs(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => displayWidth(name)));
  return pairs.map(([name, value]) => `  ${pad(name, width, 'left')}  ${value}`.trimEnd()).join('\n');
}

function pad(text: string, width: number, align: 'left' | 'right'): string {
  const space = ' '.repeat(Math.max(0, width - displayWidth(text)));
  return align === 'right' ? space + text : text + space;
}
