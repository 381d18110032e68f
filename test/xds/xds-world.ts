import { EventEmitter } from 'node:events';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { expect } from 'vitest';
import { MeshError } from '../../src/errors.ts';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import type { Attestation, UnixPeer } from '../../src/identity/evidence.ts';
import { deltaForm, worldForm } from '../../src/xds/form.ts';
import type { Acknowledgement } from '../../src/xds/observer.ts';
import type { FindResource } from '../../src/xds/resource.ts';
import {
  createPipeDeadlines,
  openPipe,
  type Pipe,
  type PipeCall,
  type PipeParts,
} from '../../src/xds/pipe.ts';
import { secretOf, secretTypeUrl } from '../../src/xds/secret.ts';
import { createSecretSource } from '../../src/xds/source.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import type { DataSource } from '../../src/wire/core.ts';
import {
  type DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  type DiscoveryRequest,
  DiscoveryResponse,
} from '../../src/wire/discovery.ts';
import { Secret, SPIFFECertValidatorConfig } from '../../src/wire/tls.ts';
import { type ManualClock, manualClock, settle } from '../harness/manual-clock.ts';
import { createAuthority, credentialsOf, type TestAuthority } from './certificates.ts';
import { createSource } from './harness.ts';

export const webId = 'spiffe://example.org/web';
export const apiId = 'spiffe://example.org/api';
export const limits = { firstRequestMs: 1_000, writeMs: 10, answerMs: 30 };

/** What the mesh says of the caller; a number is one of the certificates or bundles that were made beforehand. */
export type Mesh = {
  readonly web: number | null;
  readonly api: number | null;
  readonly banned: ReadonlySet<string>;
  readonly bundle: number;
  readonly friend: boolean;
};

/** Certificates and bundles made of real keys, once for all runs. */
export type Pool = {
  readonly authority: TestAuthority;
  readonly svids: Readonly<Record<'web' | 'api', readonly X509Svid[]>>;
  readonly bundles: readonly TrustBundle[];
  readonly friend: TrustBundle;
  /** By version of the secret. */
  readonly identities: ReadonlyMap<string, string>;
};

export async function makePool(): Promise<Pool> {
  const [authority, next, friend] = await Promise.all([
    createAuthority('example.org'),
    createAuthority('example.org'),
    createAuthority('friend.example'),
  ]);
  const { bundle } = authority;
  const issue = (id: string) => Promise.all([1, 2, 3].map(() => authority.issue(id)));
  const svids = { web: await issue(webId), api: await issue(apiId) };
  const identities = [...svids.web, ...svids.api].map((svid): readonly [string, string] => {
    const secret = secretOf(credentialsOf(authority, [svid]), 'default', { plainTrustedCa: false });
    return [secret?.version ?? '', svid.id.text];
  });
  const both = [...bundle.x509Authorities, ...next.bundle.x509Authorities];
  return {
    authority,
    svids,
    identities: new Map(identities),
    bundles: [bundle, { ...bundle, x509Authorities: both, sequence: 2 }, { ...next.bundle, sequence: 3 }],
    friend: friend.bundle,
  };
}

/** A message to the client, of either form. */
export type Message = {
  readonly nonce: string;
  readonly version: string;
  readonly resources: readonly { readonly name: string; readonly version: string; readonly secret: Secret }[];
  readonly removed: readonly string[];
};

/** One stream of the client. */
export type Line = {
  readonly send: (request: Partial<DiscoveryRequest & DeltaDiscoveryRequest>) => void;
  /** Half-closes. */
  readonly close: () => void;
  /** From now on nothing that is written leaves. */
  readonly stall: () => void;
  /** Messages that came since the last call. */
  readonly take: () => readonly Message[];
  /** `OK` or an error's code; undefined while it is open. */
  readonly ended: () => string | undefined;
};

/** The server's side of SDS with real secrets, on a clock that stands still; grpc-js alone is stood in for. */
export type World = {
  readonly clock: ManualClock;
  readonly publish: (mesh: Mesh) => void;
  /** The version of a name now, undefined when the caller may not have it. */
  readonly version: (name: string) => string | undefined;
  readonly bannedIds: () => readonly string[];
  /** Whose certificate a version is; undefined for a bundle. */
  readonly identityOf: (version: string) => string | undefined;
  readonly open: (isDelta: boolean, isAggregated: boolean) => Line;
  readonly acknowledged: Acknowledgement[];
  readonly ignored: string[];
  readonly close: () => Promise<void>;
};

/**
 * @param isTogether whether all streams are attested at once, and together, and so share what they follow; else each is
 *   alone, and waits for it
 */
export function createWorld(pool: Pool, first: Mesh, isTogether: boolean): World {
  const clock = manualClock();
  let credentials = credentialsIn(pool, first);
  const source = createSource(() => credentials);
  const [acknowledged, ignored]: [Acknowledgement[], string[]] = [[], []];
  const pipes: Pipe[] = [];
  const all: Attestation = { selectors: [], caller: { pid: 1, uid: 1, gid: 1 } };
  const secrets = createSecretSource(source.watch, source.onChange);
  const parts: PipeParts = {
    attest: (peer) => (isTogether ? all : Promise.resolve({ ...all, caller: peer })),
    isAlive: (peer) => peer.isAlive(),
    refusals: { add: () => undefined, close: () => undefined },
    clock,
    observer: { acknowledged: (one) => void acknowledged.push(one) },
    ignored: (_, typeUrl) => void ignored.push(typeUrl),
    deadlines: createPipeDeadlines(clock, limits),
  };
  const find = (name: string) => secretOf(credentials, name, { plainTrustedCa: false });
  let connections = 0;
  return {
    clock,
    publish: (mesh) => {
      credentials = credentialsIn(pool, mesh);
      source.publish(() => credentials);
    },
    version: (name) => find(name)?.version,
    identityOf: (version) => pool.identities.get(version),
    bannedIds: () => credentials.banned.map(({ text }) => text),
    open: (isDelta, isAggregated) => {
      connections += 1;
      const peer: UnixPeer = {
        kind: 'unix',
        connectionId: `model-${connections}`,
        pid: 1,
        uid: 1,
        gid: 1,
        isAlive: () => true,
      };
      let [messages, isStalled, ended]: [Message[], boolean, string | undefined] = [[], false, undefined];
      const emitter = new EventEmitter();
      const write = (bytes: Buffer, written: () => void): boolean => {
        if (isStalled) return false;
        messages.push(isDelta ? readDelta(bytes) : readWorld(bytes, find));
        setImmediate(written);
        return true;
      };
      const call: unknown = Object.assign(emitter, { write });
      const cargo = { sources: [secrets], isAggregated };
      const finish = (error?: unknown): void => {
        ended = error === undefined ? 'OK' : error instanceof MeshError ? error.code : 'not ours';
      };
      const pipe = isDelta
        ? openPipe(call as PipeCall<DeltaDiscoveryRequest>, peer, deltaForm, cargo, parts, finish)
        : openPipe(call as PipeCall<DiscoveryRequest>, peer, worldForm, cargo, parts, finish);
      pipes.push(pipe);
      return {
        send: (request) => void emitter.emit('data', { ...emptyRequest, ...request }),
        close: () => void emitter.emit('end'),
        stall: () => (isStalled = true),
        take: () => messages.splice(0),
        ended: () => ended,
      };
    },
    acknowledged,
    ignored,
    close: async () => {
      for (const pipe of pipes) pipe.shutDown();
      await settle();
      expect([clock.sleepers(), source.watchers()]).toEqual([0, 0]);
    },
  };
}

/** What must hold of every secret that leaves, whatever happened before. */
export function inspect({ name, secret }: Message['resources'][number], mesh: Mesh): void {
  expect(secret.name).toBe(name);
  if (secret.type?.$case === 'tlsCertificate') {
    const { certificateChain, privateKey } = secret.type.tlsCertificate;
    const [leaf, issuer, ...more] = pemBlocks(certificateChain).map((pem) => new X509Certificate(pem));
    expect([leaf?.ca, issuer?.ca, more.length]).toEqual([false, true, 0]);
    expect(issuer !== undefined && leaf?.verify(issuer.publicKey)).toBe(true);
    expect(leaf?.checkPrivateKey(createPrivateKey(textOf(privateKey)))).toBe(true);
    const identity = leaf?.subjectAltName?.replace('URI:', '');
    const first = mesh.web === null ? apiId : webId;
    expect(identity).toBe(name === 'default' ? first : name);
    expect(mesh.banned.has(identity ?? '')).toBe(false);
    expect(identity === webId ? mesh.web : mesh.api).not.toBeNull();
    return;
  }
  if (secret.type?.$case !== 'validationContext') throw new Error('a secret of another kind');
  const { value } = secret.type.validationContext.customValidatorConfig?.typedConfig ?? {};
  const { trustDomains } = SPIFFECertValidatorConfig.decode(value ?? Buffer.alloc(0));
  const own = { name: 'example.org', authorities: mesh.bundle === 1 ? 2 : 1 };
  const foreign = { name: 'friend.example', authorities: 1 };
  const wanted = name === 'ALL' && mesh.friend ? [own, foreign] : name.includes('friend') ? [foreign] : [own];
  const found = trustDomains.map((one) => ({
    name: one.name,
    authorities: pemBlocks(one.trustBundle).length,
  }));
  expect(found).toEqual(wanted);
}

function credentialsIn({ authority, svids, bundles, friend }: Pool, mesh: Mesh): WorkloadCredentials {
  const held = (['web', 'api'] as const).flatMap((name) => svids[name][mesh[name] ?? -1] ?? []);
  const banned = held.filter(({ id }) => mesh.banned.has(id.text)).map(({ id }) => id);
  const allowed = held.filter(({ id }) => !mesh.banned.has(id.text));
  const own = bundles[mesh.bundle] ?? authority.bundle;
  const whole = credentialsOf({ ...authority, bundle: own }, allowed, mesh.friend ? [friend] : []);
  return {
    ...whole,
    ...(allowed.length === 0 ? { bundles: new Map() } : {}),
    banned,
    isDefaultBanned: held[0] !== undefined && mesh.banned.has(held[0].id.text),
  };
}

function readWorld(bytes: Buffer, find: FindResource): Message {
  const { nonce, versionInfo, typeUrl, resources } = DiscoveryResponse.decode(bytes);
  expect([typeUrl, ...resources.map((one) => one.typeUrl)]).toEqual(
    Array(resources.length + 1).fill(secretTypeUrl),
  );
  const secrets = resources.map(({ value }) => Secret.decode(value));
  return {
    nonce,
    version: versionInfo,
    // This form has no versions of single resources: the bytes tell whether it is the one of now.
    resources: secrets.map((secret, i) => {
      const now = find(secret.name);
      const isNow = now !== undefined && now.value.equals(resources[i]?.value ?? Buffer.alloc(0));
      return { name: secret.name, version: isNow ? now.version : 'of another time', secret };
    }),
    removed: [],
  };
}

function readDelta(bytes: Buffer): Message {
  const { nonce, systemVersionInfo, typeUrl, resources, removedResources } =
    DeltaDiscoveryResponse.decode(bytes);
  expect([typeUrl, ...resources.map((one) => one.resource?.typeUrl)]).toEqual(
    Array(resources.length + 1).fill(secretTypeUrl),
  );
  return {
    nonce,
    version: systemVersionInfo,
    resources: resources.map(({ name, version, resource }) => ({
      name,
      version,
      secret: Secret.decode(resource?.value ?? Buffer.alloc(0)),
    })),
    removed: removedResources,
  };
}

function pemBlocks(source: DataSource | undefined): readonly string[] {
  return textOf(source).match(/-----BEGIN[^-]*-----[^-]*-----END[^-]*-----\n/g) ?? [];
}

function textOf(source: DataSource | undefined): string {
  if (source?.specifier?.$case !== 'inlineBytes') throw new Error('not inline');
  return source.specifier.inlineBytes.toString('utf8');
}

const emptyRequest: DiscoveryRequest & DeltaDiscoveryRequest = {
  versionInfo: '',
  node: undefined,
  resourceNames: [],
  typeUrl: secretTypeUrl,
  responseNonce: '',
  errorDetail: undefined,
  resourceNamesSubscribe: [],
  resourceNamesUnsubscribe: [],
  initialResourceVersions: {},
};
