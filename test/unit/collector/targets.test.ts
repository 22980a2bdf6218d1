import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newCaptureId } from '#src/collector/service/request.js';
import { globMatches, matchesGuest } from '#src/collector/service/targets.js';

describe('globs', () => {
  it.each([
    ['*', 'anything', true],
    ['web*', 'web01', true],
    ['web*', 'aweb01', false],
    ['web0?', 'web01', true],
    ['web0?', 'web011', false],
    ['*-db-*', 'a-db-1', true],
    ['*a*b*c*', 'xxaxxbxxcxx', true],
    ['*a*b*c*', 'xxaxxcxxbxx', false],
    ['', '', true],
    ['', 'x', false],
    ['[a]', '[a]', true],
    ['a.c', 'abc', false],
  ])('%j on %j is %s', (pattern, text, matches) => {
    expect(globMatches(pattern, text)).toBe(matches);
  });

  it('agrees with a regular expression on everything', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', '*', '?'), maxLength: 8 });
    fc.assert(
      fc.property(letters, fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 8 }), (pattern, text) => {
        const expression = new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`, 's');
        expect(globMatches(pattern, text)).toBe(expression.test(text));
      }),
      { numRuns: 2000 },
    );
  });

  it('a hostile pattern ends in time', () => {
    expect(globMatches(`${'*a'.repeat(200)}b`, 'a'.repeat(10_000))).toBe(false);
  });

  it('means the guest alone, or host and guest', () => {
    expect(matchesGuest(['kvm1/web*'], { host: 'kvm1', name: 'web01' })).toBe(true);
    expect(matchesGuest(['kvm1/web*'], { host: 'kvm2', name: 'web01' })).toBe(false);
  });
});

describe('capture ids', () => {
  it('sort by time and differ within a second', () => {
    const now = new Date('2026-11-21T03:15:02.999Z');
    const ids = new Set(Array.from({ length: 1000 }, () => newCaptureId(now)));
    expect(ids.size).toBe(1000);
    for (const id of ids) expect(id).toMatch(/^20261121-031502-[0-9a-f]{8}$/);
  });
});
