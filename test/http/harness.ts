import { finish } from '../../src/authz/steps.ts';
import { createRolloutTally } from '../../src/identity/rollout-tally.ts';
import { findStandingDenial } from '../../src/identity/standing-denial.ts';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { type IncomingHttpHeaders, request as httpRequest } from 'node:http';
import { type Agent, request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import type { AuditEventType } from '../../src/audit/event.ts';
import { parseAuditQuery } from '../../src/audit/question.ts';
import { denyDecision } from '../../src/authz/decide.ts';
import { explainCall } from '../../src/authz/judge.ts';
import { type RevocationList, signRevocationList } from '../../src/ca/crl.ts';
import { makeIssuer } from '../ca/crl-issuer.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import type { Clock } from '../../src/clock.ts';
import { type ErrorCode, MeshError } from '../../src/errors.ts';
import { type AdminPorts, createAdminApp } from '../../src/http/app.ts';
import type { CaPort } from '../../src/http/ca-report.ts';
import { type AdminListener, listenTls, listenUnix, type TlsListener } from '../../src/http/listener.ts';
import { openUnixDoor } from '../../src/http/unix-door.ts';
import { createAdministration } from '../../src/identity/administration.ts';
import { createCertificateJudge } from '../../src/grpc/tls-certificate.ts';
import { indexGrants } from '../../src/identity/admin-grant.ts';
import type { VerifyIdToken } from '../../src/identity/id-token.ts';
import { compileStoredMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import { bundlePem } from '../../src/spiffe/bundle.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { openLog } from '../../src/log.ts';
import { createNodePresences } from '../../src/node/node-presence.ts';
import { openNodeRegistry } from '../../src/node/node-registry.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { decisionPorts } from '../../src/up-decisions.ts';
import { auditorPorts } from '../../src/up-questions.ts';
import { replayPorts } from '../../src/up-replay.ts';
import { openJwt } from '../../src/up-jwt.ts';
import { logSigner } from '../audit/log-files.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';
import {
  type ClientCertificate,
  configuredAdmin,
  seedTokens,
  serverCertificate,
  type TokenName,
} from './callers.ts';
import { createAnswerCheck } from './openapi-check.ts';
import { statusReport } from './status-report.ts';

export type Ask = {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Record<string, string | string[]>;
  readonly body?: unknown;
  /** Sent as it is; otherwise `body` is sent as JSON. */
  readonly rawBody?: string | Buffer;
};
export type Answer = {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into answers freely
  readonly json: any;
};

/** A clock that moves only when told. */
export type HandClock = Clock & { readonly move: (ms: number) => void };

export type Harness = {
  readonly clock: HandClock;
  readonly store: Store;
  readonly ports: AdminPorts;
  readonly unix: AdminListener;
  readonly tls: TlsListener;
  readonly tlsApp: FastifyInstance;
  readonly caPem: string;
  readonly failures: unknown[];
  readonly tokens: Readonly<Record<TokenName, string>>;
  /** The authority whose certificates clients show; swapped, those of the one before count no longer. */
  readonly clients: { current: TestAuthority };
  readonly issueServerCertificate: (owner?: string) => Promise<{ certificate: string; privateKey: string }>;
  readonly overUnix: (ask: Ask) => Promise<Answer>;
  readonly overTls: (ask: Ask, role?: TokenName | null) => Promise<Answer>;
  /** Shows a certificate, or none, and no token of its own. */
  readonly overMtls: (ask: Ask, shown: ClientCertificate, agent?: Agent) => Promise<Answer>;
  /** Sends bytes to the TLS door and returns what came back. */
  readonly rawTls: (text: string) => Promise<string>;
  readonly events: (type: AuditEventType) => Promise<Record<string, unknown>[]>;
  readonly close: () => Promise<void>;
};

/** A CA in the middle of a rotation that nothing moves: every step is refused with its own code. */
function refusingCa(clock: Clock): CaPort {
  const refuse = (code: ErrorCode) => async (): Promise<never> => {
    throw new MeshError(code, 'not now', { fix: 'wait' });
  };
  const at = clock.now();
  return {
    report: async () => ({
      bundleSequence: 2,
      authorities: [],
      waiting: null,
      warnings: [],
      coverage: { sequence: 2, confirmed: 1, holders: 2 },
      next: { step: 'activate', safe: false },
      laggards: [{ spiffeId: 'spiffe://example.org/web', node: 'n', lastSeen: at, why: 'late', until: at }],
      moreLaggards: 0,
      doubt: null,
    }),
    request: () => {
      throw new MeshError('csr_not_waiting', 'not now', { fix: 'wait' });
    },
    importChain: refuse('chain_broken'),
    rotate: refuse('rotation_out_of_order'),
    activate: refuse('rotation_unproven'),
    retire: refuse('rotation_unproven'),
    taint: refuse('authority_not_found'),
  };
}

/** Every answer of every test of this door is held against the OpenAPI document. */
const answers = createAnswerCheck();

async function exchangeChecked(dial: Dial, target: object, ask: Ask): Promise<Answer> {
  const answer = await exchange(dial, target, ask);
  const { status, headers, text } = answer;
  answers.check({
    method: ask.method ?? 'GET',
    path: ask.path,
    status,
    contentType: headers['content-type'],
    text,
  });
  return answer;
}

export const trustDomain = TrustDomain.parse('example.org');

/** The admin API on a real store, a real administration and real sockets. */
export async function startHarness(
  changes: Partial<AdminPorts> = {},
  openOidc: (clock: Clock) => VerifyIdToken | null = () => null,
): Promise<Harness> {
  const dir = await mkdtemp(join(tmpdir(), 'countersign-http-'));
  const clock = handClock(new Date('2027-01-01T00:00:00Z'));
  const store = await openStore({ dataDir: join(dir, 'data'), clock, randomBytes });
  await store.signLog(logSigner.name, logSigner.privateKey);
  const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
  const holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  const authority = await createTestAuthority();
  const clients = { current: await makeTestAuthority(clock.now(), {}, trustDomain.name) };
  const failures: unknown[] = [];
  const jwt = await openJwt({
    store,
    keyDir: join(dir, 'keys'),
    trustDomain,
    secret: { kind: 'random_key', bytes: randomBytes(32) },
    config: { jwtTtlSeconds: 300, jwtIssuer: null, jwtKeyType: 'ec-p256' },
    holder,
    clock,
    randomBytes,
    doubt: () => null,
    log: openLog('silent'),
  });
  const nodes: AdminPorts['nodes'] = {
    nodeAddress: '127.0.0.1:7444',
    registry: await openNodeRegistry(store, clock),
    presence: createNodePresences(clock).of,
    listJoinTokens: store.listJoinTokens,
    createJoinToken: store.createJoinToken,
    revokeJoinToken: store.revokeJoinToken,
    formatJoinSecret: (secret) => `cst1.${secret}.${'ab'.repeat(32)}`,
  };
  const replay = replayPorts({
    ...{ store, holder, trustDomain, clock },
    ...{ rootNamespace: 'istio-system', ttlSeconds: 3_600, breathe: () => undefined },
  });
  const ports: AdminPorts = {
    administration: createAdministration({
      holder,
      settings,
      commit: store.commitMesh,
      signer: makePolicySigner(),
      history: { revision: store.policyRevision, past: store.policyPast },
      latestExpiry: store.latestExpiry,
      latestExpiries: store.latestExpiries,
      clock,
    }),
    access: {
      trustDomain,
      judgeCertificate: createCertificateJudge({ bundle: () => clients.current.authority.bundle, clock }),
      bans: () => holder.current().bans,
      verifyIdToken: openOidc(clock),
      grants: () => indexGrants(holder.current().mesh.grants ?? new Map()),
      isConfiguredAdmin: (id) => id.text === configuredAdmin,
    },
    recordEvents: store.recordEvents,
    queryAudit: store.queryAudit,
    countAudit: store.countAudit,
    ...decisionPorts({
      ...{ store, holder, trustDomain, clock },
      rootNamespace: 'istio-system',
      breathe: () => undefined,
    }),
    ...auditorPorts({
      ...{ store, holder, trustDomain, nodes, clock, ...replay },
      rootNamespace: 'istio-system',
      breathe: () => undefined,
    }),
    ...replay,
    auditCheckpoint: store.auditCheckpoint,
    auditKey: () => Promise.resolve(logSigner.verifierKey),
    auditWitnesses: async () => ({ cosigned: null, witness: null }),
    witnessedCheckpoint: store.witnessedCheckpoint,
    auditTile: store.auditTile,
    auditRemains: store.auditRemains,
    findPersonal: store.findPersonal,
    shredPersonal: store.shredPersonal,
    foldLog: store.foldLog,
    oldCopies: () => [],
    proveEntry: store.proveEntry,
    proveConsistency: store.proveConsistency,
    namedCertificates: store.namedCertificates,
    revisions: {
      page: store.policyRevisions,
      policiesOf: store.policiesOf,
      policyOf: store.policyOf,
      policiesIn: store.policiesIn,
    },
    rollouts: createRolloutTally(),
    findToken: store.findToken,
    listTokens: store.listTokens,
    createToken: (token, event) => store.createToken(token, [event]),
    revokeToken: (id, event) => store.revokeToken(id, [event]),
    checkAuthz: ({ host, ...call }) => {
      const { snapshot, bans } = holder.current();
      const banned = findStandingDenial(bans, { id: call.source }, call.destination, clock.now());
      const standing = banned === undefined ? undefined : denyDecision('banned', banned, snapshot.revision);
      return explainCall(snapshot, { ...call, authority: host }, clock.now(), standing);
    },
    survey: (question) => Promise.resolve(finish(question(holder.current().snapshot, clock.now()))),
    policySet: () => ({
      policies: holder.current().policies.values(),
      rootNamespace: 'istio-system',
    }),
    isBanned: (source, destination) =>
      findStandingDenial(holder.current().bans, { id: source }, destination, clock.now()) !== undefined,
    authzenNamespace: 'app',
    status: async () => statusReport(clock.now(), trustDomain.name),
    readiness: () => ({ ready: true, causes: [], warnings: [], conditions: [] }),
    metricsText: () => '# nothing\n',
    trustBundlePem: () => bundlePem(authority.bundle),
    trustBundleDocument: () => '{"keys":[]}',
    ca: refusingCa(clock),
    revocationLists: () => revocationLists(clock.now()),
    jwt: jwt.port,
    nodes,
    clock,
    randomBytes,
    reportFailure: (_id, error) => failures.push(error),
    ...changes,
  };
  const tokens = await seedTokens(store, clock.now());
  const unix = await listenUnix(await createAdminApp(ports, await openUnixDoor([])), join(dir, 'admin.sock'));
  const issueServerCertificate = (owner?: string) => serverCertificate(authority, owner);
  const tlsApp = await createAdminApp(ports, {
    kind: 'tls',
    ...(await issueServerCertificate()),
    allowedHosts: new Set(['localhost', '127.0.0.1']),
  });
  const tls = await listenTls(tlsApp, { host: '127.0.0.1', port: 0 });
  const port = Number(tls.address.split(':').at(-1));
  const caPem = bundlePem(authority.bundle);
  return {
    clock,
    store,
    ports,
    unix,
    tls,
    tlsApp,
    caPem,
    failures,
    tokens,
    clients,
    issueServerCertificate,
    overMtls: (ask, shown, agent) =>
      exchangeChecked(
        httpsRequest,
        { host: '127.0.0.1', port, servername: 'localhost', ca: caPem, agent: agent ?? false, ...shown },
        ask,
      ),
    overUnix: (ask) => exchangeChecked(httpRequest, { socketPath: unix.address, agent: false }, ask),
    overTls: (ask, role = 'admin') =>
      exchangeChecked(
        httpsRequest,
        { host: '127.0.0.1', port, servername: 'localhost', ca: caPem, agent: false },
        role === null
          ? ask
          : { ...ask, headers: { authorization: `Bearer ${tokens[role]}`, ...ask.headers } },
      ),
    rawTls: (text) => rawExchange(port, caPem, text),
    events: async (type) => {
      const query = parseAuditQuery({ types: [type], limit: 1_000, order: 'oldest' }, clock.now());
      const { rows } = await store.queryAudit(query);
      return rows.map(({ leaf }) => JSON.parse(leaf) as Record<string, unknown>);
    },
    close: async () => {
      await Promise.all([unix.close(0), tls.close(0), jwt.close()]);
      await store.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

export function handClock(start: Date): HandClock {
  let now = start;
  return {
    now: () => now,
    move: (ms) => {
      now = new Date(now.getTime() + ms);
    },
    sleep: (_ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted === true) resolve();
        signal?.addEventListener('abort', () => resolve(), { once: true });
      }),
  };
}

/** Sends bytes to a Unix socket and returns what came back. */
export function rawUnix(path: string, text: string): Promise<string> {
  return collect(connect(path), text);
}

async function createTestAuthority() {
  return (await makeTestAuthority(new Date(), {}, trustDomain.name)).authority;
}

type Dial = (options: object, done: Parameters<typeof httpRequest>[2]) => ReturnType<typeof httpRequest>;

function exchange(dial: Dial, target: object, ask: Ask): Promise<Answer> {
  const body = ask.rawBody ?? (ask.body === undefined ? undefined : JSON.stringify(ask.body));
  const headers = {
    host: 'localhost',
    ...(body === undefined
      ? {}
      : { 'content-type': 'application/json', 'content-length': `${Buffer.byteLength(body)}` }),
    ...ask.headers,
  };
  return new Promise((resolve, reject) => {
    const options = { ...target, method: ask.method ?? 'GET', path: ask.path, headers };
    const request = dial(options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        const isJson = response.headers['content-type']?.includes('json') === true;
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text,
          json: isJson ? JSON.parse(text) : undefined,
        });
      });
    });
    request.on('error', reject);
    request.end(body);
  });
}

function rawExchange(port: number, ca: string, text: string): Promise<string> {
  return collect(connectTls({ host: '127.0.0.1', port, servername: 'localhost', ca }), text);
}

function collect(socket: ReturnType<typeof connect>, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    socket.setTimeout(5_000, () => socket.destroy(new Error('no answer')));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('latin1')));
    socket.write(text, 'latin1');
  });
}

/** Empty lists of two CAs. */
function revocationLists(now: Date): Promise<readonly RevocationList[]> {
  return Promise.all(
    listIssuers.map(({ issuer }, i) => signRevocationList(issuer, { number: i + 1, entries: [], now })),
  );
}

/** The CAs of the lists. */
export const listIssuers = ['ecdsa-p256', 'ecdsa-p384'].map(makeIssuer);
