import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loopbackAddress } from '../src/config-values.ts';
import { createMetrics, maxSeries } from '../src/metrics.ts';

describe('a family with labels', () => {
  test('is told in its order, each label value once, and no more of it than who scrapes can bear', () => {
    const metrics = createMetrics();
    const many = Array.from({ length: maxSeries + 5 }, (_, at) => [`w-${at}`, at] as const);
    metrics.labelled('gauge', 'x_seconds', 'Help.', 'spiffe_id', () => [['w-0', 7], ...many]);
    const samples = metrics
      .text()
      .split('\n')
      .filter((line) => line.startsWith('x_seconds{'));
    expect(samples).toHaveLength(maxSeries);
    expect(samples.slice(0, 2)).toEqual(['x_seconds{spiffe_id="w-0"} 7', 'x_seconds{spiffe_id="w-1"} 1']);
  });

  test.each([
    ['"', '\\"'],
    ['\\', '\\\\'],
    ['a\nb', 'a\\nb'],
    ['} 1\nforged 2', '} 1\\nforged 2'],
    ['\ud800', '\ufffd'],
  ])('cannot be broken out of: %j', (value, escaped) => {
    const metrics = createMetrics();
    metrics.labelled('counter', 'x', 'Help.', 'source', () => [[value, 1]]);
    expect(metrics.text()).toBe(`# HELP x Help.\n# TYPE x counter\nx_total{source="${escaped}"} 1\n# EOF\n`);
  });
});

test.each([
  [0, '0'],
  [-1.5, '-1.5'],
  [Infinity, '+Inf'],
  [-Infinity, '-Inf'],
  [NaN, 'NaN'],
])('the value %d is told as %s', (value, text) => {
  const metrics = createMetrics();
  metrics.gauge('x', 'Help.', () => value);
  expect(metrics.text()).toContain(`\nx ${text}\n`);
});

test.each(['127.0.0.1:9464', '127.8.0.1:0', '[::1]:9464', 'localhost:1', 'off'])(
  'metrics may be at %s',
  (text) =>
    expect(loopbackAddress(text)?.port).toBe(text === 'off' ? undefined : Number(text.split(':').at(-1))),
);

test.each([
  '0.0.0.0:9464',
  '[::]:9464',
  '10.0.0.1:9464',
  '127.0.0.1.example:1',
  'localhost.example:1',
  '9464',
  '',
])('metrics may not be at %j: whoever comes there is asked nothing', (text) =>
  expect(() => loopbackAddress(text)).toThrow('is not'),
);

test('docs/observability.md has every metric of the code, with its type, and no other', () => {
  const named = new Map<string, string>();
  for (const file of readdirSync(resolve('src'), { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts') || file.startsWith('wire/')) continue;
    const text = readFileSync(join('src', file), 'utf8');
    for (const [, type, name] of text.matchAll(/\.(counter|gauge|histogram)\(\s*'(countersign_\w+)'/g)) {
      named.set(name!, type!);
    }
    for (const [, type, name] of text.matchAll(/\.labelled\(\s*'(counter|gauge)',\s*'(countersign_\w+)'/g)) {
      named.set(name!, type!);
    }
  }
  const rows = readFileSync('docs/observability.md', 'utf8').matchAll(
    /^\| `(countersign_\w+)`\s*\|\s*(\w+)\s*\|/gm,
  );
  const told = new Map([...rows].map(([, name, type]) => [name!, type!] as const));
  expect([...named].sort()).toEqual([...told].sort());
  expect(named.size).toBeGreaterThan(20);
});
