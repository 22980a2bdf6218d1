/** YAML text to plain values, remembering where in the file each key stands. */

/** Counted from 1. */
export interface FilePosition {
  readonly line: number;
  readonly column: number;
}

export interface YamlProblem extends FilePosition {
  readonly message: string;
}

export interface ParsedYaml {
  /** Plain objects, lists and values; `{}` for an empty file. */
  readonly content: unknown;
  readonly problems: readonly YamlProblem[];
  /**
   * Where a value stands, or the key `key` inside it. What isn't in the file has the position of the nearest thing
   * around it that is.
   */
  locate(path: readonly PropertyKey[], key?: string): FilePosition;
}

/** The parser's own sentences quote the text, which may be a password: ours don't. Codes: yaml 2.9, errors.d.ts. */
const SENTENCES: Readonly<Record<string, string>> = {
  BAD_ALIAS: 'an alias (*name) without an anchor, or in a wrong place; put a value that begins with * in quotes',
  ALIAS_PROPS: 'an alias (*name) with properties; put a value that begins with * in quotes',
  BAD_INDENT: 'wrong indentation',
  TAB_AS_INDENT: 'a tab as indentation; use spaces',
  BAD_SCALAR_START: 'a value begins with a reserved character; put it in quotes',
  BAD_DQ_ESCAPE: 'an unknown escape in double quotes; use single quotes for text with a backslash',
  DUPLICATE_KEY: 'this key is there twice',
  MISSING_CHAR: 'a quote, bracket, comma or colon is missing',
  MULTIPLE_DOCS: 'more than one document in the file',
  MULTILINE_IMPLICIT_KEY: 'a key over more than one line; is a colon missing?',
  BLOCK_AS_IMPLICIT_KEY: 'a nested key on the same line; put the value in quotes or on lines of its own',
  TAG_RESOLVE_FAILED: 'an unknown tag (!name); put a value that begins with ! in quotes',
  NON_STRING_KEY: 'a key that is not a text',
};

/** @returns problems instead of throwing; then `content` has no meaning */
export async function parseYaml(text: string): Promise<ParsedYaml> {
  // Not at the top: a start without a configuration file need not load the parser.
  const { LineCounter, parseDocument, isMap, isScalar, isNode } = await import('yaml');
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false, stringKeys: true });
  const at = (offset: number): FilePosition => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const problems: YamlProblem[] = [...document.errors, ...document.warnings].map((fault) => ({
    ...at(fault.pos[0]),
    message: SENTENCES[fault.code] ?? `not valid YAML (${fault.code.toLowerCase().replaceAll('_', ' ')})`,
  }));

  const offsetOf = (path: readonly PropertyKey[]): number | undefined => {
    const node: unknown = path.length === 0 ? document.contents : document.getIn(path, true);
    return isNode(node) && node.range ? node.range[0] : undefined;
  };
  const keyOffset = (path: readonly PropertyKey[], key: PropertyKey): number | undefined => {
    const parent: unknown = path.length === 0 ? document.contents : document.getIn(path, true);
    if (!isMap(parent)) return undefined;
    const pair = parent.items.find((item) => isScalar(item.key) && String(item.key.value) === String(key));
    return pair && isScalar(pair.key) && pair.key.range ? pair.key.range[0] : undefined;
  };
  const locate = (path: readonly PropertyKey[], key?: string): FilePosition => {
    if (key !== undefined) {
      const offset = keyOffset(path, key);
      if (offset !== undefined) return at(offset);
    }
    for (let length = path.length; length > 0; length--) {
      const above = path.slice(0, length - 1);
      const offset = offsetOf(path.slice(0, length)) ?? keyOffset(above, path[length - 1]!);
      if (offset !== undefined) return at(offset);
    }
    return at(offsetOf([]) ?? 0);
  };

  let content: unknown = {};
  if (problems.length === 0) {
    try {
      content = document.toJS({ maxAliasCount: 100 }) ?? {};
    } catch {
      // The only way left for toJS to throw: more aliases than allowed.
      problems.push({ ...at(0), message: 'too many aliases (*name)' });
    }
  }
  return { content, problems, locate };
}
