import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { createPeerCertificateReader } from '../../src/ext-authz/peer-certificate.ts';
import { type Check, readCheck } from '../../src/ext-authz/request.ts';
import { checkBytes, type CheckInput } from './check-input.ts';
import { field } from './proto-bytes.ts';
import { makeCertificate } from './test-certificate.ts';

const web = 'spiffe://example.org/ns/shop/sa/web';
const orders = 'spiffe://example.org/ns/shop/sa/orders';

let certificates: Record<'web' | 'orders' | 'two' | 'none' | 'dns', string>;
beforeAll(async () => {
  certificates = {
    web: await makeCertificate([{ type: 'url', value: web }]),
    orders: await makeCertificate([{ type: 'url', value: orders }]),
    two: await makeCertificate([
      { type: 'url', value: web },
      { type: 'url', value: orders },
    ]),
    none: await makeCertificate([]),
    dns: await makeCertificate([{ type: 'dns', value: 'web.example.org' }]),
  };
});

function read(input: CheckInput): Check {
  return readCheck(checkBytes(input), createPeerCertificateReader());
}

describe('a check that can be judged', () => {
  test('of an HTTP call with headers as a map', () => {
    expect(read({})).toMatchObject({
      protocol: 'http',
      source: { text: web },
      sourceSerial: '',
      sourceKey: '',
      sourceTbsSha256: '',
      sourceAddress: '10.0.0.1:40000',
      claimedDestination: orders,
      method: 'GET',
      path: '/orders/1?x=1',
      authority: 'orders.shop',
      port: 15_443,
      foreignHeaders: [],
      rejection: null,
    });
  });

  test('of an HTTP call with headers as bytes', () => {
    expect(
      read({
        headers: {},
        rawHeaders: [
          [':method', 'GET'],
          [':path', '/orders/1?x=1'],
          [':authority', 'orders.shop'],
          ['x-odd', Buffer.from([0xff, 0xfe, 0x00, 0x80])],
          ['cookie', 'a=1'],
          ['cookie', 'b=2'],
        ],
      }),
    ).toMatchObject({ method: 'GET', path: '/orders/1?x=1', rejection: null });
  });

  test.each<[CheckInput, (readonly string[] | undefined)[]]>([
    // A map joins lines with commas, so nobody knows how many there were.
    [{ headers: { 'x-a': '1', 'X-B': 'q,r', 'x-c': '' } }, [['1'], undefined, [''], []]],
    [
      {
        headers: {},
        rawHeaders: [
          ['x-a', '1,2'],
          ['X-A', '3'],
          ['x-b', Buffer.from([0xff])],
          ['constructor', ''],
        ],
      },
      [['1,2', '3'], ['\u00ff'], [], []],
    ],
  ])('with its headers line by line: %j', (input, expected) => {
    const lines = read(input).context.headerLines;
    expect(['x-a', 'x-b', 'x-c', 'x-d'].map((name) => lines?.(name))).toEqual(expected);
  });

  test('of a TCP connection', () => {
    expect(read({ http: null })).toMatchObject({ protocol: 'tcp', method: '', path: '', rejection: null });
  });

  test('of a caller without a certificate', () => {
    expect(read({ principal: '' })).toMatchObject({ source: null, rejection: null });
  });

  test('with the certificate of the principal, whose serial it gives', () => {
    const check = read({ principal: web, certificate: certificates.web });
    expect(check).toMatchObject({ source: { text: web }, sourceSerial: '0102', rejection: null });
    expect(check.sourceKey).toMatch(/^[0-9a-f]{64}$/);
    expect(check.sourceTbsSha256).toMatch(/^[0-9a-f]{64}$/);
  });

  test('without a port when the destination is a Unix socket or names none', () => {
    expect(read({ destinationAddress: { pipe: '/run/app.sock' } }).port).toBe(0);
    expect(read({ destinationAddress: null }).port).toBe(0);
    expect(read({ destinationAddress: { host: '::1', port: 70_000 } }).port).toBe(0);
  });

  test.each([
    [{ host: '::1', port: 1 }, '[::1]:1'],
    [{ host: '10.0.0.1', port: 2 }, '10.0.0.1:2'],
    [{ pipe: '/run/a.sock' }, '/run/a.sock'],
    [null, ''],
  ])('source address %j is %j', (sourceAddress, text) => {
    expect(read({ sourceAddress }).sourceAddress).toBe(text);
  });

  test('nothing a caller or a proxy may write changes who calls whom', () => {
    const plain = read({});
    const dressed = read({
      headers: {
        'x-forwarded-client-cert': `By=${orders};URI=spiffe://example.org/ns/admin/sa/root`,
        'x-spiffe-id': 'spiffe://example.org/ns/admin/sa/root',
        __proto__: 'x',
        constructor: 'x',
      },
      contextExtensions: { workload: 'spiffe://example.org/ns/admin/sa/root' },
      labels: { principal: 'spiffe://example.org/ns/admin/sa/root' },
      service: 'admin',
    });
    const { context, ...judged } = dressed;
    expect({ ...judged, context: plain.context }).toEqual(plain);
    expect(context.claims).toBeUndefined();
  });

  test('headers that are ours are named for removal, in either form', () => {
    expect(
      read({
        headers: { 'x-countersign-decision': 'a', 'X-Countersign-Source': 'b', 'x-counter': 'c' },
        rawHeaders: [['x-countersign-role', Buffer.from([0xff])]],
      }).foreignHeaders.toSorted(),
    ).toEqual(['x-countersign-decision', 'x-countersign-role', 'x-countersign-source']);
  });
});

describe('a check that cannot be judged', () => {
  const cases: [string, () => CheckInput, string][] = [
    ['a DNS name for a principal', () => ({ principal: 'web.example.org' }), 'request_invalid'],
    ['a subject for a principal', () => ({ principal: 'CN=web,O=shop' }), 'request_invalid'],
    ['a trust domain for a principal', () => ({ principal: 'spiffe://example.org' }), 'request_invalid'],
    ['two names in the principal', () => ({ principal: `${web},${orders}` }), 'request_invalid'],
    ['a principal with a NUL', () => ({ principal: `${web}\0` }), 'request_invalid'],
    ['an upper-case scheme', () => ({ principal: web.replace('spiffe', 'SPIFFE') }), 'request_invalid'],
    [
      'a certificate without a principal',
      () => ({ principal: '', certificate: certificates.web }),
      'request_invalid',
    ],
    ['the certificate of another', () => ({ certificate: certificates.orders }), 'request_invalid'],
    ['a certificate with two URI names', () => ({ certificate: certificates.two }), 'request_invalid'],
    ['a certificate with no name', () => ({ certificate: certificates.none }), 'request_invalid'],
    ['a certificate with a DNS name only', () => ({ certificate: certificates.dns }), 'request_invalid'],
    ['two certificates', () => ({ certificate: certificates.web.repeat(2) }), 'request_invalid'],
    ['half a certificate', () => ({ certificate: certificates.web.slice(0, 200) }), 'request_invalid'],
    ['a certificate with a bad escape', () => ({ certificate: `${certificates.web}%zz` }), 'request_invalid'],
    [
      'a certificate of 70 kB',
      () => ({ certificate: certificates.web + '%0A'.repeat(25_000) }),
      'request_invalid',
    ],
    ['another method in the headers', () => ({ headers: { ':method': 'POST' } }), 'request_ambiguous'],
    ['another path in the headers', () => ({ headers: { ':path': '/admin' } }), 'request_ambiguous'],
    ['another authority in the headers', () => ({ headers: { ':authority': 'other' } }), 'request_ambiguous'],
    ['another host header', () => ({ headers: { host: 'other' } }), 'request_ambiguous'],
    ['another raw host header', () => ({ rawHeaders: [['Host', 'other']] }), 'request_ambiguous'],
    [
      'a raw path that is not its text',
      () => ({ rawHeaders: [[':path', Buffer.from([0x2f, 0xff])]] }),
      'request_ambiguous',
    ],
    [
      'the path twice',
      () => ({
        rawHeaders: [
          [':path', '/orders/1?x=1'],
          [':path', '/orders/1?x=1'],
        ],
      }),
      'request_ambiguous',
    ],
    [
      'host twice',
      () => ({
        rawHeaders: [
          ['host', 'orders.shop'],
          ['host', 'orders.shop'],
        ],
      }),
      'request_ambiguous',
    ],
    [
      'more headers of ours than can be removed',
      () => ({
        headers: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`x-countersign-${i}`, ''])),
      }),
      'request_invalid',
    ],
    [
      'a header of ours that cannot be removed',
      () => ({ headers: { 'x-countersign- ': '' } }),
      'request_invalid',
    ],
  ];
  test.each(cases)('%s', (_, input, reason) => {
    expect(read(input()).rejection?.reason).toBe(reason);
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['half a message', Buffer.from([0x0a, 0x7f, 0x01])],
    ['an endless varint', Buffer.alloc(64, 0xff)],
    ['text', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['nested 200 deep', nested(200)],
  ])('bytes that are %s', (_, bytes) => {
    expect(readCheck(bytes, createPeerCertificateReader()).rejection?.reason).toBe('request_invalid');
  });

  test('any bytes are read or refused, never thrown at', () => {
    const valid = checkBytes({ certificate: certificates.web });
    const mangled = fc
      .tuple(fc.nat(valid.length - 1), fc.nat(255), fc.nat(valid.length))
      .map(([at, byte, end]) => {
        const copy = Buffer.from(valid);
        copy[at] = byte;
        return copy.subarray(0, end);
      });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), mangled), (bytes) => {
        const check = readCheck(bytes, createPeerCertificateReader());
        expect(check.source === null || check.source.text.startsWith('spiffe://')).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('the memory of certificates', () => {
  test('gives the same answer again, and forgets the least recently used', () => {
    const readCertificate = createPeerCertificateReader(2);
    const first = readCertificate(certificates.web);
    expect(first).toMatchObject({ uriSans: [web] });
    expect(readCertificate(certificates.web)).toBe(first);
    readCertificate(certificates.orders);
    expect(readCertificate(certificates.web)).toBe(first);
    readCertificate('nonsense');
    expect(readCertificate(certificates.web)).toBe(first);
    readCertificate(certificates.orders);
    readCertificate('other nonsense');
    expect(readCertificate(certificates.web)).not.toBe(first);
  });

  test('keeps no long texts', () => {
    const readCertificate = createPeerCertificateReader();
    const long = certificates.web + '%0A'.repeat(3_000);
    const first = readCertificate(long);
    expect(first).toMatchObject({ uriSans: [web] });
    expect(readCertificate(long)).not.toBe(first);
  });
});

/** A Struct in a Struct in a Struct, as `metadata_context` could hold them. */
function nested(depth: number): Buffer {
  let struct: Buffer = Buffer.alloc(0);
  for (let i = 0; i < depth; i++) struct = field(1, field(2, field(5, struct)));
  return field(1, field(11, field(1, field(2, struct))));
}
