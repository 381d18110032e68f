import { credentials, type ServiceError, status } from '@grpc/grpc-js';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type ErrorKind, errorKinds, MeshError } from '../../src/errors.ts';
import { guardStream, guardUnary } from '../../src/grpc/guard.ts';
import { type GrpcListener, startGrpcListener } from '../../src/grpc/listener.ts';
import { grpcFailure, plainDetails, statusOf } from '../../src/grpc/status.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../../src/wire/discovery.ts';
import { SecretDiscoveryServiceClient, SecretDiscoveryServiceService } from '../../src/wire/sds.ts';

describe('status', () => {
  test.each<[ErrorKind, status]>([
    ['invalid', status.INVALID_ARGUMENT],
    ['too_large', status.RESOURCE_EXHAUSTED],
    ['unauthenticated', status.UNAUTHENTICATED],
    ['forbidden', status.PERMISSION_DENIED],
    ['not_found', status.NOT_FOUND],
    ['conflict', status.ABORTED],
    ['precondition', status.FAILED_PRECONDITION],
    ['exhausted', status.RESOURCE_EXHAUSTED],
    ['unavailable', status.UNAVAILABLE],
    ['internal', status.INTERNAL],
  ])('%s is %i', (kind, code) => {
    expect(statusOf(kind)).toBe(code);
  });

  test('every code has a status other than OK and UNKNOWN', () => {
    for (const kind of Object.values(errorKinds)) {
      expect([status.OK, status.UNKNOWN, undefined]).not.toContain(statusOf(kind));
    }
  });

  test.each([
    ['a stranger', new TypeError('secret detail'), 'internal', 'internal error'],
    ['no error at all', 'secret detail', 'internal', 'internal error'],
    ['our own fault', new MeshError('lint_failed', 'secret detail'), 'lint_failed', 'internal error'],
    ['a public error', new MeshError('shutting_down', 'good night'), 'shutting_down', 'good night'],
  ])('%s', (_, error, code, details) => {
    const failure = grpcFailure(error);
    expect(failure.details).toBe(details);
    expect(failure.metadata.get('countersign-code')).toEqual([code]);
  });

  test('details can always be encoded as a header', () => {
    const { details } = grpcFailure(new MeshError('usage', `half a pair \ud800 ${'x'.repeat(5_000)}`));
    expect(encodeURI(details).length).toBeLessThan(1_200);
  });
});

describe('guards', () => {
  let directory: string;
  let listener: GrpcListener;
  let client: SecretDiscoveryServiceClient;
  let handle: () => Promise<DiscoveryResponse> | DiscoveryResponse;
  let serve: Parameters<typeof guardStream<DiscoveryRequest, DiscoveryResponse>>[0];
  let fallback: ((error: unknown) => DiscoveryResponse) | undefined;
  let reported: unknown[] = [];

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'guard-'));
    const report = (error: unknown): void => void reported.push(error);
    listener = await startGrpcListener({
      path: join(directory, 's'),
      mode: 0o600,
      services: [
        {
          definition: SecretDiscoveryServiceService,
          requestBytes: 1_000,
          implementation: {
            fetchSecrets: guardUnary<DiscoveryRequest, DiscoveryResponse>(() => handle(), {
              report,
              fallback: (error) => {
                if (fallback === undefined) throw new Error('no fallback');
                return fallback(error);
              },
            }),
            streamSecrets: guardStream<DiscoveryRequest, DiscoveryResponse>(
              (call, signal) => serve(call, signal),
              {
                report,
              },
            ),
          },
        },
      ],
    });
    client = new SecretDiscoveryServiceClient(`unix:${listener.path}`, credentials.createInsecure());
  });
  beforeEach(() => {
    reported = [];
    fallback = undefined;
  });
  afterAll(async () => {
    client.close();
    await listener.close(0);
    await rm(directory, { recursive: true });
  });

  const failures: readonly [string, unknown, status, string, string, number][] = [
    [
      'a MeshError',
      new MeshError('identity_none', 'not you'),
      status.PERMISSION_DENIED,
      'not you',
      'identity_none',
      0,
    ],
    ['any other error', new Error('leak'), status.INTERNAL, 'internal error', 'internal', 1],
    [
      'an internal MeshError',
      new MeshError('internal', 'leak'),
      status.INTERNAL,
      'internal error',
      'internal',
      1,
    ],
    ['a string', 'leak', status.INTERNAL, 'internal error', 'internal', 1],
    [
      'an error that looks like one of grpc',
      { code: 0, details: 'leak' },
      status.INTERNAL,
      'internal error',
      'internal',
      1,
    ],
  ];
  describe.each(failures)('%s', (_, thrown, code, details, ours, reports) => {
    test.each([
      ['thrown', () => fling(thrown)],
      ['rejected', async () => fling(thrown)],
      ['rejected later', () => new Promise<never>((_, reject) => setTimeout(reject, 5, thrown))],
    ])('unary, %s', async (_, thrower) => {
      handle = thrower;
      const error = await fetch().catch((caught: unknown) => caught as ServiceError);
      expect(error).toMatchObject({ code, details });
      expect((error as ServiceError).metadata.get('countersign-code')).toEqual([ours]);
      expect(reported).toHaveLength(reports);
    });

    test('stream', async () => {
      serve = async () => fling(thrown);
      expect(await streamStatus()).toMatchObject({ code, details });
      expect(reported).toHaveLength(reports);
    });
  });

  test('a fallback answers in place of the failure', async () => {
    handle = () => fling(new Error('leak'));
    fallback = () => ({ ...response, versionInfo: 'denied' });
    expect(await fetch()).toMatchObject({ versionInfo: 'denied' });
  });

  test('a stream that is done ends with OK', async () => {
    serve = async (call) => void call.write(response);
    expect(await streamStatus()).toMatchObject({ code: status.OK });
  });

  test('the handler is told that the caller has gone', async () => {
    const gone = Promise.withResolvers<void>();
    const here = Promise.withResolvers<void>();
    serve = async (_, signal) => {
      signal.addEventListener('abort', () => gone.resolve());
      here.resolve();
      await gone.promise;
    };
    const call = client.streamSecrets();
    call.on('error', () => undefined).on('data', () => undefined);
    await here.promise;
    call.cancel();
    await gone.promise;
  });

  test('a message over the limit of the listener is the fault of its sender, and not reported as ours', async () => {
    serve = async (call) => {
      for await (const _ of call) call.write(response);
    };
    const ended = new Promise((resolve) => {
      const call = client.streamSecrets();
      call
        .on('error', () => undefined)
        .on('data', () => undefined)
        .on('status', resolve)
        .write({ ...request, versionInfo: 'x'.repeat(1_100_000) });
    });
    expect(await ended).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    // What comes next finds the stream before it dealt with.
    handle = () => response;
    await fetch();
    expect(reported).toEqual([]);
  });

  test.each([
    [900, undefined],
    [1_100, status.INTERNAL],
  ])('a request of some %i bytes, over the limit of the service: %s', async (bytes, code) => {
    handle = () => response;
    const answer = fetch('x'.repeat(bytes));
    if (code === undefined) await expect(answer).resolves.toBeDefined();
    else await expect(answer).rejects.toMatchObject({ code });
  });

  function fetch(versionInfo = ''): Promise<DiscoveryResponse> {
    return new Promise((resolve, reject) => {
      client.fetchSecrets({ ...request, versionInfo }, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
  }

  function streamStatus(): Promise<unknown> {
    return new Promise((resolve) => {
      const call = client.streamSecrets();
      call
        .on('error', () => undefined)
        .on('data', () => undefined)
        .on('status', resolve);
    });
  }
});

function fling(thrown: unknown): never {
  throw thrown;
}

const request: DiscoveryRequest = {
  versionInfo: '',
  node: undefined,
  resourceNames: [],
  typeUrl: '',
  responseNonce: '',
  errorDetail: undefined,
};
const response: DiscoveryResponse = {
  versionInfo: '1',
  resources: [],
  canary: false,
  typeUrl: '',
  nonce: '',
  controlPlane: undefined,
  resourceErrors: [],
};

test.each([
  [
    'No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:7444. Resolution note: ',
    'connect ECONNREFUSED 127.0.0.1:7444',
  ],
  ['Deadline exceeded after 5.001s,name resolution: 0.012s,LB pick: 0.036s', 'no answer within 5 s'],
  ['the node is banned', 'the node is banned'],
])('%s is said as: %s', (details, plain) => {
  expect(plainDetails(details)).toBe(plain);
});
