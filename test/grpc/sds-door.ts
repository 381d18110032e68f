import { X509Certificate } from 'node:crypto';
import { credentials, type ServiceError } from '@grpc/grpc-js';
import type { AuditEvent } from '../../src/audit/event.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { type BanInput, banKey, parseBan } from '../../src/identity/ban.ts';
import { compileStoredMesh, createMeshHolder, type MeshHolder } from '../../src/identity/current-mesh.ts';
import type { EntryInput } from '../../src/identity/entry.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import { createIssuer } from '../../src/identity/issuer.ts';
import { createKeeper, type Keeper } from '../../src/identity/keeper.ts';
import type { Mesh } from '../../src/identity/mesh.ts';
import { createWatch } from '../../src/identity/watch.ts';
import { openLog } from '../../src/log.ts';
import { bundlePem } from '../../src/spiffe/bundle.ts';
import { generateP256 } from '../../src/up-key-pair.ts';
import { openSdsTcpDoor, type SdsTcpParts } from '../../src/up-sds-tcp.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../../src/wire/discovery.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/sds.ts';
import type { TestAuthority } from '../ca/test-authority.ts';
import type { Scope } from '../harness/scope.ts';
import { makeShown, type Shown } from '../node/node-certificates.ts';
import { emptyRequest, followStream, secretsOf, type TestStream } from '../xds/harness.ts';
import type { OddShown } from './odd-certificate.ts';

/** The door at work, with a CA, a keeper and a mesh that the test changes. */
export type RunningDoor = {
  readonly port: number;
  readonly holder: MeshHolder;
  readonly keeper: Keeper;
  readonly events: AuditEvent[];
  readonly rootPem: string;
  /** What the door and all behind it take for now, as a distance from the real time. */
  readonly moveTime: (ms: number) => void;
  readonly change: (change: { entries?: readonly EntryInput[]; bans?: readonly BanInput[] }) => void;
  readonly setBundle: (bundle: TestAuthority['authority']['bundle']) => void;
  readonly client: (shown: OddShown | null) => SecretDiscoveryServiceClient;
  readonly open: (shown: OddShown | null) => TestStream;
  readonly fetch: (shown: OddShown | null, names: readonly string[]) => Promise<DiscoveryResponse>;
  readonly refusals: () => readonly (readonly [code: string, resource: string])[];
};

export async function startDoor(
  scope: Scope,
  ours: TestAuthority,
  entries: readonly EntryInput[],
  options: Partial<Pick<SdsTcpParts, 'limits' | 'recheckMs' | 'observer' | 'connectionsOfLine'>> = {},
): Promise<RunningDoor> {
  const { trustDomain, authority } = ours;
  let movedMs = 0;
  const clock: Clock = { now: () => new Date(Date.now() + movedMs), sleep: systemClock.sleep };
  const settings = { trustDomain, rootNamespace: 'root', ttlSeconds: 3_600 };
  let mesh: Mesh = meshOf(ours, entries, []);
  let bundle = authority.bundle;
  const holder = createMeshHolder(compileStoredMesh(mesh, settings));
  const events: AuditEvent[] = [];
  const bans = () => holder.current().bans;
  const keeper = createKeeper({
    issue: createIssuer({
      authority: () => authority,
      mayStillSign: () => true,
      record: async (event) => {
        events.push(event);
        return null;
      },
      clock,
      isCurrent: (entry) => holder.current().registry.entry(entry.id)?.revision === entry.revision,
      bans,
    }),
    generateKeyPair: generateP256,
    bans,
    onChange: holder.onChange,
    clock,
    random: Math.random,
    onFailure: () => undefined,
  });
  scope.defer(() => keeper.close());
  const shown = await makeShown(ours, '/countersign/server', clock.now());
  const door = await openSdsTcpDoor({
    at: { host: '127.0.0.1', port: 0 },
    trustDomain,
    holder,
    bundle: () => bundle,
    watch: createWatch({
      trustDomain,
      registry: () => holder.current().registry,
      bans,
      bundles: () => new Map([[trustDomain.name, bundle]]),
      jwtBundles: () => new Map(),
      keeper,
      clock,
      onChange: holder.onChange,
    }),
    own: { current: () => shown, watch: (listener) => listener(shown) },
    observer: {},
    recordQuietly: (batch) => events.push(...batch),
    clock,
    log: openLog('silent'),
    recheckMs: 100,
    ...options,
  });
  scope.defer(() => door.close(100));
  const rootPem = bundlePem(authority.bundle);
  const client: RunningDoor['client'] = (own) => {
    const ssl = credentials.createSsl(
      Buffer.from(rootPem),
      own === null ? null : Buffer.from(own.privateKey),
      own === null ? null : Buffer.from(own.certificate),
    );
    const made = new SecretDiscoveryServiceClient(`localhost:${door.port}`, ssl, {
      'grpc.use_local_subchannel_pool': 1,
    });
    scope.defer(() => made.close());
    return made;
  };
  return {
    port: door.port,
    holder,
    keeper,
    events,
    rootPem,
    moveTime: (ms) => {
      movedMs = ms;
    },
    change: ({ entries: next = entries, bans: banned = [] }) => {
      mesh = meshOf(ours, next, banned, mesh.revision + 1);
      holder.replace(compileStoredMesh(mesh, settings, holder.current()));
    },
    setBundle: (next) => {
      bundle = next;
    },
    client,
    open: (own) => followStream(client(own).streamSecrets()),
    fetch: (own, names) =>
      new Promise((resolve, reject) => {
        const request: DiscoveryRequest = { ...emptyRequest, resourceNames: [...names] };
        client(own).fetchSecrets(
          request,
          { deadline: Date.now() + 20_000 } as never,
          (error: ServiceError | null, answer: DiscoveryResponse) =>
            error ? reject(error) : resolve(answer),
        );
      }),
    refusals: () =>
      events.flatMap((event) => (event.type === 'refusal' ? [[event.code, event.resource] as const] : [])),
  };
}

/** An entry that lets its certificates be renewed over the network. */
export function renewable(id: string, change: Partial<EntryInput> = {}): EntryInput {
  return {
    id: id.replaceAll('/', '-'),
    spiffeId: `spiffe://mesh.test/${id}`,
    selectors: [`unix:path:/opt/${id}`],
    labels: { 'countersign.dev/renew-over-network': 'true' },
    ...change,
  };
}

/** The certificate of a response with its key, for the next connection. */
export function shownOf(
  response: DiscoveryResponse,
): OddShown & Pick<Shown, 'serial'> & { readonly id: string } {
  for (const { type } of secretsOf(response)) {
    if (type?.$case !== 'tlsCertificate') continue;
    const { certificateChain, privateKey } = type.tlsCertificate;
    if (certificateChain?.specifier?.$case !== 'inlineBytes') continue;
    if (privateKey?.specifier?.$case !== 'inlineBytes') continue;
    const certificate = certificateChain.specifier.inlineBytes.toString();
    const leaf = new X509Certificate(certificate);
    return {
      certificate,
      privateKey: privateKey.specifier.inlineBytes.toString(),
      serial: leaf.serialNumber.toLowerCase(),
      id: leaf.subjectAltName?.split(', ')[0] ?? '',
    };
  }
  throw new Error('no certificate');
}

function meshOf(
  { trustDomain }: TestAuthority,
  entries: readonly EntryInput[],
  bans: readonly BanInput[],
  revision = 1,
): Mesh {
  const parsed = entries.map((input) => parseEntry(input, { trustDomain, ttlSeconds: 3_600 }, 1));
  const banned = bans.map((input) =>
    parseBan(input, trustDomain, { actor: { kind: 'system' }, revision, now: new Date() }),
  );
  return {
    revision,
    entries: new Map(parsed.map((entry) => [entry.id, entry])),
    policies: new Map(),
    bans: new Map(banned.map((ban) => [banKey(ban), ban])),
  };
}
