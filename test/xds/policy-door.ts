import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { credentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import type { RefusalEvent } from '../../src/audit/event.ts';
import { compileProxyPolicy, type ProxyPolicy, type ProxyPolicyInput } from '../../src/authz/proxy-policy.ts';
import { compileSnapshot, type Snapshot } from '../../src/authz/snapshot.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { startGrpcListener } from '../../src/grpc/listener.ts';
import { type BanInput, parseBan } from '../../src/identity/ban.ts';
import { bannedCallers } from '../../src/identity/banned-callers.ts';
import { indexBans } from '../../src/identity/ban-list.ts';
import type { WatchCredentials } from '../../src/identity/credentials.ts';
import { parseEntry } from '../../src/identity/entry-parse.ts';
import { createNotice } from '../../src/identity/notice.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { Action } from '../../src/wire/rbac.ts';
import { RBAC } from '../../src/wire/rbac_filter.ts';
import { RBAC as NetworkRBAC } from '../../src/wire/rbac_network_filter.ts';
import { TypedExtensionConfig } from '../../src/wire/xds_core.ts';
import { createPolicyBeats } from '../../src/xds/policy-beats.ts';
import { createPolicyBook, type ProxyPolicyStanding } from '../../src/xds/policy-book.ts';
import { createPolicyDesk } from '../../src/xds/policy-desk.ts';
import { createPolicySource } from '../../src/xds/policy-source.ts';
import { createSdsService, type SdsLimits } from '../../src/xds/service.ts';
import type { Scope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';
import { createSource } from './harness.ts';

const trustDomain = TrustDomain.parse('mesh.test');
/** IDs of this trust domain by their last part. */
export const idOf = (name: string): string => `spiffe://mesh.test/${name}`;

/**
 * What policies are made of here: a leaf for every call to each destination, or bytes that Envoy refuses; or, where the
 * leaf is `compiled`, what is compiled from the snapshot of the options.
 */
export type PolicyWorld = {
  /** The identities of every caller, the default one first. */
  readonly identities: readonly string[];
  readonly bans: readonly BanInput[];
  /** By destination: the name of the leaf that all calls come to. */
  readonly leaves: Readonly<Record<string, string>>;
  readonly broken: boolean;
  /** No policy is ever made ready. */
  readonly silent: boolean;
  /** The policy revision. */
  readonly number: number;
  readonly usableForSeconds: number;
};

/** The discovery services with policies, in this process, on a real socket. */
export type PolicyDoor = {
  readonly path: string;
  readonly set: (change: Partial<PolicyWorld>) => void;
  readonly standings: () => readonly ProxyPolicyStanding[];
  /** The destinations in the order in which policies were made for them. */
  readonly compiled: string[];
  readonly told: string[];
  readonly refusals: RefusalEvent[];
  readonly close: () => Promise<void>;
};

export async function openPolicyDoor(
  scope: Scope,
  first: Partial<PolicyWorld> = {},
  options: {
    readonly limits?: Partial<SdsLimits>;
    readonly watch?: WatchCredentials;
    readonly clock?: Clock;
    /** What else is served on the socket. */
    readonly services?: readonly {
      readonly definition: ServiceDefinition;
      readonly implementation: UntypedServiceImplementation;
    }[];
    readonly directory?: string;
    readonly snapshot?: Snapshot;
  } = {},
): Promise<PolicyDoor> {
  const { clock = systemClock } = options;
  const {
    snapshot = compileSnapshot({
      revision: 1,
      trustDomain,
      rootNamespace: 'root',
      policies: [],
      workloads: [],
    }),
  } = options;
  let world: PolicyWorld = {
    identities: ['web'],
    bans: [],
    leaves: { web: 'allow:shop/web[0]' },
    broken: false,
    silent: false,
    number: 1,
    usableForSeconds: 60,
    ...first,
  };
  const [compiled, told]: [string[], string[]] = [[], []];
  const refusals: RefusalEvent[] = [];
  const changed = createNotice();
  const read = () => {
    const selector = `unix:uid:${process.getuid?.() ?? 0}`;
    const entries = world.identities.map((name, i) =>
      parseEntry(
        { id: `e${i}`, spiffeId: idOf(name), selectors: [selector] },
        { trustDomain, ttlSeconds: 3_600 },
        1,
      ),
    );
    const actor = { kind: 'uid', uid: 0, role: 'admin' } as const;
    const bans = world.bans.map((ban) =>
      parseBan(ban, trustDomain, { now: clock.now(), actor, revision: 1 }),
    );
    return {
      registry: indexEntries(entries),
      list: indexBans(bans),
      callers: bannedCallers(bans, clock.now()),
    };
  };
  let current = read();
  const book = createPolicyBook(clock, {
    pushed: () => told.push('pushed'),
    acknowledged: () => told.push('acknowledged'),
    rejected: (_, names, message) => told.push(`rejected ${names.join()}: ${message}`),
    unanswered: () => told.push('unanswered'),
    lacking: ({ service }) => told.push(`lacking: ${service.lacks ?? ''}`),
  });
  const desk = createPolicyDesk({
    state: () => ({
      snapshot,
      bannedIds: current.callers.ids,
      number: world.number,
      asksAll: () => (current.callers.hasOthers ? 'certificates_banned' : null),
    }),
    onChange: changed.subscribe,
    breathe: () => new Promise((resolve) => setTimeout(resolve, world.silent ? 10 : 0)),
    compiled: () => undefined,
    failed: (_, error) => told.push(`failed: ${String(error)}`),
    compile: function* (input) {
      const name = input.destination.path.slice(1);
      compiled.push(name);
      do yield;
      while (world.silent);
      if (world.leaves[name] === 'compiled') return yield* compileProxyPolicy(input);
      return policyOf(input, world.leaves[name] ?? 'deny:no_policy', world.broken);
    },
  });
  const source = createPolicySource({
    registry: () => current.registry,
    bans: () => current.list,
    onChange: changed.subscribe,
    desk,
    beats: createPolicyBeats(() => new Date(clock.now().getTime() + world.usableForSeconds * 1_000), clock),
    book,
    clock,
  });
  const sds = createSdsService({
    attest: createUnixAttestor(),
    watch: options.watch ?? noWatch,
    policies: source,
    recordRefusal: (event) => void refusals.push(event),
    clock: systemClock,
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  });
  const path = join(options.directory ?? makeTempDir(scope), 'w.sock');
  const listener = await startGrpcListener({
    path,
    mode: 0o666,
    services: [sds, sds.aggregated, sds.extensions, ...(options.services ?? [])],
  });
  let isOpen = true;
  const close = async (): Promise<void> => {
    if (!isOpen) return;
    isOpen = false;
    await listener.close(0);
  };
  scope.defer(close);
  return {
    path,
    compiled,
    told,
    refusals,
    standings: book.standings,
    set: (change) => {
      world = { ...world, ...change };
      current = read();
      changed.announce();
    },
    close,
  };
}

/** The address of a door for a client. */
export function addressOf({ path }: PolicyDoor) {
  return [`unix:${path}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 }] as const;
}

/** The name of the leaf that every call comes to, of a policy that says the same of all. */
export function leafOf(value: Uint8Array, name: string): string {
  const { name: own, typedConfig } = TypedExtensionConfig.decode(value);
  if (own !== name) throw new Error(`the configuration calls itself ${own}`);
  const filter = name.startsWith('countersign.tcp-') ? NetworkRBAC : RBAC;
  const { matcher } = filter.decode(typedConfig?.value ?? Buffer.alloc(0));
  const onMatch = matcher?.onNoMatch?.onMatch;
  if (onMatch?.$case !== 'action') throw new Error('no leaf');
  const { name: leaf, action } = Action.decode(onMatch.action.typedConfig?.value ?? Buffer.alloc(0));
  if ((action === 1) !== leaf.startsWith('deny:')) throw new Error(`${leaf} has the action ${action}`);
  return leaf;
}

/** A node that has declared all that policies need, but for what is overridden. */
export function nodeOf(
  change: { readonly policy?: unknown; readonly minor?: number; readonly agent?: string } = {},
) {
  const { policy = ['ask-v1', 'matcher-v1'], minor = 40, agent = 'envoy' } = change;
  return {
    id: 'sidecar-1',
    cluster: '',
    metadata: { countersign: { policy } },
    locality: undefined,
    userAgentName: agent,
    userAgentVersionType: {
      $case: 'userAgentBuildVersion' as const,
      userAgentBuildVersion: {
        version: { majorNumber: 1, minorNumber: minor, patch: 0 },
        metadata: undefined,
      },
    },
    clientFeatures: [],
  };
}

function policyOf(input: ProxyPolicyInput, leaf: string, broken: boolean): ProxyPolicy {
  const isBanned = input.bannedIds.length > 0;
  const name = input.asksAll === null ? (isBanned ? 'ask:banned' : leaf) : `ask:${input.asksAll}`;
  // Envoy refuses a leaf without a name.
  const value = Buffer.from(
    Action.encode({ name: broken ? '' : name, action: name.startsWith('deny:') ? 1 : 0 }).finish(),
  );
  const typedConfig = { typeUrl: 'type.googleapis.com/envoy.config.rbac.v3.Action', value };
  const onNoMatch = {
    onMatch: { $case: 'action' as const, action: { name: 'action', typedConfig } },
    keepMatching: false,
  };
  const matcher = { matcherType: undefined, onNoMatch };
  const http = RBAC.encode({
    matcher,
    shadowMatcher: undefined,
    shadowRulesStatPrefix: '',
    rulesStatPrefix: '',
    trackPerRuleStats: false,
  }).finish();
  const tcp = NetworkRBAC.encode({
    statPrefix: 'countersign_tcp',
    enforcementType: 0,
    shadowRulesStatPrefix: '',
    matcher,
    shadowMatcher: matcher,
  }).finish();
  return {
    destination: input.destination,
    revision: input.snapshot.revision,
    http,
    tcp,
    version: createHash('sha256').update(http).update(tcp).digest('hex').slice(0, 32),
    leaves: {
      allow: name.startsWith('allow:') ? 1 : 0,
      deny: name.startsWith('deny:') ? 1 : 0,
      ask: name.startsWith('ask:') ? 1 : 0,
    },
    asks: [],
  };
}

const noWatch: WatchCredentials = createSource(() => {
  throw new Error('nobody has credentials here');
}).watch;
