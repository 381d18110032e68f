import { randomInt } from 'node:crypto';
import { expect, test } from 'vitest';
import { parseAuditQuery } from '../src/audit/question.ts';
import { parsePolicy } from '../src/authz/parse.ts';
import { readCsr } from '../src/ca/csr.ts';
import { MeshError } from '../src/errors.ts';
import { createPeerCertificateReader } from '../src/ext-authz/peer-certificate.ts';
import { readCheck } from '../src/ext-authz/request.ts';
import { parseJsonBody } from '../src/http/json-body.ts';
import { parseBanTarget } from '../src/identity/ban.ts';
import { readEntryDocument } from '../src/identity/entry-document.ts';
import { parseEntry } from '../src/identity/entry-parse.ts';
import { parseSelector } from '../src/identity/selector.ts';
import { readCertificate } from '../src/spiffe/certificate.ts';
import { SpiffeId, TrustDomain } from '../src/spiffe/id.ts';
import { readJwt } from '../src/spiffe/jwt-token.ts';
import { decodePem, encodePem } from '../src/spiffe/pem.ts';
import { checkX509Authority, checkX509SvidLeaf } from '../src/spiffe/svid.ts';
import { DiscoveryRequest } from '../src/wire/discovery.ts';
import { SignX509Request } from '../src/wire/sign.ts';
import { readDocuments } from '../src/yaml.ts';
import { makeCsr } from './ca/csr-writer.ts';
import { makeTestAuthority } from './ca/test-authority.ts';
import { checkBytes } from './ext-authz/check-input.ts';
import { seeded } from './harness/seeded.ts';

// Each parser for about a second, on inputs made from good ones by random edits. The seed is printed with what it found;
// SEED=... plays it again, FUZZ_MS=... takes longer.
const seed = Number(process.env['SEED'] ?? randomInt(2 ** 31));
const budgetMs = Number(process.env['FUZZ_MS'] ?? 800);
const slowMs = 50;
// YAML is read by administrators only, in time that grows with its length.
const slowMsPerKilobyte = 20;

const authority = await makeTestAuthority(new Date());
const leaf = authority.root.certificate;
const trustDomain = TrustDomain.parse('example.org');
const readPeer = createPeerCertificateReader();
const pem = encodePem('CERTIFICATE', leaf);
const csr = Buffer.from(makeCsr());

const entryYaml = `apiVersion: countersign.dev/v1
kind: RegistrationEntry
metadata: { name: web, labels: { app: web } }
spec:
  spiffeId: spiffe://example.org/ns/shop/sa/web
  selectors: ["unix:uid:1000", unix:path:/usr/bin/envoy]
  ttlSeconds: 600
  dnsNames: [web.shop.svc]
  hint: internal
  expiresAt: 2030-01-01T00:00:00Z
`;
const policyYaml = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: api, namespace: shop }
spec:
  selector: { matchLabels: { app: api } }
  action: DENY
  rules:
    - from: [{ source: { principals: ["example.org/ns/shop/sa/*"], notNamespaces: [a] } }]
      to: [{ operation: { hosts: ["*.shop"], methods: [GET], paths: ["/a/{*}/b", "/c*"], notPorts: ["80"] } }]
`;
const discovery = DiscoveryRequest.encode({
  versionInfo: '1',
  node: undefined,
  resourceNames: ['default', 'ROOTCA'],
  typeUrl: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret',
  responseNonce: '2',
  errorDetail: undefined,
}).finish();
const signing = SignX509Request.encode({ csr, spiffeId: 'spiffe://example.org/a', ttlSeconds: 9n }).finish();
const jwt = [
  { alg: 'ES256', kid: 'a', typ: 'JWT' },
  { sub: 'spiffe://example.org/a', aud: ['b'], exp: 2_000_000_000 },
  {},
]
  .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
  .join('.');

type Case = readonly [
  name: string,
  parse: (input: Buffer) => unknown,
  corpus: readonly (string | Uint8Array)[],
  kind?: 'any' | 'long',
];

/** gRPC answers for whatever a decoder throws; all others throw our own errors only, and never call them our fault. */
const parsers: readonly Case[] = [
  [
    'PEM',
    (input) => decodePem(input.toString('latin1'), 'CERTIFICATE', { maxBytes: 65_536 }),
    [pem, pem + pem],
  ],
  ['a certificate', readCertificate, [leaf, authority.intermediate.certificate]],
  ['an X509-SVID', checkX509SvidLeaf, [leaf]],
  ['a CA certificate', checkX509Authority, [leaf, authority.intermediate.certificate]],
  ['a certificate request', readCsr, [csr, encodePem('CERTIFICATE REQUEST', csr)]],
  [
    'a SPIFFE ID',
    (input) => SpiffeId.parse(input.toString()),
    ['spiffe://example.org/ns/shop/sa/web', 'spiffe://a'],
  ],
  ['a selector', (input) => parseSelector(input.toString()), ['unix:uid:1000', 'unix:path:/usr/bin/envoy']],
  [
    'an entry',
    (input) =>
      readDocuments({ file: 'f', text: input.toString() }).map((document) => {
        const { input: entry, locate } = readEntryDocument(document);
        return parseEntry(entry, { trustDomain, ttlSeconds: 600 }, 1, locate);
      }),
    [entryYaml],
    'long',
  ],
  [
    'a policy',
    (input) => readDocuments({ file: 'f', text: input.toString() }).map(parsePolicy),
    [policyYaml],
    'long',
  ],
  [
    'a check',
    (input) => readCheck(input, readPeer),
    [checkBytes({}), checkBytes({ certificate: encodeURIComponent(pem) })],
  ],
  ['a request for secrets', (input) => DiscoveryRequest.decode(input), [discovery], 'any'],
  ['a request to sign', (input) => SignX509Request.decode(input), [signing], 'any'],
  ['a JSON body', parseJsonBody, [JSON.stringify({ a: [1, { b: null }], c: 'd' })]],
  ['a ban', (input) => parseBanTarget('serial', input.toString()), ['40ab', 'FF:00']],
  [
    'a question to the log',
    (input) => parseAuditQuery({ since: input.toString(), cursor: input.toString() }, new Date(0)),
    ['10m', '2026-01-01'],
  ],
  ['a JWT', (input) => readJwt(input.toString('latin1')), [`${jwt.slice(0, -3)}${'A'.repeat(86)}`]],
];

const cases = parsers.map(([name, parse, corpus, kind]) => ({ name, parse, corpus, kind }));

test.each(cases)('$name: read or refused in time, whatever the bytes', ({ name, parse, corpus, kind }) => {
  const random = seeded(seed);
  const good = corpus.map((one) => Buffer.from(one as Uint8Array));
  const deadline = performance.now() + budgetMs;
  let runs = 0;
  for (; performance.now() < deadline; runs++) {
    const input = mutate(good, random);
    const context = () =>
      `${name}, seed ${seed}, run ${runs}: ${input.subarray(0, 2_000).toString('base64')}`;
    const limitMs = slowMs + (kind === 'long' ? (input.length / 1_024) * slowMsPerKilobyte : 0);
    let took = attempt(parse, input, kind === 'any', context);
    // Somebody else may have had the processor.
    for (let again = 0; took > limitMs && again < 3; again++)
      took = attempt(parse, input, kind === 'any', context);
    if (took > limitMs) expect.fail(`${Math.round(took)} ms for ${input.length} bytes of ${context()}`);
  }
  expect(runs).toBeGreaterThan(0);
});

function attempt(
  parse: (input: Buffer) => unknown,
  input: Buffer,
  mayThrow: boolean,
  context: () => string,
): number {
  // Time of the processor: others use it, too.
  const before = process.cpuUsage();
  try {
    parse(input);
  } catch (error) {
    const ours = error instanceof MeshError && error.kind !== 'internal';
    if (!ours && !mayThrow) throw new Error(context(), { cause: error });
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

const tokens = [
  ...[
    '\0',
    '\u202e',
    '\ud7ff',
    '%2f',
    '../',
    '//',
    '__proto__',
    'constructor',
    ' ',
    '\r\n',
    '\t',
    '-',
    ':',
    '[',
    '{',
    '"',
    '&a ',
    '*a',
    '!!js ',
  ],
  ...[
    '-----BEGIN CERTIFICATE-----\n',
    '-----END CERTIFICATE-----\n',
    '1e999',
    '-1',
    '99999999999999999999',
    '\ufeff',
    '---\n',
    '? ',
  ],
].map((text) => Buffer.from(text));
const bytes = [
  [0xff, 0xff, 0xff, 0xff, 0x0f],
  [0x30, 0x80],
  [0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
  [0, 0],
  [0x0a],
  [0xa0, 0x03],
];

function mutate(corpus: readonly Buffer[], random: () => number): Buffer {
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  let input = pick(corpus);
  for (let edits = 1 + Math.floor(random() * 4); edits > 0; edits--) {
    const at = Math.floor(random() * (input.length + 1));
    const to = Math.min(input.length, at + Math.floor(random() ** 3 * input.length) + 1);
    const cut = (middle: Buffer) => Buffer.concat([input.subarray(0, at), middle, input.subarray(to)]);
    const part = input.subarray(at, to);
    const kind = Math.floor(random() * 8);
    if (kind === 0) input = cut(Buffer.alloc(0));
    else if (kind === 1) input = input.subarray(0, at);
    else if (kind === 2) input = cut(pick(tokens));
    else if (kind === 3) input = cut(Buffer.from(pick(bytes)));
    else if (kind === 4) input = cut(Buffer.concat([part, part]));
    else if (kind === 5 && part.length > 0)
      input = cut(Buffer.alloc(Math.min(200_000, part.length * 2 ** Math.floor(random() * 14)), part));
    else if (kind === 6) input = cut(Buffer.concat([part, pick(corpus).subarray(at)]));
    else {
      input = Buffer.from(input);
      if (at < input.length) input[at] = Math.floor(random() * 256);
    }
    if (input.length > 300_000) input = input.subarray(0, 300_000);
  }
  return input;
}
