/** Sentences for what the schema finds wrong. They name keys and kinds, never values. */

import type { z } from 'zod';
import { findNearName } from './near-name.js';
import type { FilePosition } from './positions.js';
import { configFileSchema } from './schema.js';
import { listKeysAt } from './schema-keys.js';

interface Described extends FilePosition {
  readonly key: string;
  readonly message: string;
}

type Locate = (path: readonly PropertyKey[], key?: string) => FilePosition;

/** One problem an issue, or one a key where several keys are unknown. */
export function describeIssue(issue: z.core.$ZodIssue, content: unknown, locate: Locate): Described[] {
  const key = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((unknown) => ({
      ...locate(issue.path, unknown),
      key,
      message: describeUnknownKey(issue.path, unknown),
    }));
  }
  return [{ ...locate(issue.path), key, message: describeValue(issue, valueAt(content, issue.path)) }];
}

function describeUnknownKey(path: readonly PropertyKey[], unknown: string): string {
  const known = listKeysAt(configFileSchema, path);
  const near = findNearName(unknown, known);
  const shown = JSON.stringify(unknown.slice(0, 64));
  return near ? `unknown key ${shown}; did you mean "${near}"?` : `unknown key ${shown}; known: ${known.join(', ')}`;
}

function describeValue(issue: z.core.$ZodIssue, found: unknown): string {
  if (found === undefined) return 'is missing';
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${KINDS[issue.expected] ?? issue.expected}, is ${kindOf(found)}`;
    case 'invalid_value':
      return `must be one of ${issue.values.map(String).join(', ')}`;
    case 'too_small':
      return `must ${bound(issue.origin)} at least ${String(issue.minimum)}`;
    case 'too_big':
      return `must ${bound(issue.origin)} at most ${String(issue.maximum)}`;
    case 'invalid_union':
      return `must be bytes as a number, or a size as 10GiB; is ${kindOf(found)}`;
    default:
      // Our own sentences, given with the rule.
      return issue.message;
  }
}

const KINDS: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'a group of keys',
  array: 'a list',
};

function bound(origin: string): string {
  if (origin === 'string') return 'have a length of';
  if (origin === 'array') return 'have a number of entries of';
  return 'be';
}

function kindOf(value: unknown): string {
  if (value === null) return 'empty';
  if (Array.isArray(value)) return KINDS.array!;
  if (typeof value === 'number' && !Number.isInteger(value)) return 'a fraction';
  return KINDS[typeof value] ?? typeof value;
}

function valueAt(content: unknown, path: readonly PropertyKey[]): unknown {
  let value = content;
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Readonly<Record<PropertyKey, unknown>>)[step];
  }
  return value;
}
