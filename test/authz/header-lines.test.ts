import { expect, test } from 'vitest';
import { type HeaderPair, headerLinesOf } from '../../src/authz/header-alias.ts';
import { call } from './mesh.ts';
import { both, cautious, holds, neither } from './rule-effect.ts';

/** How a rule about `x-role-1` fares, for a call with these headers. */
function fares(value: string, headers: readonly HeaderPair[]): typeof both {
  const one = { ...call(), context: { ...call().context, headerLines: headerLinesOf(headers) } };
  return holds({ when: [{ key: 'request.headers[X-Role-1]', values: [value] }] }, one);
}

const role: HeaderPair = ['x-role-1', 'user'];

test.each<[name: string, headers: readonly HeaderPair[], expected: typeof both]>([
  ['alone', [role], both],
  ['twice', [role, role], both],
  ['of another', [['x-role-1', 'guest']], neither],
  ['missing', [['x-other', 'user']], neither],
  // Another spelling becomes the same variable of CGI, WSGI and PHP.
  ['beside one with underscores', [role, ['x_role_1', 'user']], cautious],
  ['behind one with an underscore', [['x-role_1', 'user'], role], cautious],
  ['beside one with dots', [role, ['x.role.1', 'user']], cautious],
  ['only as another spelling', [['x_role_1', 'user']], cautious],
  // What becomes another variable is another header.
  ['beside one with a letter for its sign', [role, ['xarole-1', 'user']], both],
  ['beside one of another letter', [role, ['x-rolf-1', 'admin']], both],
  ['beside one of another digit', [role, ['x-role-2', 'admin']], both],
  ['beside a longer one', [role, ['x-role-1-', 'admin'], ['x-role-10', 'admin']], both],
  ['beside a shorter one', [role, ['x-role-', 'admin'], ['x-role', 'admin']], both],
  // What the next hop drops.
  ['that the connection drops', [role, ['connection', 'x-role-1']], cautious],
  ['dropped in capitals, among others', [role, ['connection', 'close, X-Role-1\t, te']], cautious],
  ['dropped without spaces', [role, ['connection', 'close,x-role-1,te']], cautious],
  ['dropped by a second line', [role, ['connection', 'close'], ['connection', 'x-role-1']], cautious],
  ['dropped before it came', [['connection', 'x-role-1'], role], cautious],
  ['missing, and dropped', [['connection', 'x-role-1']], cautious],
  ['beside a connection that drops another', [role, ['connection', 'x-role, x_role_1']], both],
  ['beside a connection that drops nothing', [role, ['connection', ''], ['connection', ' ,,']], both],
  ['beside another that names it', [role, ['trailer', 'x-role-1']], both],
])('a header %s', (_name, headers, expected) => {
  expect(fares('user', headers)).toEqual(expected);
});

test.each<[line: string, value: string, expected: typeof both]>([
  [' user', 'user', both],
  ['\tuser', 'user', both],
  [' \t user\t \t', 'user', both],
  ['user ', 'user', both],
  ['us er', 'us er', both],
  ['  us  er  ', 'us  er', both],
  ['us er', 'user', neither],
  ['(user)', 'user', neither],
  ['user!', 'user', neither],
  ['u', 'u', both],
  // Nothing but spaces is an empty line, which is there for some and not for others.
  ['', '*', cautious],
  [' ', '*', cautious],
  ['\t \t', '*', cautious],
  [' \t', 'user', neither],
  // No other character is a space, and none outside ASCII can be told.
  ['user\u000b', 'user', cautious],
  ['user\r', 'user', cautious],
  ['user\u0000', 'user', cautious],
  ['user\u007f', 'user', cautious],
  ['user\u00a0', 'user', cautious],
  ['~user', '~user', both],
])('the line %j and the value %j', (line, value, expected) => {
  expect(fares(value, [['x-role-1', line]])).toEqual(expected);
});
