import { generateKeyPairSync, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MeshError } from '../src/errors.ts';
import { type Log, openLog } from '../src/log.ts';
import { redactLine } from '../src/log-redaction.ts';

const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 }).privateKey;
const edwards = generateKeyPairSync('ed25519').privateKey;
const large = generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey;
const jwk = JSON.stringify(key.export({ format: 'jwk' }));
const pkcs8 = key.export({ format: 'der', type: 'pkcs8' });
const jwt = `eyJhbGciOiJFUzI1NiJ9.${Buffer.from('{"sub":"spiffe://mesh.test/a"}').toString('base64url')}.c2lnbmF0dXJl`;
const hex = (bytes: number): string => randomBytes(bytes).toString('hex');
const join = hex(32);
const admin = hex(32);

/** What is told, and what of it must never be written. */
type Secret = readonly [kind: string, told: string, hidden: string];
const bodyOf = (pem: string): string => pem.split('\n')[1] ?? '';
const pemOf = (which: typeof key, type: 'pkcs8' | 'sec1' | 'pkcs1'): string =>
  which.export({ format: 'pem', type } as never).toString();
const byPattern: readonly Secret[] = [
  ['a PKCS #8 key', pemOf(key, 'pkcs8'), bodyOf(pemOf(key, 'pkcs8'))],
  ['a SEC 1 key', pemOf(key, 'sec1'), bodyOf(pemOf(key, 'sec1'))],
  ['an RSA key', pemOf(rsa, 'pkcs1'), bodyOf(pemOf(rsa, 'pkcs1'))],
  ['an Ed25519 key', pemOf(edwards, 'pkcs8'), bodyOf(pemOf(edwards, 'pkcs8'))],
  ['the beginning of a key', pemOf(rsa, 'pkcs8').slice(0, 300), bodyOf(pemOf(rsa, 'pkcs8'))],
  ['a key in base64', pkcs8.toString('base64'), pkcs8.toString('base64').slice(30, 80)],
  [
    'an RSA key in base64',
    rsa.export({ format: 'der', type: 'pkcs8' }).toString('base64'),
    rsa.export({ format: 'der', type: 'pkcs8' }).toString('base64').slice(40, 90),
  ],
  ['a key in hex', pkcs8.toString('hex'), pkcs8.toString('hex').slice(60, 120)],
  ...[pemOf(rsa, 'pkcs1'), pemOf(large, 'pkcs8'), pemOf(large, 'sec1')].map((pem): Secret => {
    const lines = pem.split('\n').slice(1, -2);
    return ['the lines of a key', lines.join('\n'), lines[1] ?? ''];
  }),
  [
    'a key in base64url',
    rsa.export({ format: 'der', type: 'pkcs8' }).toString('base64url'),
    rsa.export({ format: 'der', type: 'pkcs8' }).toString('base64url').slice(-40),
  ],
  [
    'PEM in base64',
    Buffer.from(pemOf(rsa, 'pkcs8')).toString('base64'),
    Buffer.from(pemOf(rsa, 'pkcs8')).toString('base64').slice(90, 130),
  ],
  ['PEM in a URL', encodeURIComponent(pemOf(rsa, 'pkcs1')), encodeURIComponent(bodyOf(pemOf(rsa, 'pkcs1')))],
  [
    'a key as a dump',
    pkcs8.toString('hex').replaceAll(/..(?=.)/g, '$&:'),
    pkcs8.toString('hex', 40, 48).replaceAll(/..(?=.)/g, '$&:'),
  ],
  ['a key in decimal', JSON.stringify([...pkcs8]), [...pkcs8.subarray(40, 50)].join(',')],
  ['a JWK', jwk, key.export({ format: 'jwk' }).d ?? ''],
  ['a join token', `cst1.${join}.${hex(32)}`, join],
  ['an admin token', `ctk_0123456789abcdef_${admin}`, admin],
  ['a JWT', jwt, jwt.split('.')[1] ?? ''],
  ['a bearer token', `Bearer ${hex(20)}`.replace(/ .*/, ' sesame-0123'), 'sesame-0123'],
  ['a basic credential', 'Basic c2VzYW1lOm9wZW4=', 'c2VzYW1l'],
  ['a header', 'Authorization: Token sesame opens', 'sesame'],
  ['a cookie', 'set-cookie: a=sesame; path=/', 'sesame'],
  ['a passphrase', 'passphrase=sesame', 'sesame'],
  ['a password in a URL', 'https://me:sesame@example.org/', 'sesame'],
  ['a password with a sign', 'https://me:open@sesame@example.org/', 'sesame'],
  ['a variable', 'MY_OWN_JOIN_TOKEN=sesame', 'sesame'],
  ['an argument', 'run --join-token sesame', 'sesame'],
  ['an element', '<password>sesame</password>', 'sesame'],
  ['a secret with a name', '{"clientSecret": "sesame street"}', 'sesame'],
];
const byName: readonly Secret[] = [
  ...['privateKey', 'private_key', 'PKCS8', 'passphrase', 'password', 'secret', 'token', 'joinToken'],
  ...[
    'access_token',
    'authorization',
    'Proxy-Authorization',
    'cookie',
    'set-cookie',
    'apiKey',
    'clientSecret',
    'privateKeyPem',
    'jwtSvid',
    'credentials',
  ],
].map((name) => [name, name, 'sesame'] as const);

/** Every way in which something is logged. */
const ways: readonly (readonly [way: string, log: (log: Log, told: string) => void])[] = [
  ['the message', (log, told) => log.info(told)],
  ['part of the message', (log, told) => log.warn(`it was ${told}, and more`)],
  ['an argument of the message', (log, told) => log.info('it was %s', told)],
  ['an object of the message', (log, told) => log.info('it was %j', { told })],
  ['a detail', (log, told) => log.error({ detail: told }, 'said')],
  ['a nested detail', (log, told) => log.error({ a: { b: [{ c: { d: told } }] } }, 'said')],
  ['a name', (log, told) => log.error({ [told]: 1 }, 'said')],
  ['a header of a request', (log, told) => log.error({ req: { headers: { 'x-any': told } } }, 'said')],
  ['an error', (log, told) => log.error(new Error(told))],
  ['an error with a name', (log, told) => log.error({ err: new Error(told) }, 'failed')],
  ['an error below another name', (log, told) => log.error({ cause: new Error(told) }, 'failed')],
  [
    'the cause of an error',
    (log, told) =>
      log.error({ err: new Error('outer', { cause: new Error('inner', { cause: new Error(told) }) }) }),
  ],
  ['a cause that is no error', (log, told) => log.error({ err: new Error('outer', { cause: told }) })],
  [
    'an error of ours',
    (log, told) => log.error({ err: new MeshError('internal', told, { fix: told }) }, 'failed'),
  ],
  [
    'a field of an error',
    (log, told) => log.error({ err: Object.assign(new Error('outer'), { body: told }) }),
  ],
  ['a field of a child', (log, told) => log.child({ request: told }).info('said')],
  ['a text in JSON', (log, told) => log.info({ body: JSON.stringify({ told }) }, 'said')],
  ['a value that makes its own JSON', (log, told) => log.info({ it: { toJSON: () => ({ told }) } }, 'said')],
];

describe.each(ways)('%s', (_, say) => {
  test.each(byPattern)('does not tell %s', (_kind, told, hidden) => {
    expect(written((log) => say(log, told))).not.toContain(hidden);
  });
});

test.each(byName)('what is called %s is not told, at any depth and of any kind', (name, _, hidden) => {
  const text = written((log) => {
    log.info({ [name]: hidden }, 'said');
    log.info({ a: [{ b: { [name]: { inner: hidden } } }] }, 'said');
    log.error({ err: Object.assign(new Error('outer'), { [name]: [hidden] }) });
    log.child({ [name]: hidden }).info('said');
  });
  expect(text).not.toContain(hidden);
  expect(text.match(/said|outer/g)?.length).toBeGreaterThanOrEqual(4);
});

test.each<[string, unknown]>([
  ['a buffer', pkcs8],
  ['bytes', new Uint8Array(pkcs8)],
  ['bytes in a list', [...pkcs8]],
  ['few bytes', pkcs8.subarray(0, 12)],
  ['bytes in an object', { key: { der: new Uint8Array(pkcs8) } }],
])('bytes are not told: %s', (_, bytes) => {
  const text = written((log) => log.info({ bytes }, 'said'));
  expect(text).toContain('said');
  expect(text).not.toMatch(/48,\s*129|"0":48/);
});

test.each<[string, unknown]>([
  ['raw headers', ['Authorization', 'Token sesame', 'Host', 'a', 'Cookie', 'b=sesame']],
  ['a header with a name', [{ name: 'authorization', value: 'sesame' }]],
  ['a header with a key', [{ key: 'cookie', rawValue: 'sesame' }]],
  ['a symmetric key', { kty: 'oct', k: 'sesame' }],
  ['a key line by line', ['-----BEGIN PRIVATE KEY-----', 'sesame', '-----END PRIVATE KEY-----']],
])('what its neighbour tells to be secret is not told: %s', (_, detail) => {
  const text = written((log) => log.info({ detail }, 'said'));
  expect(text).toContain('said');
  expect(text).not.toContain('sesame');
});

test.each([
  ['an ordinary line', { entry: 'web', serial: 'ab'.repeat(20), address: '127.0.0.1:7443' }],
  [
    'names that are about secrets',
    { tokenId: '0123', secretSha256: 'ab'.repeat(32), passphraseFile: '/etc/p' },
  ],
  [
    'a fingerprint and a certificate',
    { spkiSha256: '30'.repeat(32), pem: '-----BEGIN CERTIFICATE-----\nAA' },
  ],
  ['addresses', { url: 'https://localhost:7443/v1', id: 'spiffe://mesh.test/a' }],
  ['numbers', { list: [1, 2, 3], streams: 12, ok: true, none: null }],
])('what is no secret is told as it is: %s', (_, detail) => {
  expect(JSON.parse(written((log) => log.info(detail, 'said')))).toMatchObject({ ...detail, msg: 'said' });
});

test('whatever is logged, each line is one JSON object and holds none of the secrets', () => {
  const secret = fc.constantFrom(...byPattern);
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 4 },
      fc.string(),
      tie('told'),
      fc.array(tie('any'), { maxLength: 4 }),
      tie('object'),
    ),
    object: fc.dictionary(fc.string(), tie('any'), { maxKeys: 4 }),
    told: fc
      .tuple(fc.string(), secret, fc.string())
      .map(([before, [, told], after]) => `${before} ${told} ${after}`),
  }));
  fc.assert(
    fc.property(value.any, secret, (detail, [, told]) => {
      const text = written((log) => log.warn({ detail }, `said ${told}`));
      expect(text.trimEnd().split('\n')).toHaveLength(1);
      JSON.parse(text);
      for (const [kind, , hidden] of byPattern) expect(text.includes(hidden), kind).toBe(false);
    }),
    { numRuns: 300 },
  );
});

test.each([
  ['a long text', 'a'.repeat(1_000_000)],
  ['beginnings without an end', '-----BEGIN PRIVATE KEY-----'.repeat(40_000)],
  ['what looks like a token for ever', `eyJ${'a.'.repeat(500_000)}`],
  ['names without values', 'token secret= '.repeat(50_000)],
  ['schemes', '://'.repeat(300_000)],
  ['hex', '30'.repeat(400_000)],
])('a hostile line costs little and is cut: %s', (_, hostile) => {
  const started = process.cpuUsage();
  const text = redactLine(`${JSON.stringify({ level: 30, msg: hostile })}\n`);
  expect(text.length).toBeLessThan(40_000);
  JSON.parse(text);
  // Of processor time, and far above what it takes: to tell a second from a minute.
  expect(process.cpuUsage(started).user / 1_000).toBeLessThan(5_000);
});

test('what is no line of JSON is left out', () => {
  expect(redactLine('{"token":"sesame"')).not.toContain('sesame');
});

function written(say: (log: Log) => void): string {
  const lines: string[] = [];
  say(openLog('debug', (line) => lines.push(line)));
  return lines.join('');
}
