import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { credentials, Metadata } from '@grpc/grpc-js';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../src/config.ts';
import { openLog } from '../src/log.ts';
import { startUp } from '../src/up.ts';
import { AuthorizationClient, CheckRequest } from '../src/wire/authz.ts';
import { eventually } from './harness/eventually.ts';
import { ask } from './harness/http.ts';
import { entry } from './harness/mesh.ts';
import { createScope } from './harness/scope.ts';
import { fetchKeyPair } from './harness/sds-client.ts';
import { type EndedSpan, keepSpans } from './harness/spans.ts';
import { makeTempDir } from './harness/temp.ts';

const scope = createScope();
const id = 'spiffe://mesh.test/ns/shop/sa/web';
const traceId = 'ab'.repeat(16);
const traceparent = `00-${traceId}-${'cd'.repeat(8)}-01`;
let spans: ReturnType<typeof keepSpans>;
let workloadSocket: string;
let adminSocket: string;

beforeAll(async () => {
  spans = keepSpans();
  scope.defer(() => spans.stop());
  const directory = makeTempDir(scope);
  workloadSocket = join(directory, 'w.sock');
  adminSocket = join(directory, 'a.sock');
  const flags = {
    trustDomain: 'mesh.test',
    dataDir: join(directory, 'data'),
    workloadSocket,
    adminSocket,
    adminAddress: 'off',
    shutdownGraceSeconds: '1',
  };
  const config = loadConfig({ flags, environment: {}, file: null, isRoot: false });
  const running = await startUp(config, openLog('silent'));
  scope.defer(() => running.close());
  const text = entry(id, process.execPath);
  await admin('POST', '/v1/apply', { files: [{ file: 'f', text }] });
});
afterAll(() => scope.close());

test('a certificate leaves spans of its preparation, record and signature below that of its issuance', async () => {
  await fetchKeyPair(workloadSocket);
  const issue = await ended('x509.issue', ({ attributes }) => attributes['spiffe.id'] === id);
  for (const name of ['x509.prepare', 'x509.record', 'x509.sign']) {
    expect(await ended(name, ({ parentId }) => parentId === issue.spanId)).toMatchObject({
      traceId: issue.traceId,
    });
  }
  expect(await ended('sds.push')).toMatchObject({ attributes: { 'countersign.secrets': 1 } });
});

test.each([
  ['the metadata of the call', { metadata: traceparent, header: '' }, traceId],
  ['the headers it is about', { metadata: '', header: traceparent }, traceId],
  ['nowhere', { metadata: '', header: '' }, undefined],
  ['a text that is none', { metadata: '00-zz-11-01', header: '' }, undefined],
])('a check has its parent from %s, and tells what was decided', async (_, { metadata, header }, parent) => {
  spans.ended.length = 0;
  await check(metadata, header);
  const span = await ended('envoy.service.auth.v3.Authorization/Check');
  expect(span.attributes).toMatchObject({ 'countersign.verdict': 'deny', 'rpc.grpc.status_code': 0 });
  expect(span.attributes['countersign.reason']).toEqual(expect.any(String));
  expect(span.parentId === undefined ? undefined : span.traceId).toBe(parent);
});

test('checks that are decided in one turn each tell of themselves', async () => {
  await check('', '');
  spans.ended.length = 0;
  await Promise.all(Array.from({ length: 20 }, () => check('', '')));
  const told = spans.ended
    .filter(({ name }) => name === 'envoy.service.auth.v3.Authorization/Check')
    .map(({ attributes }) => attributes['countersign.decision_id']);
  expect(told).toEqual(Array.from({ length: 20 }, () => expect.any(String)));
  expect(new Set(told).size).toBe(20);
});

test('a request of the admin API is named by its route, never by its URL', async () => {
  spans.ended.length = 0;
  await admin('GET', '/v1/entries/secret-name', undefined, { traceparent });
  const span = await ended('GET /v1/entries/:id');
  expect(span).toMatchObject({ traceId, attributes: { 'http.response.status_code': 404 } });
  expect(JSON.stringify(spans.ended)).not.toContain('secret-name');
});

test('no span holds a path, a header, a key or a certificate', async () => {
  await check('', '');
  await fetchKeyPair(workloadSocket);
  const text = JSON.stringify(spans.ended);
  for (const word of ['/private/path', 'Bearer', 'PRIVATE KEY', 'BEGIN']) expect(text).not.toContain(word);
});

test('the program knows the API of OpenTelemetry and no SDK', () => {
  const { dependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    dependencies: Record<string, string>;
  };
  expect(Object.keys(dependencies).filter((name) => name.startsWith('@opentelemetry/'))).toEqual([
    '@opentelemetry/api',
  ]);
});

function ended(name: string, isIt: (span: EndedSpan) => boolean = () => true): Promise<EndedSpan> {
  return eventually(`the span ${name}`, () => spans.ended.find((span) => span.name === name && isIt(span)));
}

function check(metadata: string, header: string): Promise<void> {
  const client = new AuthorizationClient(`unix:${workloadSocket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'countersign',
  });
  scope.defer(() => client.close());
  const sent = new Metadata();
  if (metadata !== '') sent.set('traceparent', metadata);
  const headers = {
    authorization: 'Bearer secret',
    ':path': '/private/path',
    ...(header === '' ? {} : { traceparent: header }),
  };
  const request = CheckRequest.decode(new Uint8Array(0));
  request.attributes = {
    ...CheckRequest.decode(Buffer.from([0x0a, 0])).attributes!,
    request: { time: undefined, http: { ...http, headers } },
  };
  return new Promise((resolve, reject) => {
    client.check(request, sent, { deadline: Date.now() + 20_000 }, (error) =>
      error ? reject(error) : resolve(),
    );
  });
}

const http = {
  id: '1',
  method: 'GET',
  path: '/private/path',
  host: 'a',
  scheme: 'http',
  query: '',
  fragment: '',
  size: 0n,
  protocol: 'HTTP/1.1',
  body: '',
  rawBody: Buffer.alloc(0),
  headerMap: undefined,
};

async function admin(
  method: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  await ask({
    to: adminSocket,
    method,
    path,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}
