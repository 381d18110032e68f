import { X509Certificate } from 'node:crypto';
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { readBundleDocument } from '../../src/spiffe/bundle-document.ts';
import { createAuthority } from '../xds/certificates.ts';
import {
  endpointId,
  issuer,
  jwtBundleOf,
  spiffePair,
  startTrust,
  type TrustHarness,
  webPair,
} from './trust-harness.ts';

// Hundreds of requests come from one address here.
const rates = {
  perAddress: { burst: 100_000, perSecond: 1_000 },
  total: { burst: 100_000, perSecond: 1_000 },
};

let trust: TrustHarness;
beforeAll(async () => {
  trust = await startTrust({ rates });
});
afterAll(() => trust.listener.close(0));
afterEach(() => expect(trust.failures).toEqual([]));

describe('documents', () => {
  test.each(['/', '/bundle', '/bundle?cache=1', '/bundle?a=/keys'])(
    'GET %s is the SPIFFE bundle',
    async (path) => {
      const { status, headers, text, json } = await trust.ask({ path });
      expect(status).toBe(200);
      expect(headers).toMatchObject({
        'content-type': 'application/json',
        'cache-control': 'public, max-age=300',
        'content-length': `${Buffer.byteLength(text)}`,
        etag: expect.stringMatching(/^"[A-Za-z0-9_-]{22}"$/) as string,
      });
      expect(json).toMatchObject({ spiffe_sequence: 2, spiffe_refresh_hint: 300 });
      const read = readBundleDocument(Buffer.from(text), trust.authority.trustDomain);
      expect(read.x509?.x509Authorities).toEqual(trust.keys.x509.x509Authorities);
      expect(read.jwt.authorities).toEqual(trust.keys.jwt.authorities);
    },
  );

  test('discovery names the issuer exactly, and the keys are where it says', async () => {
    const found = await trust.ask({ path: '/tokens/.well-known/openid-configuration' });
    expect(found.json).toMatchObject({ issuer, jwks_uri: `${issuer}/keys` });
    const keys = await trust.ask({ path: new URL(String(found.json.jwks_uri)).pathname });
    expect(keys.json.keys).toEqual([
      expect.objectContaining({ kid: trust.keys.jwt.authorities[0]?.keyId, use: 'sig', alg: 'ES256' }),
    ]);
  });

  test('HEAD has the headers of GET and no body', async () => {
    const [head, whole] = [await trust.ask({ path: '/', method: 'HEAD' }), await trust.ask({ path: '/' })];
    expect([head.status, head.text]).toEqual([200, '']);
    for (const name of ['etag', 'content-length', 'content-type', 'cache-control'])
      expect(head.headers[name]).toBe(whole.headers[name]);
  });

  test('nothing is private, and nothing is left to a browser', async () => {
    for (const path of ['/', '/nothing']) {
      const { headers, text } = await trust.ask({ path });
      expect(headers).toMatchObject({
        'x-content-type-options': 'nosniff',
        'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
        'referrer-policy': 'no-referrer',
      });
      for (const name of ['set-cookie', 'access-control-allow-origin', 'server', 'x-powered-by'])
        expect(headers[name]).toBeUndefined();
      expect(text).not.toMatch(/"d"|PRIVATE/);
    }
  });
});

test('without an issuer there are no OIDC documents', async () => {
  const spiffeOnly = await startTrust({ rates, issuer: null });
  try {
    for (const path of ['/.well-known/openid-configuration', '/keys']) {
      const { status, json } = await spiffeOnly.ask({ path });
      expect([status, json.code]).toEqual([404, 'route_not_found']);
    }
    expect((await spiffeOnly.ask({ path: '/' })).status).toBe(200);
  } finally {
    await spiffeOnly.listener.close(0);
  }
});

describe('refusals', () => {
  test.each<[method: string, path: string, status: number, code: ErrorCode]>([
    ...[
      '/x',
      '/bundle/',
      '//bundle',
      '/./bundle',
      '/%62undle',
      '/BUNDLE',
      '/bundle%00',
      '/keys',
      '/../bundle',
    ].map((path): [string, string, number, ErrorCode] => ['GET', path, 404, 'route_not_found']),
    ['GET', '/.well-known/openid-configuration', 404, 'route_not_found'],
    ['GET', '/v1/status', 404, 'route_not_found'],
    ['GET', '/metrics', 404, 'route_not_found'],
    ['GET', '/healthz', 404, 'route_not_found'],
    ['GET', 'https://localhost/bundle', 404, 'route_not_found'],
    ['GET', '/__proto__', 404, 'route_not_found'],
    ['OPTIONS', '*', 404, 'route_not_found'],
    ['POST', '/nothing', 404, 'route_not_found'],
    ...['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND'].map(
      (method): [string, string, number, ErrorCode] => [method, '/bundle', 405, 'method_not_allowed'],
    ),
  ])('%s %s is %i %s', async (method, path, status, code) => {
    const answer = await trust.ask({ method, path });
    expect([answer.status, answer.json.code]).toEqual([status, code]);
    expect(answer.headers).toMatchObject({
      'content-type': 'application/problem+json; charset=utf-8',
      'cache-control': 'no-store',
      connection: 'close',
    });
    expect(answer.headers.allow).toBe(status === 405 ? 'GET, HEAD' : undefined);
  });

  test.each([
    ['a length', { 'content-length': '5' }, 'hello'],
    ['chunks', { 'transfer-encoding': 'chunked' }, 'hello'],
    ['a promise of 4 GiB', { 'content-length': '4294967296', expect: '100-continue' }, undefined],
  ])('a body with %s is refused, not read', async (_, headers, body) => {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const answer = await trust.raw(`GET / HTTP/1.1\r\nhost: x\r\n${lines.join('')}\r\n${body ?? ''}`);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toContain('"code":"body_invalid"');
  });

  test.each([
    ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400],
    ['two Hosts', 'GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n', 400],
    ['no HTTP', '\u0000\u0001\u0002 nonsense\r\n\r\n', 400],
    ['HTTP/2 by force', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    ['a space in the header name', 'GET / HTTP/1.1\r\nhost : a\r\n\r\n', 400],
    [
      'length and chunks',
      'POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n',
      400,
    ],
    ['a header of 17 KiB', `GET / HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(17_000)}\r\n\r\n`, 431],
    ['a path of 17 KiB', `GET /${'y'.repeat(17_000)} HTTP/1.1\r\nhost: a\r\n\r\n`, 431],
  ])('%s', async (_, text, status) => {
    const answer = await trust.raw(text);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer).toContain('"code":"body_invalid"');
  });

  test('what breaks inside stays inside', async () => {
    const broken = await startTrust({
      rates,
      documents: () => {
        throw new Error('the path /secret/place');
      },
    });
    try {
      const { status, json, text } = await broken.ask({ path: '/' });
      expect([status, json.code, json.errorId]).toEqual([
        500,
        'internal',
        expect.stringMatching(/^[0-9a-f]{16}$/),
      ]);
      expect(text).not.toContain('secret');
      expect([broken.failures.length, broken.answers]).toEqual([1, ['failed']]);
    } finally {
      await broken.listener.close(0);
    }
  });
});

describe('entity tags', () => {
  test('a consumer that has the document gets 304 until a key changes, and the sequence grows', async () => {
    const seen: { etag: string; sequence: number }[] = [];
    const fetchNew = async () => {
      const last = seen.at(-1)?.etag;
      const fresh = await trust.ask({
        path: '/',
        headers: last === undefined ? {} : { 'if-none-match': last },
      });
      expect(fresh.status).toBe(200);
      seen.push({ etag: fresh.headers.etag ?? '', sequence: Number(fresh.json.spiffe_sequence) });
      const same = await trust.ask({
        path: '/bundle',
        headers: { 'if-none-match': fresh.headers.etag ?? '' },
      });
      expect([same.status, same.text, same.headers.etag]).toEqual([304, '', fresh.headers.etag]);
      expect(same.headers['cache-control']).toBe('public, max-age=300');
    };
    await fetchNew();
    const { bundle: otherRoot } = await createAuthority('example.org');
    const x509Authorities = [...trust.keys.x509.x509Authorities, ...otherRoot.x509Authorities];
    trust.keys.x509 = { ...trust.keys.x509, x509Authorities, sequence: trust.keys.x509.sequence + 1 };
    await fetchNew();
    trust.keys.jwt = jwtBundleOf(trust.authority, trust.keys.jwt.sequence + 1);
    await fetchNew();
    trust.keys.jwt = { ...trust.keys.jwt, authorities: [], sequence: trust.keys.jwt.sequence + 1 };
    await fetchNew();
    const sequences = seen.map(({ sequence }) => sequence);
    expect(sequences).toEqual([2, 3, 4, 5]);
    expect(new Set(seen.map(({ etag }) => etag)).size).toBe(4);
  });

  test.each([
    ['its own tag', (etag: string) => etag, 304],
    ['its own tag, weak', (etag: string) => `W/${etag}`, 304],
    ['a list with it', (etag: string) => `"a", ${etag} ,"b"`, 304],
    ['any', () => '*', 304],
    ['another', () => '"a"', 200],
    ['it without quotes', (etag: string) => etag.replaceAll('"', ''), 200],
    ['nothing', () => '', 200],
    ['thousands', () => '"x",'.repeat(3_000), 200],
  ])('if-none-match with %s', async (_, headerOf, status) => {
    const etag = (await trust.ask({ path: '/' })).headers.etag ?? '';
    const answer = await trust.ask({ path: '/', headers: { 'if-none-match': headerOf(etag) } });
    expect(answer.status).toBe(status);
  });
});

describe('TLS', () => {
  const shake = (port: number, options: ConnectionOptions): Promise<TLSSocket | string> =>
    new Promise((resolve) => {
      const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options });
      socket.once('secureConnect', () => resolve(socket));
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
  const protocolOf = (shaken: TLSSocket | string): string | null => {
    if (typeof shaken === 'string') return shaken;
    const protocol = shaken.getProtocol();
    shaken.destroy();
    return protocol;
  };

  test('https_spiffe shows the SPIFFE ID, asks for no certificate, and speaks TLS 1.3 only', async () => {
    const shaken = await shake(trust.port, {});
    expect((shaken as TLSSocket).getPeerX509Certificate()?.subjectAltName).toBe(`URI:${endpointId}`);
    expect(protocolOf(shaken)).toBe('TLSv1.3');
    expect(await shake(trust.port, { maxVersion: 'TLSv1.2' })).toMatch(/PROTOCOL_VERSION|SSL/);
  });

  test('https_web speaks TLS 1.2 with forward secrecy, and nothing older or weaker', async () => {
    const web = await startTrust({ rates, oldestTls: 'TLSv1.2', pair: await webPair('rsa') });
    try {
      expect(protocolOf(await shake(web.port, {}))).toBe('TLSv1.3');
      expect(protocolOf(await shake(web.port, { maxVersion: 'TLSv1.2' }))).toBe('TLSv1.2');
      const old = { maxVersion: 'TLSv1.2', ciphers: 'AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA' } as const;
      expect(await shake(web.port, old)).toMatch(/HANDSHAKE_FAILURE|ECONNRESET/);
      const older = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
      expect(await shake(web.port, older)).toMatch(/PROTOCOL|ECONNRESET|SSL/);
    } finally {
      await web.listener.close(0);
    }
  });

  test('no session is resumed', async () => {
    const visit = async (session?: Buffer) => {
      const options = { host: '127.0.0.1', port: trust.port, rejectUnauthorized: false };
      const socket = connect(session === undefined ? options : { ...options, session });
      let last: Buffer | undefined;
      socket.on('session', (next: Buffer) => {
        last = next;
      });
      socket.write('GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
      socket.resume();
      let reused: boolean | undefined;
      socket.once('secureConnect', () => {
        reused = socket.isSessionReused();
      });
      await new Promise((resolve) => socket.once('close', resolve));
      return { last, reused };
    };
    const { last } = await visit();
    expect(await visit(last)).toMatchObject({ reused: false });
  });

  test('a renewed certificate is shown to the next connection, and open ones go on', async () => {
    const before = await trust.dial();
    const next = await spiffePair(trust.authority);
    trust.listener.renew(next.certificate, next.privateKey);
    const after = await trust.dial();
    const serial = (socket: TLSSocket) => socket.getPeerX509Certificate()?.serialNumber;
    expect(serial(after)).toBe(new X509Certificate(next.certificate).serialNumber);
    expect(serial(before)).not.toBe(serial(after));
    before.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    const [line] = await new Promise<Buffer[]>((resolve) =>
      before.once('data', (chunk: Buffer) => resolve([chunk])),
    );
    expect(line?.toString('latin1')).toMatch(/^HTTP\/1\.1 200 /);
    before.destroy();
    after.destroy();
    expect(() => trust.listener.renew('nonsense', next.privateKey)).toThrow();
    expect((await trust.ask({ path: '/' })).status).toBe(200);
  });
});
