import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { startTestApi } from '../api/api-client.js';

const read = (name: string) => readFile(new URL(`../../../config/${name}`, import.meta.url), 'utf8');

describe('config/prometheus-alerts.yaml', () => {
  it('asks for metrics and labels that /metrics has', async () => {
    const run = await startTestApi();
    const metrics = (await run.send('GET', '/metrics')).body.toString();
    await run.close();
    const names = new Set([...metrics.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));
    const { groups } = parse(await read('prometheus-alerts.yaml')) as {
      groups: { rules: { alert: string; expr: string; annotations: Record<string, string> }[] }[];
    };
    const rules = groups.flatMap((group) => group.rules);
    expect(rules.length).toBeGreaterThanOrEqual(4);
    for (const { expr, annotations } of rules) {
      const asked = [...expr.matchAll(/vmcorral_\w+/g)].map(([name]) => name);
      expect(asked.length).toBeGreaterThan(0);
      for (const name of asked) expect(names).toContain(name);
      for (const [, label] of expr.matchAll(/[{,]\s*(\w+)=~?"/g)) {
        if (label !== 'job') expect(metrics).toMatch(new RegExp(`[{,]${label}="`));
      }
      expect(Object.keys(annotations).sort()).toEqual(['description', 'summary']);
    }
  });
});

describe('the systemd units', () => {
  /** `Key=value` lines of a section. */
  function section(text: string, name: string): string[] {
    const body = text.split(/^\[/m).find((part) => part.startsWith(`${name}]`)) ?? '';
    return body
      .split('\n')
      .slice(1)
      .filter((line) => line !== '' && !line.startsWith('#'));
  }

  it('run a verb that there is, and are hardened alike', async () => {
    const one = section(await read('vmcorral.service'), 'Service');
    const part = section(await read('vmcorral@.service'), 'Service');
    expect(one).toContain('ExecStart=/usr/bin/vmcorral up');
    expect(part).toContain('ExecStart=/usr/bin/vmcorral %i');
    const same = (lines: string[]) => lines.filter((line) => !/^(ExecStart|RuntimeDirectoryPreserve)=/.test(line));
    expect(same(part)).toEqual(same(one));
    expect(one).toEqual(
      expect.arrayContaining(['KillMode=process', 'UMask=0077', 'NoNewPrivileges=yes', 'LimitCORE=0']),
    );
  });
});
