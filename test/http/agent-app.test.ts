import { request } from 'node:http';
import { connect } from 'node:net';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { agentRoutes, type AgentDoor, type AgentPorts } from '../../src/http/agent-app.ts';
import { listenAgent, listenMetrics } from '../../src/http/agent-listener.ts';
import { createScope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

const scope = createScope();
afterAll(() => scope.close());

let socket: string;
let port: number;
let uid: number | undefined = 7;
let isReady = true;
const failures: unknown[] = [];
const owner = 7;

beforeAll(async () => {
  const ports: AgentPorts = {
    readiness: () => ({ ready: isReady, causes: isReady ? [] : ['policy is too old'], warnings: ['away'] }),
    metricsText: () => '# EOF\n',
    status: () => {
      if (!isReady) throw new Error('/secret/path');
      return { kind: 'agent' };
    },
    randomBytes: (size) => new Uint8Array(size),
    reportFailure: (_, error) => failures.push(error),
  };
  const door: Extract<AgentDoor, { kind: 'unix' }> = {
    kind: 'unix',
    peerUid: () => {
      if (uid === undefined) throw new Error('the kernel does not say');
      return uid;
    },
    adminUids: new Set([0, owner]),
  };
  socket = join(makeTempDir(scope), 'admin.sock');
  const unix = await listenAgent(ports, door, socket);
  scope.defer(() => unix.close(0));
  const loopback = await listenMetrics(ports, { host: '127.0.0.1', port: 0 });
  scope.defer(() => loopback.close(0));
  port = Number(new URL(loopback.address).port);
});

beforeEach(() => {
  [uid, isReady] = [owner, true];
});

const doors = [
  ['unix', () => ({ socketPath: socket })],
  ['loopback', () => ({ host: '127.0.0.1', port })],
] as const;

describe.each(doors)('the %s door', (kind, at) => {
  const table = [...agentRoutes(kind)];

  test.each(table)('%s answers, and everything else is refused there', async (path) => {
    const answer = await call(at(), path);
    expect([answer.status, answer.headers['cache-control']]).toEqual([200, 'no-store']);
    expect(answer.headers['x-content-type-options']).toBe('nosniff');
    for (const method of ['POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'TRACE']) {
      const other = await call(at(), path, { method });
      expect([method, other.status, other.headers['allow']]).toEqual([method, 405, 'GET']);
    }
    const bodied = await call(at(), path, { body: 'x', headers: { 'content-length': '1' } });
    expect([bodied.status, bodied.json.code]).toEqual([400, 'body_invalid']);
  });

  test.each([
    '/',
    '/v1/entries',
    '/v1/status/',
    '//metrics',
    '/%6detrics',
    '/v1/../metrics',
    '/__proto__',
    '*',
  ])('there is no %s', async (path) => {
    const answer = await call(at(), path);
    expect([answer.status, answer.json.code]).toEqual([404, 'route_not_found']);
  });

  test.each([
    ['evil.example', 421, 'host_not_allowed'],
    ['metrics.evil.example:80', 421, 'host_not_allowed'],
    ['127.0.0.1.evil.example', 421, 'host_not_allowed'],
  ])('a name that was rebound to this machine is refused: %s', async (host, status, code) => {
    const answer = await call(at(), '/metrics', { headers: { host } });
    expect([answer.status, answer.json.code]).toEqual([status, code]);
  });

  test('a web page is refused', async () => {
    const answer = await call(at(), '/metrics', { headers: { origin: 'http://localhost' } });
    expect([answer.status, answer.json.code]).toEqual([403, 'origin_not_allowed']);
  });

  test('bytes that are no request are answered, and end the connection', async () => {
    const answer = await raw(at(), 'GARBAGE\r\n\r\n');
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('who waits for leave to send a body is answered at once', async () => {
    const answer = await raw(
      at(),
      'POST /metrics HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9\r\nconnection: close\r\n\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 405 /);
  });

  test('it says that it is not ready, and why', async () => {
    isReady = false;
    const answer = await call(at(), '/readyz');
    expect([answer.status, answer.json]).toEqual([
      503,
      { ready: false, causes: ['policy is too old'], warnings: ['away'] },
    ]);
  });
});

describe('the socket', () => {
  test('is for its owner alone', () => {
    expect(statSync(socket).mode & 0o777).toBe(0o600);
  });

  const owned = [...agentRoutes('unix')].filter(([, access]) => access === 'owner').map(([path]) => path);
  test.each([...owned, '/v1/entries'])('refuses another uid, and who is not known: %s', async (path) => {
    uid = 8;
    const answer = await call({ socketPath: socket }, path);
    expect([answer.status, answer.json.code]).toEqual([403, 'forbidden']);
    uid = undefined;
    const unknown = await call({ socketPath: socket }, path);
    expect([unknown.status, unknown.json.code]).toEqual([401, 'unauthenticated']);
  });

  test('tells anybody whether it lives and is ready', async () => {
    uid = 8;
    const answers = await Promise.all(
      ['/healthz', '/readyz'].map((path) => call({ socketPath: socket }, path)),
    );
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  });

  test('keeps what failed inside', async () => {
    isReady = false;
    const answer = await call({ socketPath: socket }, '/v1/status');
    expect([answer.status, answer.json.code]).toEqual([500, 'internal']);
    expect(answer.text).not.toContain('secret');
    expect(failures).toHaveLength(1);
  });
});

test('the loopback door has no status', () => {
  expect(agentRoutes('loopback').has('/v1/status')).toBe(false);
});

test('a port that is taken is named', async () => {
  const ports = { metricsText: () => '', readiness: () => ({ ready: true, causes: [], warnings: [] }) };
  await expect(
    listenMetrics(
      { ...ports, randomBytes: () => new Uint8Array(8), reportFailure: () => undefined },
      {
        host: '127.0.0.1',
        port,
      },
    ),
  ).rejects.toMatchObject({ code: 'address_in_use' });
});

type At = { readonly socketPath: string } | { readonly host: string; readonly port: number };
type Call = {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
};

async function call(at: At, path: string, { method = 'GET', headers = {}, body }: Call = {}) {
  return new Promise<{
    status: number;
    headers: Record<string, string | string[] | undefined>;
    text: string;
    // oxlint-disable-next-line typescript/no-explicit-any -- tests look into answers freely
    json: any;
  }>((resolve, reject) => {
    const sent = request(
      { ...at, path, method, agent: false, headers: { host: 'localhost', ...headers } },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString('utf8');
          const isJson = response.headers['content-type']?.includes('json') === true && text !== '';
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            json: isJson ? JSON.parse(text) : undefined,
          });
        });
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

function raw(at: At, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = 'socketPath' in at ? connect(at.socketPath) : connect(at.port, at.host);
    const chunks: Buffer[] = [];
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer')));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('latin1')));
    socket.write(text);
  });
}
