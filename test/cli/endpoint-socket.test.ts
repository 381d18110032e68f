import { expect, test } from 'vitest';
import { endpointSocket } from '../../src/cli/endpoint-socket.ts';

test.each([
  ['unix:///run/spire/api.sock', '/run/spire/api.sock'],
  ['unix:/run/api.sock', '/run/api.sock'],
  ['', undefined],
  [undefined, undefined],
])('%s is the socket %s', (value, path) => {
  expect(endpointSocket({ SPIFFE_ENDPOINT_SOCKET: value })).toBe(path);
});

test.each([
  '/run/api.sock',
  'unix:api.sock',
  'unix://api.sock',
  'unix://host/api.sock',
  'unix:////api.sock',
  'unix:///',
  'unix:///a?b',
  'unix:///a#b',
  'tcp://127.0.0.1:8081',
  'UNIX:///run/api.sock',
  'unix:///a\nb?',
])('%s is refused', (value) => {
  expect(() => endpointSocket({ SPIFFE_ENDPOINT_SOCKET: value })).toThrow(
    expect.objectContaining({ code: 'config_invalid' }),
  );
});
