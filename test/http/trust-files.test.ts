import { chmodSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { pino } from 'pino';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ErrorCode, MeshError } from '../../src/errors.ts';
import { readCertificateFiles, watchCertificateFiles } from '../../src/up-trust-files.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';
import { type Pair, startTrust, webPair } from './trust-harness.ts';

let pairs: Record<'ec' | 'other' | 'rsa' | 'expired', Pair>;
beforeAll(async () => {
  const [ec, other, rsa, expired] = await Promise.all([
    webPair(),
    webPair(),
    webPair('rsa'),
    webPair('ec', -1),
  ]);
  pairs = { ec, other, rsa, expired };
});

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cs-trust-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const files = () => ({ certificate: join(dir, 'cert.pem'), privateKey: join(dir, 'key.pem') });

function put({ certificate, privateKey }: Pair, mode = 0o600): void {
  writeFileSync(files().certificate, certificate);
  rmSync(files().privateKey, { force: true });
  writeFileSync(files().privateKey, privateKey, { mode });
  chmodSync(files().privateKey, mode);
}

describe('reading', () => {
  test.each(['ec', 'rsa', 'expired'] as const)('a pair (%s) is read', (kind) => {
    put(pairs[kind]);
    expect(readCertificateFiles(files())).toEqual(pairs[kind]);
  });

  test('a chain with names before its certificates is read, and only the certificates are kept', () => {
    put(pairs.ec);
    const chain = `subject=CN=web\n${pairs.ec.certificate}\nissuer=CN=ca\r\n${pairs.rsa.certificate}`;
    writeFileSync(files().certificate, chain);
    expect(readCertificateFiles(files()).certificate).toBe(pairs.ec.certificate + pairs.rsa.certificate);
  });

  test('links are followed: that is how a renewed pair is swapped in', () => {
    put(pairs.ec);
    for (const [path, link] of [
      [files().certificate, join(dir, 'live-cert')],
      [files().privateKey, join(dir, 'live-key')],
    ] as const)
      symlinkSync(path, link);
    const live = { certificate: join(dir, 'live-cert'), privateKey: join(dir, 'live-key') };
    expect(readCertificateFiles(live)).toEqual(pairs.ec);
    chmodSync(files().privateKey, 0o640);
    expect(() => readCertificateFiles(live)).toThrow(
      expect.objectContaining({ code: 'file_permissions' }) as Error,
    );
  });

  test.each<[string, () => void, ErrorCode]>([
    ['a key that the group can read', () => put(pairs.ec, 0o640), 'file_permissions'],
    ['a key that others can read', () => put(pairs.ec, 0o604), 'file_permissions'],
    ['no key', () => (put(pairs.ec), rmSync(files().privateKey)), 'file_missing'],
    ['no certificate', () => (put(pairs.ec), rmSync(files().certificate)), 'file_missing'],
    [
      'the key of another certificate',
      () => put({ ...pairs.ec, privateKey: pairs.other.privateKey }),
      'config_invalid',
    ],
    ['a key of another kind', () => put({ ...pairs.ec, privateKey: pairs.rsa.privateKey }), 'config_invalid'],
    [
      'the two swapped',
      () => put({ certificate: pairs.ec.privateKey, privateKey: pairs.ec.certificate }),
      'config_invalid',
    ],
    [
      'the pair after another certificate',
      () => put({ ...pairs.ec, certificate: pairs.other.certificate + pairs.ec.certificate }),
      'config_invalid',
    ],
    ['an empty certificate file', () => put({ ...pairs.ec, certificate: '' }), 'config_invalid'],
    ['an empty key file', () => put({ ...pairs.ec, privateKey: '' }), 'config_invalid'],
    [
      'a certificate cut short',
      () => put({ ...pairs.ec, certificate: pairs.ec.certificate.slice(0, 300) }),
      'config_invalid',
    ],
    [
      'a certificate that is no DER',
      () =>
        put({ ...pairs.ec, certificate: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' }),
      'config_invalid',
    ],
    [
      '70 kB of certificates',
      () => put({ ...pairs.ec, certificate: pairs.ec.certificate.repeat(150) }),
      'config_invalid',
    ],
    [
      '55 kB without an end',
      () => put({ ...pairs.ec, certificate: '-----BEGIN CERTIFICATE-----\n'.repeat(1_900) }),
      'config_invalid',
    ],
    [
      'a directory',
      () => (put(pairs.ec), rmSync(files().certificate), symlinkSync(dir, files().certificate)),
      'config_invalid',
    ],
  ])('%s is refused', (_, arrange, code) => {
    arrange();
    const usedMs = startCpuWatch();
    let caught: unknown;
    try {
      readCertificateFiles(files());
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(MeshError);
    expect((caught as MeshError).code).toBe(code);
    expect(JSON.stringify([(caught as MeshError).message, (caught as MeshError).fix])).not.toContain('BEGIN');
    expect(usedMs()).toBeLessThan(500);
  });
});

test('an open door takes a new pair, and keeps the old one over a bad one and says so once', async () => {
  put(pairs.ec);
  const clock = manualClock();
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => lines.push(JSON.parse(line) as never) });
  const first = readCertificateFiles(files());
  const trust = await startTrust({ oldestTls: 'TLSv1.2', pair: first });
  const stop = watchCertificateFiles(
    files(),
    first,
    ({ certificate, privateKey }) => trust.listener.renew(certificate, privateKey),
    { clock, log },
  );
  const said = () => lines.splice(0).map(({ msg, code }) => [msg, code]);
  const keeps = 'the trust endpoint keeps its old certificate: the new one cannot be used';
  try {
    const steps: [change: () => void, expected: Pair, said: unknown[]][] = [
      [() => undefined, pairs.ec, []],
      [
        () => writeFileSync(files().certificate, pairs.rsa.certificate),
        pairs.ec,
        [[keeps, 'config_invalid']],
      ],
      [() => undefined, pairs.ec, []],
      [() => put(pairs.rsa), pairs.rsa, [['the trust endpoint has a new certificate', undefined]]],
      [() => put(pairs.other, 0o644), pairs.rsa, [[keeps, 'file_permissions']]],
      [() => renameSync(files().privateKey, join(dir, 'away')), pairs.rsa, [[keeps, 'file_missing']]],
      [
        () => put(pairs.rsa),
        pairs.rsa,
        [['the certificate files of the trust endpoint are fit again', undefined]],
      ],
      [() => put(pairs.other), pairs.other, [['the trust endpoint has a new certificate', undefined]]],
    ];
    for (const [change, expected, words] of steps) {
      change();
      await clock.advance(10_000);
      expect(said()).toEqual(words);
      expect(await shownBy(trust)).toBe(expected.certificate.replace(/\r/g, ''));
    }
    stop();
    put(pairs.ec);
    await clock.advance(60_000);
    expect([said(), clock.sleepers()]).toEqual([[], 0]);
  } finally {
    stop();
    await trust.listener.close(0);
  }
});

function shownBy({ port }: { readonly port: number }): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      resolve(socket.getPeerX509Certificate()?.toString() ?? '');
      socket.destroy();
    });
  });
}
