/** Which keys a schema knows: for suggestions in messages, and for the test of the example file. */

import type { z } from 'zod';

/** Looks through defaults, optional keys and preprocessing to the schema that says what is inside. */
function unwrap(schema: z.core.$ZodType): z.core.$ZodType {
  const { def } = schema._zod;
  const inner = def as { type: string; innerType?: z.core.$ZodType; in?: z.core.$ZodType; out?: z.core.$ZodType };
  if (inner.innerType) return unwrap(inner.innerType);
  // A pipe is a transform on one side and what is described on the other.
  if (inner.type === 'pipe' && inner.in && inner.out) {
    return unwrap(inner.in._zod.def.type === 'transform' ? inner.out : inner.in);
  }
  return schema;
}

function shapeOf(schema: z.core.$ZodType): Readonly<Record<string, z.core.$ZodType>> | undefined {
  return (unwrap(schema)._zod.def as { shape?: Record<string, z.core.$ZodType> }).shape;
}

function elementOf(schema: z.core.$ZodType): z.core.$ZodType | undefined {
  return (unwrap(schema)._zod.def as { element?: z.core.$ZodType }).element;
}

/** The keys that are known at a path, none where the path leads to no group of keys. */
export function listKeysAt(schema: z.core.$ZodType, path: readonly PropertyKey[]): string[] {
  let current: z.core.$ZodType | undefined = schema;
  for (const step of path) {
    current = typeof step === 'number' ? elementOf(current) : shapeOf(current)?.[String(step)];
    if (!current) return [];
  }
  return Object.keys(shapeOf(current) ?? {});
}

/** Every key of the schema, from the top, joined by dots; `[]` stands for an element of a list. */
export function listAllKeys(schema: z.core.$ZodType, above = ''): string[] {
  const element = elementOf(schema);
  if (element) return listAllKeys(element, `${above}[]`);
  return Object.entries(shapeOf(schema) ?? {}).flatMap(([key, value]) => {
    const path = above === '' ? key : `${above}.${key}`;
    return [path, ...listAllKeys(value, path)];
  });
}
