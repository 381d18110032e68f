import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Actor } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { covers, type Scope, scopeOf } from '../identity/access.ts';
import type { Administration } from '../identity/administration.ts';
import type { Mesh } from '../identity/mesh.ts';
import type { PolicyChange } from '../identity/policy-edits.ts';
import { policyInForce, policyNamespace, type PolicyInForce } from '../identity/policy-revision.ts';
import { liveRollout, noRollout, type Rollout } from '../identity/rollout.ts';
import { demandNoDenials, type RolloutCounts, type RolloutEdge } from '../identity/rollout-tally.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { callerOf } from './caller.ts';
import { filesField } from './entry-routes.ts';
import { parseInput } from './input.ts';
import type { NodePorts } from './node-routes.ts';
import { type IsAdministrator, namespaceOf, permitOf } from './permit.ts';
import { addRoute } from './route.ts';

/** What rollouts need of the house. */
export type RolloutPorts = {
  readonly administration: Administration;
  /** What has become of calls in the last one. */
  readonly rollouts: { readonly counts: () => RolloutCounts };
  readonly nodes: Pick<NodePorts, 'registry' | 'presence'>;
  readonly isAdministrator: IsAdministrator;
  readonly clock: Clock;
};

/** A rollout as JSON. */
export type RolloutView = Omit<Rollout, 'time' | 'publicKey' | 'signature' | 'recordSha256'> & {
  /** Of the last step. */
  readonly time: string;
  readonly startedAt: string;
  readonly startedBy: Actor;
  readonly author: Actor;
  readonly message: string;
  /** The call that ended it, in words; empty for all others. */
  readonly cause: string;
  /** What the candidate changes, of what whoever asks may see. */
  readonly changes: readonly PolicyChange[];
};

/** What a node has of it. */
export type RolloutNode = {
  readonly name: string;
  /** `not_taking_part`: its agent is too old, and goes on with what is in force. */
  readonly state: 'in_step' | 'behind' | 'away' | 'not_taking_part';
};

/** An edge as JSON. */
export type RolloutEdgeView = Omit<RolloutEdge, 'first' | 'last'> &
  Readonly<Record<'first' | 'last', string>>;

/** The rollout beside the revision in force, how far it has come and what it would change. */
export type RolloutReport = {
  readonly active: PolicyInForce | null;
  /** The last one beside that revision, under way or ended; null when there was none. */
  readonly rollout: RolloutView | null;
  readonly judged: number;
  readonly newlyDenied: number;
  readonly newlyAllowed: number;
  readonly denied: number;
  readonly fallenBack: number;
  /** Of destinations that whoever asks may see policies of. */
  readonly edges: readonly RolloutEdgeView[];
  readonly nodes: readonly RolloutNode[];
};

/** A candidate that was staged, or with a dry run would be. */
export type StagedView = {
  readonly rollout: RolloutView | null;
  readonly changes: readonly PolicyChange[];
  readonly warnings: readonly string[];
};

/** What is in force after a candidate was put there. */
export type EnforcedView = { readonly active: PolicyInForce; readonly warnings: readonly string[] };

/** The way of a candidate into force, one step after the other. */
export function addRolloutRoutes(app: FastifyInstance, ports: RolloutPorts): void {
  const { administration, rollouts, isAdministrator } = ports;
  const stepOf = (request: FastifyRequest, message = '') => ({
    message,
    permit: permitOf(callerOf(request), isAdministrator),
  });
  const view = (request: FastifyRequest): RolloutView | null =>
    rolloutView(administration.current(), scopeOf(callerOf(request).grants, 'policies:read'));

  addRoute(app, 'GET /v1/policy-rollout', async (request) => {
    const scope = scopeOf(callerOf(request).grants, 'policies:read');
    const { edges, ...counts } = rollouts.counts();
    return {
      active: policyInForce(administration.current()),
      rollout: view(request),
      ...counts,
      edges: edges.filter(({ destination }) => isSeen(scope, destination)).map(edgeView),
      nodes: nodesOf(ports),
    } satisfies RolloutReport;
  });
  addRoute(app, 'POST /v1/policy-rollout', async (request) => {
    const {
      files,
      prune = false,
      dryRun = false,
      message,
    } = parseInput(stageBody, request.body, 'body_invalid');
    const options = { ...stepOf(request, message), prune, dryRun };
    const { changes, warnings } = await administration.stageRollout(files, callerOf(request).actor, options);
    return { rollout: dryRun ? null : view(request), changes, warnings } satisfies StagedView;
  });
  addRoute(app, 'POST /v1/policy-rollout/canary', async (request) => {
    const { percent, maxNewDenials, message } = parseInput(canaryBody, request.body, 'body_invalid');
    const options = { ...stepOf(request, message), maxNewDenials };
    await administration.moveCanary(percent, callerOf(request).actor, options);
    return view(request);
  });
  addRoute(app, 'POST /v1/policy-rollout/enforce', async (request) => {
    const { acceptDenials = false, message } = parseInput(enforceBody, request.body, 'body_invalid');
    const live = liveRollout(administration.current())?.state;
    if (live === undefined) throw noRollout();
    const counts = rollouts.counts();
    if (!acceptDenials) demandNoDenials(counts);
    const { actor } = callerOf(request);
    const { active, warnings } = await administration.enforceRollout(
      live.id,
      actor,
      stepOf(request, message),
    );
    const { number, id } = active;
    const unseen =
      counts.judged === 0 ? ['no call was judged by the candidate before it was put in force'] : [];
    return { active: { number, id }, warnings: [...unseen, ...warnings] } satisfies EnforcedView;
  });
  addRoute(app, 'DELETE /v1/policy-rollout', async (request) => {
    const { message } = parseInput(abortQuery, request.query, 'query_invalid');
    await administration.abortRollout(callerOf(request).actor, stepOf(request, message));
    return view(request);
  });
}

function rolloutView(mesh: Mesh, scope: Scope | undefined): RolloutView | null {
  const { rollout, rolloutReason } = mesh;
  if (rollout === undefined || rolloutReason === undefined) return null;
  const { time, publicKey: _key, signature: _signature, recordSha256: _record, ...state } = rollout.state;
  const { put, deleted } = rollout.changes;
  const changes: readonly PolicyChange[] = [
    ...put.map(({ key }) => ({
      key,
      action: mesh.policies.has(key) ? ('updated' as const) : ('created' as const),
    })),
    ...deleted.map((key) => ({ key, action: 'deleted' as const })),
  ];
  const { startedAt, ...reason } = rolloutReason;
  return {
    ...state,
    ...reason,
    time: time.toISOString(),
    startedAt: startedAt.toISOString(),
    changes: changes.filter(({ key }) => covers(scope, policyNamespace(key))),
  };
}

/** Who calls a workload is for those to see who may see what is in force for it. */
function isSeen(scope: Scope | undefined, destination: string): boolean {
  return scope === 'everywhere' || covers(scope, namespaceOf(SpiffeId.parse(destination)));
}

function edgeView({ first, last, ...edge }: RolloutEdge): RolloutEdgeView {
  return { ...edge, first: first.toISOString(), last: last.toISOString() };
}

function nodesOf({ nodes, clock }: Pick<RolloutPorts, 'nodes' | 'clock'>): readonly RolloutNode[] {
  const now = clock.now();
  return nodes.registry
    .all()
    .filter(({ evictedAt, notAfter, serials }) => evictedAt === null && serials.length > 0 && notAfter > now)
    .map(({ name }) => ({ name, state: stateOf(nodes.presence(name)) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function stateOf({
  connected,
  takesRollouts,
  behindSince,
}: ReturnType<NodePorts['presence']>): RolloutNode['state'] {
  if (!connected) return 'away';
  if (!takesRollouts) return 'not_taking_part';
  return behindSince === null ? 'in_step' : 'behind';
}

// Bounds here only keep absurd input short; identity/ decides what a message may be.
const text = z.string().max(4_096);
/** The body that stages a candidate. */
export const stageBody = z.strictObject({
  files: filesField,
  prune: z.boolean().optional(),
  dryRun: z.boolean().optional(),
  message: text.optional(),
});
/** The body that lets it decide for some. */
export const canaryBody = z.strictObject({
  percent: z.number(),
  maxNewDenials: z.number().optional(),
  message: text.optional(),
});
/** The body that puts it in force. */
export const enforceBody = z.strictObject({
  acceptDenials: z.boolean().optional(),
  message: text.optional(),
});
/** The query that ends it. */
export const abortQuery = z.strictObject({ message: text.optional() });
