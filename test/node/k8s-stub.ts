import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { makeCertificateRequest } from '../../src/node/certificate-request.ts';
import { encodePem } from '../../src/spiffe/pem.ts';
import { makeOpensslRoot } from '../harness/openssl-ca.ts';
import type { Scope } from '../harness/scope.ts';

type Json = Record<string, unknown>;

/** What an API server answers; a test changes it as it likes. */
export type StubAnswers = {
  /** `status` of the TokenReview. */
  review: Json;
  pod: Json | null;
  node: Json | null;
  jwks: string;
  /** Answers everything with this status. */
  status: number | null;
  /** Takes connections and answers nothing. */
  isSilent: boolean;
  /** Answers everything with these bytes, and leaves the connection open. */
  raw?: string | undefined;
  /** What is asked about pods waits for this. */
  hold?: Promise<void> | undefined;
};

/** An API server over TLS, with what it was asked. */
export type ApiStub = {
  readonly url: string;
  readonly caFile: string;
  readonly tokenFile: string;
  readonly answers: StubAnswers;
  /** `METHOD path`, in order. */
  readonly asked: string[];
  readonly bodies: Json[];
  readonly close: () => Promise<void>;
};

export const podUid = '11111111-2222-4333-8444-555555555555';
export const nodeUid = 'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee';
export const bearer = 'server-token';

/** Starts an API server on the loopback address that has one pod on one node. */
export async function startApiStub(scope: Scope, directory: string): Promise<ApiStub> {
  const ca = makeOpensslRoot(directory, 'kube-ca');
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const pkcs8 = new Uint8Array(pair.privateKey.export({ type: 'pkcs8', format: 'der' }));
  const csr = makeCertificateRequest(
    new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' })),
    pkcs8,
  );
  writeFileSync(join(directory, 'kube.csr'), encodePem('CERTIFICATE REQUEST', csr));
  const cert = ca.sign(join(directory, 'kube.csr'), 'subjectAltName = IP:127.0.0.1\n');
  const caFile = join(directory, 'kube-ca.crt');
  const tokenFile = join(directory, 'kube-token');
  writeFileSync(caFile, ca.certificate);
  writeFileSync(tokenFile, `${bearer}\n`);
  const answers: StubAnswers = {
    review: reviewed(),
    pod: podObject(),
    node: nodeObject(),
    jwks: '{"keys":[]}',
    status: null,
    isSilent: false,
  };
  const asked: string[] = [];
  const bodies: Json[] = [];
  const server = createServer({ cert, key: encodePem('PRIVATE KEY', pkcs8) }, (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    const answer = async (): Promise<void> => {
      asked.push(`${request.method} ${request.url}`);
      if (request.url?.includes('/pods/') === true) await answers.hold;
      if (answers.isSilent) return;
      if (answers.raw !== undefined) return void request.socket.write(answers.raw);
      const send = (status: number, body: unknown): void => {
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(typeof body === 'string' ? body : JSON.stringify(body));
      };
      if (answers.status !== null) return send(answers.status, failure(answers.status));
      if (request.url === '/openid/v1/jwks') return send(200, answers.jwks);
      if (request.headers.authorization !== `Bearer ${bearer}`) return send(401, failure(401));
      if (request.url === '/apis/authentication.k8s.io/v1/tokenreviews') {
        const body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as Json;
        bodies.push(body);
        return send(201, { ...body, status: answers.review });
      }
      const found = request.url?.includes('/pods/') === true ? answers.pod : answers.node;
      return send(found === null ? 404 : 200, found ?? failure(404));
    };
    request.on('end', () => void answer());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  scope.defer(close);
  const { port } = server.address() as { port: number };
  return { url: `https://127.0.0.1:${port}`, caFile, tokenFile, answers, asked, bodies, close };
}

/** The status of a review that is all right. */
export function reviewed(change: Json = {}, extra: Json = {}): Json {
  return {
    authenticated: true,
    user: {
      username: 'system:serviceaccount:mesh:agent',
      uid: '0f0f0f0f-0000-4000-8000-000000000000',
      groups: ['system:serviceaccounts', 'system:serviceaccounts:mesh', 'system:authenticated'],
      extra: {
        'authentication.kubernetes.io/pod-name': ['agent-x7k2p'],
        'authentication.kubernetes.io/pod-uid': [podUid],
        'authentication.kubernetes.io/node-name': ['node-1'],
        'authentication.kubernetes.io/node-uid': [nodeUid],
        ...extra,
      },
    },
    audiences: ['countersign'],
    ...change,
  };
}

export function podObject(metadata: Json = {}, spec: Json = {}, status: Json = { phase: 'Running' }): Json {
  return {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: { name: 'agent-x7k2p', namespace: 'mesh', uid: podUid, ...metadata },
    spec: { nodeName: 'node-1', serviceAccountName: 'agent', containers: [], ...spec },
    status,
  };
}

export function nodeObject(metadata: Json = {}): Json {
  const labels = { 'topology.kubernetes.io/zone': 'a', 'kubernetes.io/os': 'linux' };
  return {
    kind: 'Node',
    apiVersion: 'v1',
    metadata: { name: 'node-1', uid: nodeUid, labels, ...metadata },
    spec: {},
    status: {},
  };
}

/** The claims that an API server puts into a projected token. */
export function claimsAt(now: Date, change: Json = {}, bound: Json = {}): Json {
  const seconds = Math.floor(now.getTime() / 1_000);
  return {
    aud: ['countersign'],
    exp: seconds + 3_600,
    iat: seconds,
    iss: 'https://kubernetes.default.svc.cluster.local',
    jti: '7e1d1a7c-0000-4000-8000-000000000000',
    'kubernetes.io': {
      namespace: 'mesh',
      node: { name: 'node-1', uid: nodeUid },
      pod: { name: 'agent-x7k2p', uid: podUid },
      serviceaccount: { name: 'agent', uid: '0f0f0f0f-0000-4000-8000-000000000000' },
      ...bound,
    },
    nbf: seconds,
    sub: 'system:serviceaccount:mesh:agent',
    ...change,
  };
}

/** A key of a cluster. */
export type ClusterKey = {
  readonly kid: string;
  readonly alg: 'RS256' | 'ES256';
  readonly privateKey: KeyObject;
  readonly jwk: Json;
};

export function makeClusterKey(kid: string, alg: ClusterKey['alg']): ClusterKey {
  const { publicKey, privateKey } =
    alg === 'ES256'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : generateKeyPairSync('rsa', { modulusLength: 2_048 });
  return { kid, alg, privateKey, jwk: { use: 'sig', kid, alg, ...publicKey.export({ format: 'jwk' }) } };
}

/** Signs claims as an API server does. @param header members in place of, or beside, the usual ones */
export function signToken(key: ClusterKey, claims: Json | string, header: Json = {}): string {
  const encode = (value: unknown): string =>
    Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
  const input = `${encode({ alg: key.alg, kid: key.kid, ...header })}.${encode(claims)}`;
  const made = sign('sha256', Buffer.from(input), {
    key: key.privateKey,
    ...(key.alg === 'ES256' ? { dsaEncoding: 'ieee-p1363' as const } : {}),
  });
  return `${input}.${made.toString('base64url')}`;
}

function failure(code: number): Json {
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message: 'no', code };
}
