import { dirname } from 'node:path';
import { denyDecision } from './authz/decide.ts';
import { explainCall } from './authz/judge.ts';
import type { Config } from './config.ts';
import { MeshError, publicError } from './errors.ts';
import { createCertificateJudge } from './grpc/tls-certificate.ts';
import { type AdminPorts, createAdminApp } from './http/app.ts';
import { type AdminListener, listenTls, listenUnix } from './http/listener.ts';
import { openUnixDoor } from './http/unix-door.ts';
import { type AdminGrant, indexGrants, parseAdministrator } from './identity/admin-grant.ts';
import { type Candidate, rolloutOf } from './identity/candidate.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { Keeper } from './identity/keeper.ts';
import { type Breathe, inBreaths } from './identity/breath.ts';
import { noRollout } from './identity/rollout.ts';
import { findStandingDenial } from './identity/standing-denial.ts';
import type { Log } from './log.ts';
import { bundlePem } from './spiffe/bundle.ts';
import type { SpiffeId, TrustDomain } from './spiffe/id.ts';
import type { JwtBundle } from './spiffe/jwt-bundle.ts';
import { makeDirectory } from './store/key-files.ts';
import { listOldCopies } from './store/backup.ts';
import type { Store } from './store/store.ts';
import { traceRequest } from './tracing.ts';
import type { KeptAuthority } from './up-authority.ts';
import { decisionPorts } from './up-decisions.ts';
import { openOidc } from './up-oidc.ts';
import { keepOwnCertificate } from './up-own-certificate.ts';
import { auditorPorts } from './up-questions.ts';
import { replayPorts } from './up-replay.ts';
import { bundleDocument } from './up-trust.ts';

/** The admin API of a running authority. */
export type AdminDoors = {
  /** `https://localhost:port` with the real port, or null when the TLS door is off. */
  readonly url: () => string | null;
  readonly close: () => Promise<void>;
};

export type AdminDoorParts = Pick<
  AdminPorts,
  | 'administration'
  | 'rollouts'
  | 'ca'
  | 'revocationLists'
  | 'jwt'
  | 'nodes'
  | 'status'
  | 'readiness'
  | 'metricsText'
  | 'auditWitnesses'
  | 'clock'
  | 'randomBytes'
> & {
  readonly config: Config;
  readonly trustDomain: TrustDomain;
  readonly store: Store;
  readonly holder: MeshHolder;
  readonly authority: KeptAuthority;
  readonly jwtBundle: () => JwtBundle;
  readonly keeper: Keeper;
  readonly breathe: Breathe;
  readonly log: Log;
};

/** Opens the admin API on its Unix socket and, unless it is off, on TLS. */
export async function openAdminDoors(parts: AdminDoorParts): Promise<AdminDoors> {
  const ports = { ...portsOf(parts), access: accessOf(parts) };
  const { config } = parts;
  const graceMs = config.shutdownGraceSeconds * 1_000;
  makeDirectory(dirname(config.adminSocket), 0o755);
  const unix = await listenUnix(
    await createAdminApp(ports, await openUnixDoor(config.adminUids)),
    config.adminSocket,
  );
  const tls =
    config.adminAddress === null
      ? null
      : await openTls(parts, ports, config.adminAddress).catch(async (error: unknown) => {
          await unix.close(0);
          throw error;
        });
  return {
    url: () => tls?.url ?? null,
    close: async () => {
      await Promise.all([unix.close(graceMs), tls?.close(graceMs)]);
    },
  };
}

function portsOf(parts: AdminDoorParts): Omit<AdminPorts, 'access'> {
  const { store, holder, authority, log } = parts;
  const { rootNamespace, leafTtlSeconds: ttlSeconds } = parts.config;
  const replay = replayPorts({ ...parts, rootNamespace, ttlSeconds });
  return {
    ...parts,
    authzenNamespace: parts.config.authzenNamespace,
    recordEvents: store.recordEvents,
    trace: traceRequest,
    queryAudit: store.queryAudit,
    countAudit: store.countAudit,
    ...decisionPorts({ ...parts, rootNamespace }),
    ...auditorPorts({ ...parts, ...replay, rootNamespace }),
    ...replay,
    auditCheckpoint: store.auditCheckpoint,
    auditKey: () => store.readMeta('audit_verifier_key'),
    witnessedCheckpoint: store.witnessedCheckpoint,
    auditTile: store.auditTile,
    auditRemains: store.auditRemains,
    findPersonal: store.findPersonal,
    shredPersonal: store.shredPersonal,
    foldLog: store.foldLog,
    oldCopies: () => listOldCopies(parts.config.dataDir),
    proveEntry: store.proveEntry,
    proveConsistency: store.proveConsistency,
    namedCertificates: store.namedCertificates,
    revisions: {
      page: store.policyRevisions,
      policiesOf: store.policiesOf,
      policyOf: store.policyOf,
      policiesIn: store.policiesIn,
    },
    findToken: store.findToken,
    listTokens: store.listTokens,
    createToken: (token, event) => store.createToken(token, [event]),
    revokeToken: (id, event) => store.revokeToken(id, [event]),
    checkAuthz: ({ host, candidate = false, ...call }) => {
      const { bans } = holder.current();
      const { snapshot } = candidate ? candidateOf(holder) : holder.current();
      const now = parts.clock.now();
      const banned = findStandingDenial(bans, { id: call.source }, call.destination, now);
      const standing = banned === undefined ? undefined : denyDecision('banned', banned, snapshot.revision);
      return explainCall(snapshot, { ...call, authority: host }, now, standing);
    },
    survey: async (question) => {
      const answer = await inBreaths(question(holder.current().snapshot, parts.clock.now()), parts.breathe);
      // It is only left undone by those who say so.
      if (answer === undefined) throw new Error('the question was left');
      return answer;
    },
    policySet: () => ({
      policies: holder.current().policies.values(),
      rootNamespace: parts.config.rootNamespace,
    }),
    isBanned: (source, destination) =>
      findStandingDenial(holder.current().bans, { id: source }, destination, parts.clock.now()) !== undefined,
    trustBundlePem: () => bundlePem(authority.bundle()),
    trustBundleDocument: () => bundleDocument(authority.bundle(), parts.jwtBundle()),
    reportFailure: (errorId, error) => log.error({ errorId, err: error }, 'request failed'),
  };
}

/** @throws MeshError `policy_rollout_none` */
function candidateOf(holder: MeshHolder): Candidate {
  const live = rolloutOf(holder.current());
  if (live === null) throw noRollout();
  return live.candidate;
}

/** How those are known who come over TLS. */
function accessOf({
  config,
  trustDomain,
  holder,
  authority,
  clock,
  log,
}: AdminDoorParts): AdminPorts['access'] {
  const administrators = new Set(config.adminSpiffeIds.map((id) => checkAdministrator(id, trustDomain).text));
  return {
    trustDomain,
    judgeCertificate: createCertificateJudge({ bundle: authority.bundle, clock }),
    bans: () => holder.current().bans,
    verifyIdToken: openOidc(config, clock, log),
    grants: () => indexGrants(holder.current().mesh.grants ?? noGrants),
    isConfiguredAdmin: (id) => administrators.has(id.text),
  };
}

/** @throws MeshError `config_invalid` */
function checkAdministrator(id: SpiffeId, trustDomain: TrustDomain): SpiffeId {
  try {
    return parseAdministrator(id.text, trustDomain);
  } catch (cause) {
    throw new MeshError('config_invalid', `adminSpiffeIds: ${publicError(cause).message}`, {
      fix: 'name workloads of this trust domain',
      cause,
    });
  }
}

const noGrants: ReadonlyMap<string, AdminGrant> = new Map();

async function openTls(
  { keeper, trustDomain, log }: AdminDoorParts,
  ports: AdminPorts,
  at: NonNullable<Config['adminAddress']>,
): Promise<{ readonly url: string } & Pick<AdminListener, 'close'>> {
  const own = await keepOwnCertificate(keeper, { door: 'server', trustDomain, dnsNames: ['localhost'] });
  const app = await createAdminApp(ports, {
    kind: 'tls',
    ...own.current(),
    allowedHosts: new Set(['localhost', hostOf(at.host)]),
  });
  const listener = await listenTls(app, at);
  own.watch(({ certificate, privateKey }) => {
    try {
      listener.renew(certificate, privateKey);
    } catch (error) {
      log.error(publicError(error), 'the certificate of the admin API could not be renewed');
    }
  });
  // The certificate is for the name: an address would not verify.
  const port = listener.address.slice(listener.address.lastIndexOf(':') + 1);
  return { url: `https://localhost:${port}`, close: listener.close };
}

function hostOf(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
