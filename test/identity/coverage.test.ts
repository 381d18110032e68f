import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Holder } from '../../src/ca/slot.ts';
import {
  type Coverage,
  type CoverageRow,
  createCoverage,
  maxHoldingsPerHost,
  type IssuedCertificate,
  type SecretContent,
} from '../../src/identity/coverage.ts';

const start = Date.UTC(2026, 0, 1);
const at = (seconds: number): Date => new Date(start + seconds * 1_000);

// Leaf `a1` is the first of spiffe://mesh.test/a, and lives until second 100.
const expiry = (serial: string): Date => at(100 * Number(serial.slice(1)));
const issuerOf = (serial: string): string => (serial.endsWith('1') ? 'old' : 'new');
const idOf = (serial: string): string => `spiffe://mesh.test/${serial[0]}`;
const leaf = (serial: string): SecretContent => ({
  kind: 'svid',
  spiffeId: idOf(serial),
  serial,
  issuerKeyId: issuerOf(serial),
  notAfter: expiry(serial),
});
const leafWith = (serial: string, bundleSequence: number): SecretContent => ({
  ...(leaf(serial) as Extract<SecretContent, { kind: 'svid' }>),
  bundleSequence,
});
const bundle = (sequence: number): SecretContent => ({ kind: 'bundle', sequence });
const issued = (...serials: string[]): IssuedCertificate[] =>
  serials.map((serial) => ({
    serial,
    spiffeId: idOf(serial),
    entryId: serial,
    issuerKeyId: issuerOf(serial),
    notAfter: expiry(serial),
  }));

type Act = readonly ['sent' | 'confirmed', number, string, SecretContent];
const sent = (pid: number, name: string, content: SecretContent): Act => ['sent', pid, name, content];
const confirmed = (pid: number, name: string, content: SecretContent): Act => [
  'confirmed',
  pid,
  name,
  content,
];

function play(coverage: Coverage, acts: readonly Act[]): void {
  for (const [kind, pid, name, content] of acts) {
    coverage[kind]({ uid: 1_000, pid, node: `n${pid}` }, name, content, at(pid));
  }
}

const show = ({ spiffeId, node, sequence, leaves }: Holder): string =>
  `${spiffeId.at(-1)}@${node || '?'} bundle ${sequence} ${leaves.map(({ issuerKeyId }) => issuerKeyId).join()}`;

test.each<[string, Act[], IssuedCertificate[], string[], number?]>([
  ['nothing was ever issued', [], [], []],
  ['a certificate that no proxy was sent', [], issued('a1'), ['a@? bundle null old']],
  ['and that is over', [], issued('a1'), [], 100],
  [
    'a proxy that was sent all and said nothing',
    [sent(1, 'default', leaf('a1')), sent(1, 'ROOTCA', bundle(1))],
    issued('a1'),
    ['a@n1 bundle null old'],
  ],
  [
    'a proxy that confirmed all',
    [confirmed(1, 'default', leaf('a1')), confirmed(1, 'ROOTCA', bundle(1))],
    issued('a1'),
    ['a@n1 bundle 1 old'],
  ],
  [
    'a proxy that confirmed its certificate and asks for no bundle',
    [confirmed(1, 'default', leaf('a1'))],
    issued('a1'),
    ['a@n1 bundle null old'],
  ],
  [
    'a newer bundle that is not confirmed',
    [confirmed(1, 'default', leaf('a1')), confirmed(1, 'ROOTCA', bundle(1)), sent(1, 'ROOTCA', bundle(2))],
    issued('a1'),
    ['a@n1 bundle 1 old'],
  ],
  [
    'two names of the bundle count as the older one',
    [confirmed(1, 'default', leaf('a1')), confirmed(1, 'ROOTCA', bundle(2)), confirmed(1, 'ALL', bundle(1))],
    issued('a1'),
    ['a@n1 bundle 1 old'],
  ],
  [
    'a second name that was never confirmed',
    [confirmed(1, 'default', leaf('a1')), confirmed(1, 'ROOTCA', bundle(2)), sent(1, 'ALL', bundle(2))],
    issued('a1'),
    ['a@n1 bundle null old'],
  ],
  [
    'a newer certificate that is not confirmed: both count',
    [confirmed(1, 'default', leaf('a1')), sent(1, 'default', leaf('a2'))],
    issued('a1', 'a2'),
    ['a@n1 bundle null old,new'],
  ],
  [
    'a newer certificate that is confirmed: it alone counts',
    [
      confirmed(1, 'default', leaf('a1')),
      sent(1, 'default', leaf('a2')),
      confirmed(1, 'default', leaf('a2')),
    ],
    issued('a1', 'a2'),
    ['a@n1 bundle null new'],
  ],
  [
    'unless the old one is in use under another name',
    [
      confirmed(1, 'default', leaf('a1')),
      confirmed(1, idOf('a1'), leaf('a1')),
      confirmed(1, 'default', leaf('a2')),
    ],
    issued('a1', 'a2'),
    ['a@n1 bundle null new,old'],
  ],
  [
    'or by another process',
    [
      confirmed(1, 'default', leaf('a1')),
      confirmed(2, 'default', leaf('a1')),
      confirmed(1, 'default', leaf('a2')),
    ],
    issued('a1', 'a2'),
    ['a@n1 bundle null new', 'a@n2 bundle null old'],
  ],
  [
    'what one process confirms says nothing of another',
    [
      confirmed(1, 'default', leaf('a1')),
      confirmed(1, 'ROOTCA', bundle(2)),
      confirmed(2, 'default', leaf('a1')),
      confirmed(2, 'ROOTCA', bundle(1)),
    ],
    issued('a1'),
    ['a@n1 bundle 2 old', 'a@n2 bundle 1 old'],
  ],
  [
    'a proxy whose certificates are all over is no holder',
    [confirmed(1, 'default', leaf('a1')), confirmed(1, 'ROOTCA', bundle(1))],
    issued('a1'),
    [],
    100,
  ],
  [
    'two identities of one process',
    [
      confirmed(1, idOf('a1'), leaf('a1')),
      confirmed(1, idOf('b2'), leaf('b2')),
      confirmed(1, 'ROOTCA', bundle(3)),
    ],
    issued('a1', 'b2'),
    ['a@n1 bundle 3 old', 'b@n1 bundle 3 new'],
  ],
  [
    'a certificate that came with a bundle: who presents it has both',
    [sent(1, 'workload-api', leafWith('a1', 2))],
    issued('a1'),
    ['a@n1 bundle 2 old'],
  ],
  [
    'sent once more with a later bundle, which may not have been read',
    [sent(1, 'workload-api', leafWith('a1', 1)), sent(1, 'workload-api', leafWith('a1', 2))],
    issued('a1'),
    ['a@n1 bundle 1 old'],
  ],
  [
    'the older of two certificates tells',
    [sent(1, 'workload-api', leafWith('a1', 1)), sent(1, 'workload-api', leafWith('a2', 2))],
    issued('a1', 'a2'),
    ['a@n1 bundle 1 old,new'],
  ],
  [
    'until it is over',
    [sent(1, 'workload-api', leafWith('a1', 1)), sent(1, 'workload-api', leafWith('a2', 2))],
    issued('a1', 'a2'),
    ['a@n1 bundle 2 new'],
    100,
  ],
  [
    'a proxy confirms the same certificate: that says nothing of the other process',
    [
      sent(1, 'workload-api', leafWith('a1', 1)),
      confirmed(2, 'default', leaf('a1')),
      confirmed(2, 'ROOTCA', bundle(2)),
    ],
    issued('a1'),
    ['a@n1 bundle 1 old', 'a@n2 bundle 2 old'],
  ],
  [
    'a process that takes certificates both ways is as far as the older',
    [
      sent(1, 'workload-api', leafWith('a1', 1)),
      confirmed(1, 'default', leaf('a1')),
      confirmed(1, 'ROOTCA', bundle(2)),
    ],
    issued('a1'),
    ['a@n1 bundle 1 old'],
  ],
  [
    'and counts for nothing when one way brings no bundle',
    [sent(1, 'workload-api', leafWith('a1', 2)), confirmed(1, 'default', leaf('a1'))],
    issued('a1'),
    ['a@n1 bundle null old'],
  ],
  [
    'a certificate beside those of a proxy counts for itself',
    [confirmed(1, 'default', leaf('a1')), confirmed(1, 'ROOTCA', bundle(1))],
    issued('a1', 'a3'),
    ['a@n1 bundle 1 old', 'a@? bundle null new'],
  ],
])('%s', (_, acts, certificates, holders, seconds = 50) => {
  const coverage = createCoverage([]);
  play(coverage, acts);
  expect(coverage.evidence(certificates, at(seconds), null).holders.map(show)).toEqual(holders);
  // The same when it comes from its rows.
  const again = createCoverage(coverage.takeChange(at(seconds)).put);
  expect(again.evidence(certificates, at(seconds), null).holders.map(show)).toEqual(holders);
});

test.each([
  ['no JSON', '{'],
  ['no object', 'null'],
  ['no fields', '{}'],
  [
    'another key',
    JSON.stringify({
      uid: 1_000,
      pid: 9,
      node: '',
      name: 'default',
      lastSeen: at(0),
      confirmed: null,
      sent: [],
      replaced: [],
    }),
  ],
])('a row with %s is dropped, and who it spoke of counts as unknown', (_, record) => {
  const coverage = createCoverage([{ key: '[1000,1,"default"]', record }]);
  expect(coverage.evidence(issued('a1'), at(1), null).holders.map(show)).toEqual(['a@? bundle null old']);
  expect(coverage.takeChange(at(1))).toEqual({ put: [], remove: ['[1000,1,"default"]'] });
});

test('only what changed is written, and what is over is removed', () => {
  const coverage = createCoverage([]);
  play(coverage, [confirmed(1, 'default', leaf('a1')), confirmed(2, 'default', leaf('a9'))]);
  expect(coverage.takeChange(at(10)).put).toHaveLength(2);
  expect(coverage.takeChange(at(10))).toEqual({ put: [], remove: [] });
  play(coverage, [confirmed(2, 'ROOTCA', bundle(1))]);
  expect(coverage.takeChange(at(10)).put.map(({ key }) => key)).toEqual(['[1000,2,"ROOTCA"]']);
  expect(coverage.takeChange(at(90_000)).remove).toHaveLength(3);
});

test('after a crash a certificate that another has confirmed may still be with somebody unknown', () => {
  const coverage = createCoverage([]);
  play(coverage, [confirmed(1, 'ROOTCA', bundle(1)), confirmed(1, 'default', leaf('a1'))]);
  const rows = coverage.takeChange(at(0)).put;
  play(coverage, [['sent', 2, 'default', leaf('a1')]]);
  const after = (doubtful: readonly IssuedCertificate[], seconds: number) =>
    createCoverage(rows, doubtful).evidence(issued('a1'), at(seconds), null).holders.map(show);
  expect(after([], 1)).toHaveLength(1);
  expect(after(issued('a1'), 1)).toContain('a@? bundle null old');
  expect(after(issued('a1'), 1)).toHaveLength(2);
  expect(after(issued('a1'), 101)).toEqual([]);
});

// Whatever was not yet written when the process died may only make people look later, never safer.
test('a crash never makes anybody look more covered than they are', () => {
  const serial = fc.constantFrom('a1', 'a2', 'b1', 'b2');
  const act: fc.Arbitrary<Act> = fc
    .tuple(
      fc.constantFrom('sent' as const, 'confirmed' as const),
      fc.nat(2),
      fc.oneof(
        serial.map((one): [string, SecretContent] => [idOf(one), leaf(one)]),
        fc.constantFrom('ROOTCA', 'ALL').map((name): [string, SecretContent] => [name, bundle(0)]),
      ),
    )
    .map(([kind, pid, [name, content]]): Act => [kind, pid, name, content]);
  fc.assert(
    fc.property(fc.array(act, { maxLength: 30 }), fc.nat(30), (acts, cut) => {
      // Bundles only ever get newer.
      const grown = acts.map(([kind, pid, name, content], i): Act => [
        kind,
        pid,
        name,
        content.kind === 'bundle' ? bundle(i + 1) : content,
      ]);
      const whole = createCoverage([]);
      play(whole, grown.slice(0, cut));
      const kept = whole.takeChange(at(0)).put as CoverageRow[];
      play(whole, grown.slice(cut));
      const all = issued('a1', 'a2', 'b1', 'b2');
      const lost = createCoverage(kept, all);
      for (const held of whole.evidence(all, at(50), null).holders) {
        for (const { issuerKeyId, notAfter } of held.leaves) {
          // Every certificate in use is still seen to be in use, by somebody who is no further than its real holder.
          const seen = lost
            .evidence(all, at(50), null)
            .holders.filter((one) =>
              one.leaves.some((own) => own.issuerKeyId === issuerKeyId && +own.notAfter === +notAfter),
            );
          expect(seen.some(({ sequence }) => (sequence ?? 0) <= (held.sequence ?? Infinity))).toBe(true);
        }
      }
    }),
    { numRuns: 500 },
  );
});

test.each<[string, readonly string[], Act[], string[]]>([
  ['one that nobody was sent', ['a1'], [], ['a@? bundle null new']],
  [
    'the one in use',
    ['a1'],
    [confirmed(1, 'default', leaf('a1')), confirmed(1, 'ROOTCA', bundle(1))],
    ['a@? bundle null new'],
  ],
  [
    'one beside another',
    ['a1'],
    [sent(1, 'default', leaf('a1')), sent(1, 'default', leaf('a2'))],
    ['a@n1 bundle null new'],
  ],
  ['none', [], [confirmed(1, 'default', leaf('a1'))], ['a@n1 bundle null old', 'a@? bundle null new']],
])('a certificate that nobody can use any more is in nobody’s way: %s', (_, over, acts, holders) => {
  const coverage = createCoverage([]);
  play(coverage, acts);
  const isOver = ({ serial }: { readonly serial: string }) => over.includes(serial);
  const { holders: seen } = coverage.evidence(issued('a1', 'a2'), at(50), null, isOver);
  expect(seen.map(show)).toEqual(holders);
});

test('a node that invents processes and certificates is remembered up to a bound, and takes no room of others', () => {
  const coverage = createCoverage([]);
  const client = (host: string, pid: number) => ({ uid: 1, pid, node: 'n', host });
  for (let pid = 0; pid < maxHoldingsPerHost + 100; pid += 1) {
    coverage.sent(client('liar', pid), 'x', leaf('b9'), at(0));
  }
  for (let count = 0; count < 1_000; count += 1) {
    const content = { ...leaf('b9'), serial: `${count}` } as SecretContent;
    coverage.confirmed(client('liar', 0), 'x', content, at(0));
  }
  coverage.confirmed(client('other', 1), 'x', leafWith('a1', 2), at(0));
  const { put } = coverage.takeChange(at(0));
  expect(put).toHaveLength(maxHoldingsPerHost + 1);
  expect(Math.max(...put.map(({ record }) => record.length))).toBeLessThan(8_192);
  expect(coverage.evidence(issued('a1'), at(1), null).holders.map(show)).toContain('a@n bundle 2 old');
  // What has ended makes room again.
  coverage.takeChange(at(1_000));
  coverage.sent(client('liar', 1_000_000), 'x', bundle(1), at(1_000));
  expect(coverage.takeChange(at(1_000)).put).toHaveLength(1);
});

test('a node that names the serial of a foreign certificate as one of its own does not speak for its holder', () => {
  const coverage = createCoverage([]);
  const liar = { uid: 1, pid: 1, node: 'n', host: 'liar' };
  const forged = { ...leafWith('b1', 9), spiffeId: idOf('a1') } as SecretContent;
  coverage.confirmed(liar, 'x', forged, at(0));
  const foreign = () => coverage.evidence(issued('b1'), at(1), null).holders.map(show);
  expect(foreign()).toContain('b@? bundle null old');
  coverage.confirmed(liar, 'x', leafWith('a1', 9), at(1));
  expect(foreign()).toContain('b@? bundle null old');
});
