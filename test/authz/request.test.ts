import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { untold } from '../../src/authz/context.ts';
import { canonicalPath } from '../../src/authz/path.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection } from '../../src/authz/request.ts';
import { ledger, web } from './mesh.ts';

const plain = { source: web, destination: ledger, method: 'GET', path: '/', authority: 'a', port: 80 };

function read(overrides: Partial<typeof plain>) {
  return canonicalizeHttp({ ...plain, ...overrides });
}

describe('paths', () => {
  test.each<[string, string]>([
    ['/', '/'],
    ['/a/b', '/a/b'],
    ['/a/b/', '/a/b/'],
    ['/a?x=/../..//%2f', '/a'],
    ['/a?', '/a'],
    ['/?a?b', '/'],
    ['/%61dmin', '/admin'],
    ['/%7Euser', '/~user'],
    ['/a%2Db', '/a-b'],
    ['/v1%3aadmin', '/v1:admin'],
    ['/a%40b%2Cc', '/a@b,c'],
    ['/a%20b', '/a%20b'],
    ['/caf%c3%a9', '/caf%C3%A9'],
    ['/.hidden', '/.hidden'],
    ['/...', '/...'],
    ['/a..b/..c', '/a..b/..c'],
    ['/Admin', '/Admin'],
    ['/pkg.Svc/Method', '/pkg.Svc/Method'],
    ["/!$&'()*+,=:@-._~", "/!$&'()*+,=:@-._~"],
    [`/${'a'.repeat(8_191)}`, `/${'a'.repeat(8_191)}`],
    [`/a?${'a'.repeat(65_536)}`, '/a'],
  ])('%j is %j', (path, canonical) => {
    expect(read({ path })).toMatchObject({ path: canonical });
  });

  test.each<[string, string]>([
    // Each line is a way by which somebody's policy and somebody's server read one path as two.
    ['//', 'request_ambiguous'],
    ['//admin', 'request_ambiguous'],
    ['/x//admin', 'request_ambiguous'],
    ['/x//../admin', 'request_ambiguous'],
    ['/./admin', 'request_ambiguous'],
    ['/.', 'request_ambiguous'],
    ['/..', 'request_ambiguous'],
    ['/x/..', 'request_ambiguous'],
    ['/x/../admin', 'request_ambiguous'],
    ['/x/..?y', 'request_ambiguous'],
    ['/x/..;a=b/admin', 'request_ambiguous'],
    ['/admin;a=b', 'request_ambiguous'],
    ['/;/admin', 'request_ambiguous'],
    ['/x%3b/admin', 'request_ambiguous'],
    ['/x\\admin', 'request_ambiguous'],
    ['/x%5cadmin', 'request_ambiguous'],
    ['/x%5Cadmin', 'request_ambiguous'],
    ['/x%2fadmin', 'request_ambiguous'],
    ['/x%2Fadmin', 'request_ambiguous'],
    ['/%2e%2e/admin', 'request_ambiguous'],
    ['/x/.%2E/admin', 'request_ambiguous'],
    ['/file%2etxt', 'request_ambiguous'],
    ['/%252e%252e/admin', 'request_ambiguous'],
    ['/x%252fadmin', 'request_ambiguous'],
    ['/100%25', 'request_ambiguous'],
    ['/admin%00', 'request_ambiguous'],
    ['/admin%0a', 'request_ambiguous'],
    ['/admin%7f', 'request_ambiguous'],
    ['/admin%3fx', 'request_ambiguous'],
    ['/admin%23x', 'request_ambiguous'],
    ['/%c0%af', 'request_ambiguous'],
    ['/%c3', 'request_ambiguous'],
    ['/%ed%a0%80', 'request_ambiguous'],
    ['/admin#', 'request_ambiguous'],
    ['/a#b?c', 'request_ambiguous'],
    ['/a?b#c', 'request_ambiguous'],
    ['', 'request_invalid'],
    ['*', 'request_invalid'],
    ['?a', 'request_invalid'],
    ['admin', 'request_invalid'],
    ['pkg.Svc/Method', 'request_invalid'],
    ['http://a/admin', 'request_invalid'],
    ['/a b', 'request_invalid'],
    ['/a\tb', 'request_invalid'],
    ['/a\0', 'request_invalid'],
    ['/a\r\nX: y', 'request_invalid'],
    ['/a\u007f', 'request_invalid'],
    ['/é', 'request_invalid'],
    ['/\u2215', 'request_invalid'],
    ['/a%', 'request_invalid'],
    ['/a%4', 'request_invalid'],
    ['/a%zz', 'request_invalid'],
    ['/a%u0041', 'request_invalid'],
    ['/a"b', 'request_invalid'],
    ['/a<b>', 'request_invalid'],
    ['/a{b}', 'request_invalid'],
    ['/a|b', 'request_invalid'],
    ['/a^b', 'request_invalid'],
    ['/a[b]', 'request_invalid'],
    ['/a?b c', 'request_invalid'],
    ['/a?b\nc', 'request_invalid'],
    [`/${'a'.repeat(8_192)}`, 'request_invalid'],
    [`/a?${'a'.repeat(65_537)}`, 'request_invalid'],
  ])('%j is refused: %s', (path, reason) => {
    expect(read({ path })).toMatchObject({ reason });
  });

  test('a canonical path is canonical, and an escape of an ordinary character changes nothing', () => {
    const piece = fc.constantFrom(
      'a',
      'B',
      '/',
      '.',
      '..',
      '%',
      '%61',
      '%2f',
      '%c3%a9',
      ';',
      '-',
      '~',
      '//',
      '%7e',
      '0',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const canonical = canonicalPath(`/${pieces.join('')}`);
        if (typeof canonical !== 'string') return;
        expect(canonicalPath(canonical)).toBe(canonical);
        expect(canonical).toMatch(/^\/[\x21-\x7e]*$/);
        expect(canonical).not.toMatch(/\/\/|\/\.\.?(\/|$)|%2f|[;\\]/i);
        const escaped = canonical.replaceAll('a', '%61');
        expect(canonicalPath(escaped)).toBe(canonical);
      }),
    );
  });
});

describe('hosts', () => {
  test.each<[string, string, number | null]>([
    ['example.com', 'example.com', null],
    ['Example.COM', 'example.com', null],
    ['example.com.', 'example.com', null],
    ['example.com.:8080', 'example.com', 8_080],
    ['example.com:80', 'example.com', 80],
    ['example.com:00080', 'example.com', 80],
    ['a_b.c-d', 'a_b.c-d', null],
    ['xn--exmple-cua.org', 'xn--exmple-cua.org', null],
    ['10.0.0.1:80', '10.0.0.1', 80],
    ['[::1]', '[::1]', null],
    ['[0:0:0:0:0:0:0:1]:443', '[::1]', 443],
    ['[2001:DB8:0:0:1:0:0:1]', '[2001:db8::1:0:0:1]', null],
    ['[2001:db8:0:1:1:1:1:1]', '[2001:db8:0:1:1:1:1:1]', null],
    ['[::]', '[::]', null],
    ['[fe80::]', '[fe80::]', null],
    // Without :: there are eight groups, and with it seven at most.
    ['[1:2:3:4:5:6:7::]', '[1:2:3:4:5:6:7:0]', null],
    ['[::2:3:4:5:6:7:8]', '[0:2:3:4:5:6:7:8]', null],
    ['[1:2:3:4:5:6:7:8]', '[1:2:3:4:5:6:7:8]', null],
    // The longest run of zeros, and the first of several.
    ['[1:0:0:2:0:0:0:3]', '[1:0:0:2::3]', null],
    ['[1:0:0:2:3:0:0:4]', '[1::2:3:0:0:4]', null],
    ['[1:2:3:4:5:6:0:0]', '[1:2:3:4:5:6::]', null],
    // Digits and letters are a name.
    ['a.1b', 'a.1b', null],
    ['a.0xg', 'a.0xg', null],
    // The longest name, with all that may stand behind it.
    [`${'a.'.repeat(127)}:65535`, 'a.'.repeat(127).slice(0, -1), 65_535],
  ])('%j is %j port %s', (authority, host, hostPort) => {
    expect(read({ authority })).toMatchObject({ host, hostPort });
  });

  test.each<[string, string]>([
    ['', 'request_invalid'],
    ['.', 'request_invalid'],
    [':80', 'request_invalid'],
    ['example.com..', 'request_invalid'],
    ['a..b', 'request_invalid'],
    ['example.com:', 'request_invalid'],
    ['example.com:0', 'request_invalid'],
    ['example.com:65536', 'request_invalid'],
    ['example.com:8a', 'request_invalid'],
    ['example.com:+80', 'request_invalid'],
    ['example.com:80:80', 'request_invalid'],
    ['exa mple.com', 'request_invalid'],
    ['example.com\n', 'request_invalid'],
    ['example.com,evil.com', 'request_invalid'],
    ['exämple.com', 'request_invalid'],
    ['exam%70le.com', 'request_invalid'],
    ['*.example.com', 'request_invalid'],
    ['example.com/', 'request_invalid'],
    ['http://example.com', 'request_invalid'],
    ['::1', 'request_invalid'],
    ['[::1', 'request_invalid'],
    ['[::1]x', 'request_invalid'],
    ['[1:2:3]', 'request_invalid'],
    ['[1::2::3]', 'request_invalid'],
    ['[1:2:3:4:5:6:7:8:9]', 'request_invalid'],
    ['[1:2:3:4:5:6:7:8::]', 'request_invalid'],
    ['[::1:2:3:4:5:6:7:8]', 'request_invalid'],
    ['[1:2:3:4::5:6:7:8]', 'request_invalid'],
    ['[1:2:3:4:5:6:7:8:9::]', 'request_invalid'],
    ['[12345::]', 'request_invalid'],
    [`${'a'.repeat(64)}.com`, 'request_invalid'],
    ['a.'.repeat(140), 'request_invalid'],
    [`${'a.'.repeat(127)}a`, 'request_invalid'],
    ['user@example.com', 'request_ambiguous'],
    ['example.com@evil.com', 'request_ambiguous'],
    ['[fe80::1%eth0]', 'request_ambiguous'],
    ['[::ffff:10.0.0.1]', 'request_ambiguous'],
    ['127.1', 'request_ambiguous'],
    ['2130706433', 'request_ambiguous'],
    ['0x7f000001', 'request_ambiguous'],
    ['010.0.0.1', 'request_ambiguous'],
    ['10.0.0.256', 'request_ambiguous'],
  ])('%j is refused: %s', (authority, reason) => {
    expect(read({ authority })).toMatchObject({ reason });
  });
});

test.each<[string, string]>([
  ['.', 'the host has no name'],
  ['a..b', 'the host has an empty label'],
  [':80', 'the host has a label that no DNS name may have'],
  ['[::1', 'the host has a bad IPv6 address'],
])('%j is told what is wrong with it: %s', (authority, why) => {
  expect(read({ authority })).toMatchObject({ reason: 'request_invalid', why });
});

test('IPv6 is written as RFC 5952 does, which the URLs of the web do as well', () => {
  const group = fc.constantFrom('0', '0', '0', '1', '00f0', 'ABCD');
  const groups = (maxLength: number) => fc.array(group, { maxLength }).map((all) => all.join(':'));
  const whole = fc.array(group, { minLength: 8, maxLength: 8 }).map((all) => all.join(':'));
  const shortened = fc.tuple(groups(5), groups(5)).map((ends) => ends.join('::'));
  fc.assert(
    fc.property(fc.oneof(whole, shortened), (text) => {
      const authority = `[${text}]`;
      const url = URL.parse(`http://${authority}/`);
      expect(read({ authority })).toMatchObject(
        url === null ? { reason: 'request_invalid' } : { host: url.hostname },
      );
    }),
    { numRuns: 300 },
  );
});

describe('methods and ports', () => {
  test.each(['GET', 'get', 'PATCH', 'M-SEARCH', 'PROPFIND', 'X'.repeat(64)])(
    '%s is kept as it is',
    (method) => {
      expect(read({ method })).toMatchObject({ method });
    },
  );

  test.each(['', 'CONNECT', 'GET ', 'GET\r\n', 'G/T', 'GÉT', 'X'.repeat(65), '"GET"'])(
    'method %j is refused',
    (method) => {
      expect(read({ method })).toMatchObject({ reason: 'request_invalid' });
    },
  );

  test.each([-1, 65_536, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('port %s is refused', (port) => {
    expect(read({ port })).toMatchObject({ reason: 'request_invalid' });
    expect(canonicalizeTcp({ ...plain, port })).toMatchObject({ reason: 'request_invalid' });
  });

  test('a TCP connection has no HTTP attributes', () => {
    expect(canonicalizeTcp({ source: web, destination: ledger, port: 5_432 })).toEqual({
      ...{ source: web, destination: ledger, protocol: 'tcp', port: 5_432 },
      ...{ method: '', host: '', hostPort: null, path: '', context: untold },
    });
  });
});

test('any bytes at all are read or refused, and what is refused is not repeated', () => {
  const text = fc.string({ unit: 'binary', maxLength: 40 });
  fc.assert(
    fc.property(text, text, text, (method, path, authority) => {
      const made = read({ method, path: `/${path}`, authority });
      if (isRejection(made)) expect(made.why).toMatch(/^[ -~]+$/);
      else expect(made.path + made.host).toMatch(/^[!-~]+$/);
    }),
  );
});
