import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { parsePolicy } from '../../src/authz/parse.ts';
import { createPathPatterns } from '../../src/authz/path-pattern.ts';
import { compileSnapshot, type Snapshot } from '../../src/authz/snapshot.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { readDocuments } from '../../src/yaml.ts';

const operation = (paths: string): string => `{operation: {${paths}}}`;

describe('the path by which a rule lets a call pass', () => {
  test.each([
    ['as it is written', ['paths: [/a]'], '/a', '/a'],
    ['its beginning', ['paths: ["/orders/*"]'], '/orders/17', '/orders/*'],
    ['its end', ['paths: ["*.css"]'], '/a/b.css', '*.css'],
    ['a template', ['paths: ["/orders/{*}/items/{**}"]'], '/orders/7/items/8/9', '/orders/{*}/items/{**}'],
    ['any path', ['paths: ["*"]'], '/a', '*'],
    ['the first that fits', ['paths: ["/a/*", "/a/b/*"]'], '/a/b/c', '/a/*'],
    ['the very path before a pattern', ['paths: ["/a/*", "/a/b"]'], '/a/b', '/a/b'],
    ['one of another operation', ['methods: [GET], paths: [/a]', 'paths: ["/b/*"]'], '/b/1', '/b/*'],
    ['none, when the rule names none', ['methods: [GET]'], '/a', '*'],
    ['none of those it excludes', ['notPaths: [/a, /b]'], '/a', '*'],
    ['none, when none fits', ['methods: [GET]', 'paths: [/b]'], '/a', '*'],
  ])('%s', (_, operations, path, expected) => {
    const snapshot = snapshotOf(`[{to: [${operations.map(operation).join(', ')}]}]`);
    expect(createPathPatterns()(snapshot, 'pay/p rule[0]', path)).toBe(expected);
    expect(createPathPatterns()(snapshot.at(8, 'istio'), 'pay/p rule[0]', path)).toBe(expected);
  });

  test.each(['pay/p rule[1]', 'pay/q rule[0]', 'pay', ''])('of a rule that there is not: %j', (name) => {
    expect(createPathPatterns()(snapshotOf('[{to: [{operation: {paths: [/a]}}]}]'), name, '/a')).toBe('*');
  });

  test('is that of the snapshot it is asked about', () => {
    const patterns = createPathPatterns();
    const [one, other] = ['/a', '/*'].map((path) =>
      snapshotOf(`[{to: [{operation: {paths: ["${path}"]}}]}]`),
    ) as [Snapshot, Snapshot];
    const ask = (snapshot: Snapshot): string => patterns(snapshot, 'pay/p rule[0]', '/a');
    expect([ask(one), ask(other), ask(one)]).toEqual(['/a', '/*', '/a']);
  });

  test('keeps nothing of the path: that may be a slice of a long text', () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const snapshot = snapshotOf('[{to: [{operation: {paths: [/orders/of/today]}}]}]');
    const pattern = createPathPatterns();
    const kept: string[] = [];
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 200; i++) {
      const path = Buffer.from(`/orders/of/today?${'q'.repeat(50_000)}`)
        .toString()
        .split('?', 1)[0];
      kept.push(pattern(snapshot, 'pay/p rule[0]', path ?? ''));
    }
    collect();
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(200 * 25_000);
    expect(new Set(kept)).toEqual(new Set(['/orders/of/today']));
  });

  test('costs no more than some comparisons, however long the list is', () => {
    const paths = Array.from({ length: 200 }, (_, i) => `"/p${i}/*"`);
    const snapshot = snapshotOf(`[{to: [{operation: {paths: [${paths.join(', ')}, /exact]}}]}]`);
    const ask = (path: string): string => createPathPatterns()(snapshot, 'pay/p rule[0]', path);
    expect([ask('/p31/x'), ask('/p32/x'), ask('/exact')]).toEqual(['/p31/*', '*', '/exact']);
  });
});

function snapshotOf(rules: string): Snapshot {
  const text = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: pay}
spec: {rules: ${rules}}
`;
  return compileSnapshot({
    revision: 7,
    trustDomain: TrustDomain.parse('example.org'),
    rootNamespace: 'istio-system',
    policies: readDocuments({ file: 'p.yaml', text }).map(parsePolicy),
    workloads: [],
  });
}
