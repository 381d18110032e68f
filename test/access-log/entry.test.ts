import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { handshakeFailures } from '../../src/audit/access-event.ts';
import { readEntry } from '../../src/access-log/entry.ts';
import { sortFailure } from '../../src/access-log/handshake-failure.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { field } from '../ext-authz/proto-bytes.ts';
import { address, allowedNote, began, type EntryInput, httpEntry, orders, tcpEntry, web } from './entries.ts';

const mesh = TrustDomain.parse('mesh.test');
const now = new Date(began.getTime() + 60_000);
const ended = new Date(began.getTime() + 20);
const http = (input: EntryInput = {}) => readEntry({ kind: 'http', bytes: httpEntry(input) }, mesh, now);
const tcp = (input: EntryInput = {}) => readEntry({ kind: 'tcp', bytes: tcpEntry(input) }, mesh, now);

describe('a call', () => {
  test('is joined to the decision about it', () => {
    expect(http()).toEqual({
      ownUri: orders,
      call: {
        time: ended,
        source: web,
        sourceSerial: '0a1b',
        protocol: 'http',
        method: 'GET',
        port: 15_443,
        outcome: 'ok',
        status: 200,
        details: 'via_upstream',
        flags: '',
        upstreamAddress: address('::1', 8_080),
        decisionId: 'd-1',
        rule: 'shop/orders rule[0]',
        isRecorded: false,
        durationMs: 20,
        bytesReceived: 200,
        bytesSent: 300,
      },
    });
  });

  const denied = { ...allowedNote, verdict: 'deny' };
  const uaex = { unauthorizedDetails: { reason: 1 } } as never;
  test.each<[string, EntryInput, object]>([
    [
      'denied',
      { note: denied, status: 403, flags: uaex },
      { outcome: 'denied', flags: 'UAEX', isRecorded: true },
    ],
    [
      'with a record of its own',
      { note: { ...allowedNote, recorded: true } },
      { outcome: 'ok', isRecorded: true },
    ],
    [
      'denied by the proxy itself',
      { note: null, status: 403, details: 'rbac_access_denied_matched_policy[none]' },
      { outcome: 'denied', isRecorded: false, decisionId: '' },
    ],
    ['that the application refused', { status: 404 }, { outcome: 'ok', status: 404 }],
    [
      'that failed',
      { status: 503, flags: { upstreamConnectionFailure: true, upstreamRetryLimitExceeded: true } },
      { outcome: 'error', flags: 'UF,URX' },
    ],
    ['without an answer', { status: 0 }, { outcome: 'error', status: 0 }],
    [
      'that no decision could be made about',
      { note: null, status: 503, details: 'ext_authz_error' },
      { outcome: 'error', decisionId: '', details: 'ext_authz_error' },
    ],
    ['with a method of the caller', { method: 0 }, { method: 'OTHER' }],
    ['with a method of tomorrow', { method: 77 }, { method: 'OTHER' }],
    [
      'with an impossible decision',
      { note: { ...allowedNote, decision_id: 'd\u001b[2J' } },
      { decisionId: '', rule: '' },
    ],
    ['with a note of another kind', { note: { decision_id: 7, verdict: {}, rule: [] } }, { decisionId: '' }],
    [
      'with a note of __proto__',
      { note: JSON.parse('{"__proto__": {"verdict": "deny"}, "decision_id": "d-1"}') as never },
      { decisionId: 'd-1', outcome: 'ok', isRecorded: true },
    ],
    ['with a note of another filter', { filter: 'envoy.filters.http.lua' }, { decisionId: '' }],
    ['with a long rule', { note: { ...allowedNote, rule: 'r'.repeat(9_000) } }, { rule: '' }],
    ['over plain HTTP', { own: null }, { source: '', sourceSerial: '' }],
    ['of a peer of two names', { peer: [web, orders] }, { source: '', sourceSerial: '0a1b' }],
    ['of a peer without a name', { peer: null }, { source: '' }],
    ['of a peer that is no SPIFFE ID', { peer: 'https://mesh.test/' }, { source: '' }],
    ['with a serial that is none', { serial: '0a\n1b' }, { sourceSerial: '' }],
    ['with no serial', { serial: '-' }, { sourceSerial: '' }],
    [
      'with a serial that is too long for a CA',
      { serial: `${'0A'.repeat(20)}1b` },
      { sourceSerial: `${'0a'.repeat(20)}1b`.padStart(64, 'f') },
    ],
    [
      'with a serial that is far too long',
      { serial: 'ab'.repeat(99) },
      { sourceSerial: `ff${'ab'.repeat(31)}` },
    ],
    ['with a serial below zero', { serial: '-0a1b' }, { sourceSerial: '0a1b'.padStart(64, 'f') }],
    ['of the future', { at: new Date(now.getTime() + 1) }, { time: now }],
    ['of long ago', { at: new Date(0) }, { time: now }],
  ])('%s', (_, input, expected) => {
    expect(http(input).call).toMatchObject(expected);
  });

  test.each([5, 7, 99])('that goes on tells nothing: type %i', (type) => {
    expect(http({ type })).toEqual({ ownUri: orders });
  });
});

describe('a connection', () => {
  const none = { source: '', sourceSerial: '', claimedSource: '', claimedSerial: '', failure: '' };
  const proven = { ...none, source: web, sourceSerial: '0a1b' };
  const claimed = { ...none, claimedSource: web, claimedSerial: '0a1b' };
  const evil = 'spiffe://mesh.test.evil/ns/shop/sa/web';
  const verifyFailed = (why: string) =>
    `TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: ${why}:TLS_error_end`;
  test.each<[string, EntryInput, object]>([
    ['mTLS with a peer of ours', {}, { ...proven, kind: 'mtls' }],
    ['a peer of another trust domain', { peer: evil }, { ...proven, kind: 'foreign', source: evil }],
    [
      'a peer of two names, the second one of ours',
      { peer: [evil, web] },
      { ...none, kind: 'foreign', sourceSerial: '0a1b', claimedSource: web },
    ],
    ['plaintext', { own: null, peer: null, serial: '' }, { ...none, kind: 'plaintext' }],
    [
      'a forged certificate',
      { failure: verifyFailed('X509_verify_cert: unable to get local issuer certificate'), bytes: 0 },
      { ...claimed, kind: 'tls_failed', failure: 'unknown_issuer' },
    ],
    // The client has sent somebody's certificate and gone, without the proof that it has the key.
    [
      'a certificate without the proof of its key',
      { bytes: 0 },
      { ...claimed, kind: 'tls_failed', failure: 'unfinished' },
    ],
    [
      'a port scan',
      { peer: null, serial: '', bytes: 0 },
      { ...none, kind: 'tls_failed', failure: 'unfinished' },
    ],
    // Whatever the proxy says it has read: a handshake that failed proves nothing.
    [
      'a failure with bytes',
      { failure: 'TLS_error:|1:x:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:y' },
      { ...claimed, kind: 'tls_failed', failure: 'no_certificate' },
    ],
    [
      'a failure of an entry without TLS',
      { own: null, failure: 'TLS_error:?' },
      { kind: 'tls_failed', source: '', failure: 'other' },
    ],
  ])('%s', (_, input, expected) => {
    const { connection, call } = tcp(input);
    expect(connection).toEqual(
      expect.objectContaining({ time: ended, port: 15_443, sourceAddress: '192.0.2.9:51000', ...expected }),
    );
    expect(call).toBeUndefined();
  });

  test('that policy decided about is a call, too', () => {
    const filter = 'envoy.filters.network.ext_authz';
    const { call, connection } = tcp({ note: { ...allowedNote, verdict: 'deny' }, filter, bytes: 7 });
    expect(connection).toMatchObject({ kind: 'mtls', source: web });
    expect(call).toMatchObject({
      protocol: 'tcp',
      outcome: 'denied',
      isRecorded: true,
      bytesSent: 7,
      method: '',
    });
  });

  test.each([1, 2, 14])('that goes on tells nothing: type %i', (type) => {
    expect(tcp({ type })).toEqual({ ownUri: orders });
  });

  test('has a claim that is not longer than a line', () => {
    const { connection } = tcp({ bytes: 0, peer: `spiffe://x/${'a'.repeat(9_000)}` });
    expect(connection?.claimedSource).toHaveLength(512);
  });
});

test.each([
  ['certificate has expired', 'certificate_expired'],
  ['certificate_is_not_yet_valid', 'certificate_not_yet_valid'],
  ['X509_verify_cert: certificate revoked', 'certificate_revoked'],
  ['SAN matcher, certificate SANs are [spiffe://a/b]', 'wrong_name'],
  ['no trust bundle store', 'unknown_trust_domain'],
  ['OPENSSL_internal:HTTP_REQUEST', 'not_tls'],
  ['OPENSSL_internal:WRONG_VERSION_NUMBER', 'not_tls'],
  ['OPENSSL_internal:UNSUPPORTED_PROTOCOL', 'no_common_protocol'],
  ['OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA', 'refused_by_peer'],
  ['', 'unfinished'],
  ['\u001b[2J', 'other'],
])('the failure %j is %s', (reason, failure) => {
  expect(sortFailure(reason)).toBe(failure);
});

test('anything is an entry or an error, and every text of it is bounded', () => {
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.uint8Array({ maxLength: 60 }).map((bytes) => field(1, bytes)),
    fc.tuple(fc.constantFrom(httpEntry(), tcpEntry()), fc.nat(900), fc.nat(255)).map(([bytes, at, value]) => {
      const changed = Uint8Array.from(bytes);
      changed[at % changed.length] = value;
      return changed;
    }),
  );
  fc.assert(
    fc.property(fc.constantFrom('http', 'tcp'), noise, (kind, bytes) => {
      let seen;
      try {
        seen = readEntry({ kind, bytes }, mesh, now);
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
        return;
      }
      const { call, connection } = seen;
      for (const value of [...Object.values(call ?? {}), ...Object.values(connection ?? {})]) {
        if (typeof value === 'string')
          expect([value.isWellFormed(), value.length <= 2_048]).toEqual([true, true]);
        if (typeof value === 'number') expect(Number.isSafeInteger(value) && value >= 0).toBe(true);
        if (value instanceof Date) expect(value <= now).toBe(true);
      }
      if (connection !== undefined) {
        expect(['', ...handshakeFailures]).toContain(connection.failure);
        // INVARIANT: a claim is no identity.
        if (connection.kind === 'tls_failed' || connection.kind === 'plaintext')
          expect(connection.source + connection.sourceSerial).toBe('');
      }
    }),
  );
});
