import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { formatAnswer } from '../../src/cli/answer-text.ts';
import { formatDot } from '../../src/cli/graph-dot.ts';
import fc from 'fast-check';
import { allowedCalls, decision, issuance } from '../audit/events.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { type Harness, startHarness } from '../http/harness.ts';
import { openCli, type Outcome } from './run-cli.ts';

const scope = createScope();
let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  scope.defer(() => harness.close());
  await harness.store.recordEvents([
    issuance(),
    allowedCalls(),
    decision(),
    decision({ decisionId: 'd-2', source: '', destination: 'spiffe://example.org/edge' }),
  ]);
});
afterAll(() => scope.close());

const run = openCli(scope, { cwd: makeTempDir(scope) });
const cli = (...args: string[]): Promise<Outcome> =>
  run(['--socket', harness.unix.address, 'audit', ...args]);

describe('commands', () => {
  test.each<[string[], RegExp[]]>([
    [
      ['ask'],
      [/^QUESTION +PARAMETERS +ANSWERS\n/, /\ncertificate +serial= +one cert/, /\nreplay +revision= /],
    ],
    [
      ['ask', 'denied', 'namespace=pay'],
      [
        /^1 denied call of 1 caller in the namespace pay\n\ndenied\nINDEX +SOURCE/,
        /\nproven by +the checkpoint of \d+ entries, root [0-9a-f]{64}\n/,
        /\ncovers +/,
      ],
    ],
    [['ask', 'denied', 'namespace=shop'], [/\ndenied: none\n/]],
    [
      ['cert', '5f3a9c0000000000000000000000aa01'],
      [/\nissued\nINDEX /, /\nuses: none\n/],
    ],
    [
      ['why', 'd-1'],
      [/^DENY +spiffe:/, /\nproven by +the checkpoint of /, /\ncovers +/],
    ],
    [
      ['graph', '--since', '2026-01-01'],
      [/^2 edges between 3 identities\n/, /\nINDEX +SOURCE +DESTINATION +ALLOWED +DENIED/],
    ],
    [
      ['graph', '--since', '2026-01-01', '--namespace', 'pay', '-o', 'dot'],
      [/^digraph calls \{\n/, /n0 -> n1 \[label="117 allowed, 1 denied", color=red/],
    ],
    [
      ['graph', '--since', '2026-01-01', '-o', 'csv'],
      [/^index,source,destination,allowed,denied,plaintext,last,sourceNamespace,destinationNamespace\r\n/],
    ],
    [
      ['ask', 'sample', 'seed=s', '-o', 'csv', '--table', 'population'],
      [/^index,kind,changes,firstIndex\r\n/],
    ],
  ])('%j', async (args, expected) => {
    const { code, out, err } = await cli(...args);
    expect([code, err], err).toEqual([0, '']);
    for (const pattern of expected) expect(out).toMatch(pattern);
  });

  test('as JSON an answer is what the API says', async () => {
    const { out } = await cli('ask', 'certificates', 'limit=1', '-o', 'json');
    expect(JSON.parse(out)).toMatchObject({
      question: 'certificates',
      asked: { limit: '1' },
      tables: [{ name: 'issued', items: [{ entry: 'web' }] }],
      head: { root: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    expect(JSON.parse((await cli('why', 'd-1', '-o', 'json')).out)).toMatchObject({
      question: 'decision',
      explained: { decisionId: 'd-1' },
    });
  });

  test.each([
    [['ask', 'certificats'], 2, 'audit_question_unknown'],
    [['ask', 'certificates', 'identity'], 64, 'usage'],
    [['ask', 'certificates', '=x'], 64, 'usage'],
    [['ask', 'certificates', 'limit=1', 'limit=2'], 64, 'usage'],
    [['ask', 'certificates', 'a b=1'], 64, 'usage'],
    [['ask', 'certificates', 'limits=1'], 2, 'audit_query_invalid'],
    [['ask', 'certificates', '-o', 'dot'], 64, 'usage'],
    [['ask', 'certificates', '-o', 'csv', '--table', 'nothing'], 64, 'usage'],
    [['cert', 'zz'], 2, 'audit_query_invalid'],
    [['cert', 'ff'], 2, 'audit_certificate_not_found'],
    [['cert', 'ff', '-o', 'csv'], 64, 'usage'],
    [['why', 'unknown'], 2, 'decision_not_found'],
    [['graph', '--namespace', 'A'], 2, 'audit_query_invalid'],
    [['graph', '--since', 'soon'], 2, 'audit_query_invalid'],
  ])('%j exits %i %s', async (args, code, error) => {
    const outcome = await cli(...args);
    expect([outcome.code, outcome.err]).toEqual([code, expect.stringContaining(`error[${error}]`)]);
    expect(outcome.out).toBe('');
  });
});

describe('a graph for Graphviz', () => {
  const edge = (source: string, destination: string, change: object = {}) => ({
    ...{ index: 1, source, destination, sourceNamespace: '', destinationNamespace: '' },
    ...{ allowed: 1, denied: 0, plaintext: 0, last: '2026-01-31T12:00:00.000Z', ...change },
  });

  test('has a box for each identity, framed by namespaces, and what calls are in words', () => {
    const dot = formatDot([
      edge('spiffe://a/ns/shop/sa/web', 'spiffe://a/ns/pay/sa/db', {
        sourceNamespace: 'shop',
        destinationNamespace: 'pay',
      }),
      edge('', 'spiffe://a/ns/pay/sa/db', {
        destinationNamespace: 'pay',
        allowed: 0,
        denied: 3,
        plaintext: 2,
      }),
    ]);
    expect(dot).toBe(
      [
        'digraph calls {',
        '  rankdir=LR;',
        '  node [shape=box];',
        '  subgraph cluster_0 {',
        '    label="shop";',
        '    n0 [label="web", tooltip="spiffe://a/ns/shop/sa/web"];',
        '  }',
        '  subgraph cluster_1 {',
        '    label="pay";',
        '    n1 [label="db", tooltip="spiffe://a/ns/pay/sa/db"];',
        '  }',
        '  n2 [label="(no certificate)", tooltip=""];',
        '  n0 -> n1 [label="1 allowed", color=black, style=solid, tooltip="last 2026-01-31T12:00:00.000Z"];',
        '  n2 -> n1 [label="3 denied, 2 plaintext", color=red, style=dashed, tooltip="last 2026-01-31T12:00:00.000Z"];',
        '}',
        '',
      ].join('\n'),
    );
  });

  test('whatever names hold, they stay between their quotes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (a, b) => {
        const dot = formatDot([edge(a, b, { sourceNamespace: b, destinationNamespace: a })]);
        const outside = dot.replaceAll(/"(?:[^"\\]|\\["\\])*"/g, '""');
        expect(outside).toMatch(/^[a-zA-Z0-9_{}[\];=,"> \n-]*$/);
        expect(outside.match(/->/g)).toHaveLength(1);
      }),
    );
  });
});

test('an answer with hostile text stays what it is on a terminal', () => {
  const hostile = '\u001b[2J\r\nforged  row';
  const text = formatAnswer({
    question: 'q',
    asked: {},
    says: [hostile],
    missing: [hostile],
    next: null,
    tables: [
      {
        name: hostile,
        columns: ['index', 'what'],
        details: [],
        more: true,
        items: [{ index: 1, what: hostile }],
      },
      {
        name: 'differences',
        columns: [],
        details: [],
        more: false,
        items: [{ index: 1, before: hostile, after: '' }],
      },
    ],
    coverage: {
      ...{
        since: null,
        until: null,
        begins: null,
        ends: null,
        moreLosses: true,
        moreDowntimes: true,
        pruned: [],
        folded: { count: 4, records: 4 },
        proxies: null,
      },
      losses: [
        {
          what: 'decision',
          cause: hostile,
          count: 2,
          records: 1,
          from: '',
          to: '',
          firstIndex: 0,
          lastIndex: 0,
        },
      ],
      downtimes: [],
      notSearched: [],
    },
    head: { size: 3, root: 'ab', checkpoint: '' },
  });
  expect(text).not.toMatch(/[\u001b\r]/);
  expect(text).toContain('lost        2 decision');
  expect(text).toContain('folded      4 records: there were too many kinds');
  expect(text.split('\n').filter((line) => line.startsWith('forged'))).toEqual([]);
});
