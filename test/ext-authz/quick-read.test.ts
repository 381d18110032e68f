import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { type CheckParts, readQuickly } from '../../src/ext-authz/quick-read.ts';
import { readSlowly } from '../../src/ext-authz/slow-read.ts';
import { checkBytes, type CheckInput } from './check-input.ts';

const names = [
  ':method',
  ':path',
  ':authority',
  'host',
  'x-a',
  'cookie',
  'x-countersign-a',
  'X-A',
  '1',
  '__proto__',
  'é',
];
const text = fc.oneof(
  fc.constantFrom('', 'GET', 'POST', '/a?b=c', 'h:80', 'a,b', 'x-a', '\ufeffx', 'é'),
  fc.string({ unit: 'binary' }),
);
const address = fc.oneof(
  fc.constant(null),
  fc.record({ host: fc.constantFrom('10.0.0.1', '::1', ''), port: fc.constantFrom(0, 1, 65_535, 70_000) }),
  fc.constant({ pipe: '/x' }),
);
const header = fc.tuple(fc.constantFrom(...names), text);
const anyInput: fc.Arbitrary<CheckInput> = fc.record(
  {
    principal: text,
    certificate: text,
    sourceAddress: address,
    destination: text,
    destinationAddress: address,
    http: fc.constant(null),
    method: text,
    path: text,
    host: text,
    headers: fc.array(header, { maxLength: 4 }).map((pairs) => Object.fromEntries(pairs)),
    rawHeaders: fc.array(header, { maxLength: 6 }),
    contextExtensions: fc.constantFrom({}, {}, {}, {}, { a: 'b' }),
    labels: fc.constantFrom({}, {}, {}, {}, { a: 'b' }),
    service: text,
  },
  { requiredKeys: [] },
);

// Headers both as bytes and as a map are for the generated decoder.
const input = fc
  .tuple(anyInput, fc.nat(4))
  .map(([one, way]): CheckInput =>
    way === 0 ? one : way < 3 ? { ...one, headers: {} } : { ...one, rawHeaders: [] },
  );

/** All that anybody reads of a check. */
function told(parts: CheckParts | undefined): unknown {
  if (parts === undefined) return undefined;
  const { source, destination, http, tlsSession, filterMetadata } = parts;
  const peer = (one: CheckParts['source']) =>
    one && { principal: one.principal, certificate: one.certificate, address: addressOf(one.address) };
  return {
    source: peer(source),
    destination: peer(destination),
    tlsSession,
    filterMetadata,
    http: http && {
      method: http.method,
      path: http.path,
      host: http.host,
      doubled: http.headers.doubled,
      torn: http.headers.isTorn,
      own: http.headers.select((name) => name.startsWith('x')),
      lines: names.map((name) => [http.headers.valuesOf(name), http.headers.linesOf(name)]),
    },
  };
}

function addressOf(address: NonNullable<CheckParts['source']>['address']): unknown {
  const kind = address?.address;
  return kind?.$case === 'socketAddress' ? { ...kind.socketAddress, protocol: 0 } : kind;
}

const counts = { quick: 0, changed: 0 };

function agree(bytes: Buffer): boolean {
  const quick = readQuickly(bytes);
  if (quick === undefined) return false;
  expect(told(quick)).toEqual(told(readSlowly(bytes)));
  return true;
}

test('what is read quickly is what the generated decoder reads', () => {
  fc.assert(
    fc.property(input, (one) => {
      if (agree(checkBytes(one))) counts.quick += 1;
    }),
    { numRuns: 600 },
  );
});

test('also when bytes of a message are changed, cut out or put in', () => {
  const edit = fc.record({ at: fc.nat(), byte: fc.nat(255), kind: fc.constantFrom('set', 'cut', 'put') });
  fc.assert(
    fc.property(input, fc.array(edit, { minLength: 1, maxLength: 3 }), (one, edits) => {
      let bytes = checkBytes(one);
      for (const { at, byte, kind } of edits) {
        const place = at % (bytes.length + 1);
        const put = kind === 'cut' ? Buffer.alloc(0) : Buffer.from([byte]);
        bytes = Buffer.concat([
          bytes.subarray(0, place),
          put,
          bytes.subarray(kind === 'put' ? place : place + 1),
        ]);
      }
      if (agree(bytes)) counts.changed += 1;
    }),
    { numRuns: 1_500 },
  );
});

test('both ways were taken', () => {
  console.log(counts);
  expect(counts.quick).toBeGreaterThan(10);
  expect(counts.changed).toBeGreaterThan(10);
});

test.each<[string, CheckInput]>([
  [
    'lines as bytes',
    {
      rawHeaders: [
        [':method', 'GET'],
        ['cookie', 'a=b'],
        ['cookie', 'c=d'],
      ],
    },
  ],
  ['a map', { headers: { ':method': 'GET', cookie: 'a=b' } }],
  ['no headers', {}],
])('a check as proxies send it is read quickly: %s', (_name, one) => {
  expect(agree(checkBytes(one))).toBe(true);
});

test('a long Connection header is read once, however many headers policies ask about', () => {
  const bytes = checkBytes({ rawHeaders: [['connection', `${'a,'.repeat(9_000)} X-5`]] });
  const linesOf = readQuickly(bytes)?.http?.headers.linesOf;
  const reads = vi.spyOn(bytes, 'toString');
  const answers = Array.from({ length: 9 }, (_, i) => linesOf?.(`x-${i}`));
  expect(answers.indexOf(undefined)).toBe(5);
  expect(reads).toHaveBeenCalledTimes(1);
});
